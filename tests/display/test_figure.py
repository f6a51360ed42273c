"""A figure is saved in one step, in the common style, and leaves matplotlib's settings as they were."""

import gc
import weakref
from pathlib import Path

import matplotlib
import psutil
import pytest

from loraft.display.figure import DPI, STYLE, drawing


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of a PNG in pixels, from its first chunk."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def check_style(path: Path) -> None:
    with drawing(path, (1, 1)) as figure:
        assert {key: matplotlib.rcParams[key] for key in ("font.size", "axes.grid", "grid.color")} == {
            "font.size": 9.0, "axes.grid": True, "grid.color": "0.9"
        }  # fmt: skip
        axes = figure.subplots()
        assert [axes.spines[side].get_visible() for side in ("top", "right", "left")] == [False, False, True]


def test_a_figure_has_its_size_in_inches(tmp_path: Path) -> None:
    path = tmp_path / "hình" / "a.png"
    with drawing(path, (4, 3)) as figure:
        figure.subplots().plot([0, 1], [0, 1])
    assert size_of(path) == (4 * DPI, 3 * DPI)
    assert list(path.parent.iterdir()) == [path]  # no temporary file is left


def test_the_style_is_set_while_drawing_and_only_then(tmp_path: Path) -> None:
    with matplotlib.rc_context({"font.size": 13, "axes.grid": False, "grid.color": "red"}):
        before = {key: matplotlib.rcParams[key] for key in STYLE}
        check_style(tmp_path / "a.png")
        assert {key: matplotlib.rcParams[key] for key in STYLE} == before


def test_an_error_leaves_the_earlier_figure(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="hỏng"), drawing(path, (1, 1)):
        raise ValueError("hỏng")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_drawing_gives_the_same_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        with drawing(path, (1, 1)) as figure:
            figure.text(0.5, 0.5, "ổn định")
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert b"Software" not in paths[0].read_bytes()  # matplotlib's version would differ between machines


@pytest.mark.skipif(not hasattr(psutil.Process, "num_fds"), reason="Windows counts no file descriptors")
def test_figures_and_files_are_given_back(tmp_path: Path) -> None:
    drawn: list[weakref.ref[object]] = []

    def draw(number: int) -> None:
        with drawing(tmp_path / f"{number}.png", (1, 1)) as figure:
            figure.subplots().plot([0, 1], [0, 1])
            drawn.append(weakref.ref(figure))

    draw(0)  # opens the fonts, which matplotlib keeps
    gc.collect()  # files of earlier tests
    before = psutil.Process().num_fds()
    for number in range(1, 4):
        draw(number)
    gc.collect()
    assert [figure() for figure in drawn] == [None] * 4
    assert psutil.Process().num_fds() == before
