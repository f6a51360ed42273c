"""Figures of studies and data: they show what they are given, in grey, with units, and Vietnamese renders."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.records import record
from matplotlib.figure import Figure
from matplotlib.image import imread

from loraft.studies.dataset.figures import length_distributions
from loraft.studies.fewshot.figures import fewshot_curve
from loraft.studies.fewshot.summary import ADAPTER, BACKBONE, summarise


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn during the test, to be asked what they show."""
    figures: list[Any] = []
    make = Figure.__init__

    def keep(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        figures.append(self)

    monkeypatch.setattr(Figure, "__init__", keep)
    return figures


@pytest.fixture(autouse=True)
def _missing_glyphs_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def study(*, adapter_shots: bool) -> dict[str, Any]:
    measured = [(BACKBONE, 0, 0, 0.3)]
    measured += [(BACKBONE, k, draw, 0.4 + 0.02 * k + 0.01 * draw) for k in (1, 8) for draw in range(3)]
    measured += [(ADAPTER, 0, 0, 0.9)]
    measured += [(ADAPTER, k, 0, 0.8) for k in (1, 8)] if adapter_shots else []
    draws = [record(f1, half=0.02, model=model, shots=k, draw=draw) for model, k, draw, f1 in measured]
    rows = summarise([*draws, record(0.7, half=0.02, model="nhãn đa số", shots=None)], {0: 90, 1: 100, 8: 300}, 0.95)
    return {"rows": rows, "draws": draws, "selection": "random", "decode": "score", "confidence": 0.95,
            "backbone": "meta-llama/Llama-3.2-1B-Instruct", "source": "dữ liệu/góp ý", "task": "sentiment",
            "data": {"test": {"rows": 3166}}}  # fmt: skip


def test_shots_are_drawn_with_every_draw_beside_the_levels_to_beat(tmp_path: Path, drawn: list[Any]) -> None:
    fewshot_curve(study(adapter_shots=False), tmp_path / "a.png")
    upper, lower = drawn[0].axes
    levels = [line for line in upper.lines if len(set(np.atleast_1d(line.get_ydata()))) == 1]
    assert {(line.get_label(), line.get_ydata()[0]) for line in levels if not line.get_label().startswith("_")} == {
        ("nhãn đa số", 0.7), ("adapter, as trained", 0.9)
    }  # fmt: skip
    dots = next(line for line in upper.lines if line.get_label() == "backbone, one draw")
    assert sorted(dots.get_ydata()) == pytest.approx([0.42, 0.43, 0.44, 0.56, 0.57, 0.58])
    assert [text.get_text() for text in lower.get_xticklabels()] == ["0", "1", "8"]
    assert lower.get_xticks().tolist() == [0, 1, 2]
    assert "fraction" in upper.get_ylabel()
    assert "shots" in lower.get_xlabel()
    assert not any("adapter, mean" in line.get_label() for line in upper.lines)


def test_every_level_and_mean_has_its_interval(tmp_path: Path, drawn: list[Any]) -> None:
    shown = study(adapter_shots=False)
    fewshot_curve(shown, tmp_path / "a.png")
    bars = [
        segment[:, 1].tolist()
        for container in drawn[0].axes[1].containers
        for segment in container.lines[2][0].get_segments()
    ]
    expected = [row["macro_f1"]["interval"] for row in shown["rows"]]
    assert sorted(bars) == [pytest.approx(interval) for interval in sorted(expected)]


def test_the_title_names_backbone_data_and_rows_inside_the_figure(tmp_path: Path, drawn: list[Any]) -> None:
    fewshot_curve(study(adapter_shots=False), tmp_path / "a.png")
    title = drawn[0].axes[0].title
    assert title.get_text().split("\n") == [
        "Few-shot: Llama-3.2-1B-Instruct on góp ý, sentiment", "random demonstrations, decode score, 3,166 test rows",
        "bars: 95% interval over draws and test rows"
    ]  # fmt: skip
    assert drawn[0].bbox.x0 <= title.get_window_extent().x0 < title.get_window_extent().x1 <= drawn[0].bbox.x1


def test_the_adapter_with_demonstrations_is_a_curve_of_its_own(tmp_path: Path, drawn: list[Any]) -> None:
    fewshot_curve(study(adapter_shots=True), tmp_path / "a.png")
    labels = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert "adapter, mean of draws" in labels
    assert "adapter, as trained" in labels


def test_lengths_share_one_scale_and_add_up_to_all_rows(tmp_path: Path, drawn: list[Any]) -> None:
    generator = np.random.default_rng(0)
    words = {
        "tiêu cực": generator.integers(1, 30, 500),
        "tích cực": np.array([3, 3, 400]),
        "không có": np.array([], int),
    }
    length_distributions(words, tmp_path / "a.png", title="Sentence length by cảm xúc")
    panels = drawn[0].axes
    assert len(panels) == 2  # a label without rows has no panel
    for panel in panels:
        assert sum(bar.get_height() for bar in panel.patches) == pytest.approx(100)
    assert panels[0].get_xlim() == panels[1].get_xlim()
    assert panels[1].patches[-1].get_height() == pytest.approx(100 / 3)  # the row of 400 words is in the last bar
    assert "tích cực\n3 rows, median 3, longest 400" in panels[1].texts[0].get_text()
    assert "words" in panels[-1].get_xlabel()
    assert "%" in drawn[0].get_supylabel()


@pytest.mark.parametrize("lengths", [[1], [5, 5, 5], [1, 2], list(range(1, 2000))])
def test_any_lengths_can_be_drawn(tmp_path: Path, lengths: list[int]) -> None:
    length_distributions({"a": np.array(lengths)}, tmp_path / "a.png", title="a")
    assert imread(tmp_path / "a.png").std() > 0


def test_figures_are_grey(tmp_path: Path) -> None:
    fewshot_curve(study(adapter_shots=True), tmp_path / "a.png")
    length_distributions({"a": np.array([1, 2, 3])}, tmp_path / "b.png", title="a")
    for name in ("a.png", "b.png"):
        red, green, blue = np.moveaxis(imread(tmp_path / name)[..., :3], -1, 0)
        assert max(np.abs(red - green).max(), np.abs(red - blue).max()) < 0.02
