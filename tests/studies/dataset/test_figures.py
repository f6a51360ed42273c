"""The figure of sentence lengths: it shows what it is given, in grey, with units, and Vietnamese renders."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from loraft.studies.dataset.figures import length_distributions


@pytest.fixture(autouse=True)
def _missing_glyphs_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


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
    assert "tích cực\n3 rows, median 3, longest 400" in panels[1].get_title("right")
    assert "words" in panels[-1].get_xlabel()
    assert "%" in drawn[0].get_supylabel()


def test_of_many_labels_those_with_the_most_rows_are_drawn(tmp_path: Path, drawn: list[Any]) -> None:
    words = {f"nhãn {n}": np.arange(n + 1) + 1 for n in range(80)}
    length_distributions(words, tmp_path / "a.png", title="a")
    assert len(drawn[0].axes) == 8
    assert drawn[0].axes[0].get_title("right").startswith("nhãn 79\n80 rows")
    assert drawn[0].get_suptitle() == "a; 8 of 80"


@pytest.mark.parametrize("lengths", [[1], [5, 5, 5], [1, 2], list(range(1, 2000))])
def test_any_lengths_can_be_drawn(tmp_path: Path, lengths: list[int]) -> None:
    length_distributions({"a": np.array(lengths)}, tmp_path / "a.png", title="a")
    assert imread(tmp_path / "a.png").std() > 0


def test_the_figure_is_grey(tmp_path: Path) -> None:
    length_distributions({"a": np.array([1, 2, 3])}, tmp_path / "a.png", title="a")
    red, green, blue = np.moveaxis(imread(tmp_path / "a.png")[..., :3], -1, 0)
    assert max(np.abs(red - green).max(), np.abs(red - blue).max()) < 0.02
