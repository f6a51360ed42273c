"""What every figure of a report must be: readable on a phone and in greyscale, with no text cut off or in another."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from typing import Any
from unittest.mock import patch

from matplotlib.axis import Tick
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from loraft.display.figure import WIDTH

COLUMN = 328  # px of text on a page of 360 px, see display/page.html.jinja
LEAST = 8  # px


@contextmanager
def drawn_figures() -> Iterator[list[Any]]:
    """The figures that are drawn in the block, to be asked what they show; at its end each must be readable."""
    figures: list[Any] = []
    make = Figure.__init__

    def keep(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        figures.append(self)

    with patch.object(Figure, "__init__", keep):
        yield figures
    for figure in figures:
        check_readable(figure)


def check_readable(figure: Figure) -> None:
    """Checks a figure that was drawn."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    assert figure.get_figwidth() == WIDTH
    whole = figure.bbox.padded(1)
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    ticks = {axes: _tick_labels(axes) for axes in figure.axes}
    # matplotlib keeps ticks beyond the bounds, and does not draw them.
    of_ticks = [label for tick in figure.findobj(Tick) for label in (tick.label1, tick.label2)]
    not_drawn = [label for label in of_ticks if not any(label in row for rows in ticks.values() for row in rows)]
    for text in shown:
        assert text.get_fontsize() / 72 * COLUMN / WIDTH >= LEAST, f"too small: {text.get_text()!r}"
        assert len({*to_rgb(text.get_color())}) == 1, f"not grey: {text.get_text()!r}"
        if text not in not_drawn:
            box = text.get_window_extent(renderer)
            assert whole.contains(box.x0, box.y0), f"cut off: {text.get_text()!r}"
            assert whole.contains(box.x1, box.y1), f"cut off: {text.get_text()!r}"
    for rows in ticks.values():
        for row in rows:
            for one, other in combinations(row, 2):
                boxes = [label.get_window_extent(renderer).padded(-1) for label in (one, other)]
                assert not boxes[0].overlaps(boxes[1]), f"{one.get_text()!r} over {other.get_text()!r}"
    for axes in figure.axes:
        named = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
        styles = [(line.get_marker(), line.get_linestyle(), line.get_fillstyle()) for line in named]
        styles = [
            (*style, line._dash_pattern)
            for style, line in zip(styles, named, strict=True)  # type: ignore[attr-defined]
        ]
        assert len({*map(str, styles)}) == len(styles), f"lines that look alike: {styles}"
        for line in axes.lines:
            colour = line.get_markeredgecolor() if line.get_linestyle() == "None" else line.get_color()
            assert len({*to_rgb(colour)}) == 1, f"not grey: {line.get_label()}"


def _tick_labels(axes: Any) -> list[list[Text]]:
    """The labels that are drawn on each of the two axes."""
    found = []
    for axis, bounds in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        low, high = sorted(bounds)
        ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        found.append([tick.label1 for tick in ticks if tick.label1.get_visible() and tick.label1.get_text()])
    return found
