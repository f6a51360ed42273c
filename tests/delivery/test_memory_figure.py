"""Each bar of the memory figure is the sum of its parts, and the parts differ without colours."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.figures import check_readable

from loraft.delivery import memory_figure
from loraft.delivery.memory_plan import Memory
from loraft.display.figure import drawing

METHODS = {
    "toàn bộ": Memory(4 << 30, 2 << 30, 8 << 30, 1 << 30),
    "QLoRA, bf16": Memory(1 << 30, 0, 0, 1 << 30),
}


def drawn(monkeypatch: pytest.MonkeyPatch, path: Path, methods: dict[str, Memory]) -> Any:
    """The axes of the figure that was saved."""
    kept = []

    @contextmanager
    def keeping(path: Path, size: tuple[float, float]) -> Iterator[Any]:
        with drawing(path, size) as figure:
            yield figure
            kept.append(figure)
        check_readable(figure)

    monkeypatch.setattr(memory_figure, "drawing", keeping)
    memory_figure.draw(methods, path, title="bộ nhớ")
    assert path.read_bytes().startswith(b"\x89PNG")
    return kept[0].axes[0]


def test_a_bar_is_the_sum_of_its_parts_under_its_peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = drawn(monkeypatch, tmp_path / "hình.png", METHODS)
    heights = [round(bar.get_height(), 3) for bar in axes.patches]
    assert heights == [4, 2, 8, 1, 1, 0, 0, 1]
    assert max(bar.get_y() + bar.get_height() for bar in axes.patches) == 15
    texts = [text.get_text() for text in axes.texts]
    assert "peak 15.00" in texts
    assert "0.00" not in texts  # a part without room has no number
    assert axes.get_ylabel() == "memory (GiB)"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["toàn bộ", "QLoRA\nbf16"]


def test_the_parts_differ_in_greyscale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = drawn(monkeypatch, tmp_path / "hình.png", METHODS)
    shades = {bar.get_facecolor()[0] for bar in axes.patches[:4]}
    assert len(shades) == 4
    assert all(len(set(bar.get_facecolor()[:3])) == 1 for bar in axes.patches)
    assert min(abs(one - other) for one in shades for other in shades - {one}) > 0.1


def test_small_backbones_are_in_mib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = drawn(monkeypatch, tmp_path / "hình.png", {"LoRA": Memory(12 << 20, 1 << 20, 2 << 20, 30 << 20)})
    assert axes.get_ylabel() == "memory (MiB)"
    assert "peak 45" in [text.get_text() for text in axes.texts]
