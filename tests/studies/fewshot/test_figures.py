"""The figure of a few-shot study: it shows what it is given, in grey, with units, and Vietnamese renders."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.folders import fewshot_result
from helpers.records import record
from matplotlib.image import imread

from loraft.data.dataset import SplitSummary
from loraft.studies.fewshot.figures import fewshot_curve
from loraft.studies.fewshot.records import FewshotResult
from loraft.studies.fewshot.summary import ADAPTER, BACKBONE, summarise


@pytest.fixture(autouse=True)
def _missing_glyphs_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def study(*, adapter_shots: bool) -> FewshotResult:
    measured = [(BACKBONE, 0, 0, 0.3)]
    measured += [(BACKBONE, k, draw, 0.4 + 0.02 * k + 0.01 * draw) for k in (1, 8) for draw in range(3)]
    measured += [(ADAPTER, 0, 0, 0.9)]
    measured += [(ADAPTER, k, 0, 0.8) for k in (1, 8)] if adapter_shots else []
    draws = [record(f1, half=0.02, model=model, shots=k, draw=draw) for model, k, draw, f1 in measured]
    rows = summarise([*draws, record(0.7, half=0.02, model="nhãn đa số", shots=None)], {0: 90, 1: 100, 8: 300}, 0.95)
    return replace(
        fewshot_result(), backbone="meta-llama/Llama-3.2-1B-Instruct", source="dữ liệu/góp ý", rows=tuple(rows),
        draws=tuple(draws), decode="score", data={"test": SplitSummary("a", 3166, {})},
    )  # fmt: skip


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


def test_accuracy_is_above_and_macro_f1_below(tmp_path: Path, drawn: list[Any]) -> None:
    plain = study(adapter_shots=False)
    draws = [
        replace(draw, report=replace(draw.report, scores={**draw.report.scores, "accuracy": 0.95}))
        for draw in plain.draws
    ]
    fewshot_curve(replace(plain, draws=tuple(draws)), tmp_path / "a.png")
    above, below = (
        next(line.get_ydata() for line in axes.lines if line.get_label() == "backbone, one draw")
        for axes in drawn[0].axes
    )
    assert set(above) == {0.95}
    assert sorted(below) == pytest.approx([0.42, 0.43, 0.44, 0.56, 0.57, 0.58])


def test_every_level_and_mean_has_its_interval(tmp_path: Path, drawn: list[Any]) -> None:
    shown = study(adapter_shots=False)
    fewshot_curve(shown, tmp_path / "a.png")
    bars = [
        segment[:, 1].tolist()
        for container in drawn[0].axes[1].containers
        for segment in container.lines[2][0].get_segments()
    ]
    expected = [row.scores["macro_f1"].interval for row in shown.rows]
    assert sorted(bars) == [pytest.approx(interval) for interval in sorted(expected)]


def test_the_title_names_backbone_data_and_rows_inside_the_figure(tmp_path: Path, drawn: list[Any]) -> None:
    fewshot_curve(study(adapter_shots=False), tmp_path / "a.png")
    assert drawn[0].get_suptitle().split("\n") == [
        "Few-shot: Llama-3.2-1B-Instruct on góp ý, sentiment", "random demonstrations, decode score, 3,166 test rows",
        "bars: 95% interval over draws and test rows"
    ]  # fmt: skip


def test_the_adapter_with_demonstrations_is_a_curve_of_its_own(tmp_path: Path, drawn: list[Any]) -> None:
    fewshot_curve(study(adapter_shots=True), tmp_path / "a.png")
    labels = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert "adapter, mean of draws" in labels
    assert "adapter, as trained" in labels
    dots = next(line for line in drawn[0].axes[0].lines if line.get_label() == "backbone, one draw")
    assert len(dots.get_ydata()) == 6  # those of the adapter are not among them


def test_the_figure_is_grey(tmp_path: Path) -> None:
    fewshot_curve(study(adapter_shots=True), tmp_path / "a.png")
    red, green, blue = np.moveaxis(imread(tmp_path / "a.png")[..., :3], -1, 0)
    assert max(np.abs(red - green).max(), np.abs(red - blue).max()) < 0.02
