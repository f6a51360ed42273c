"""The common style of all figures, and the function that saves one as PNG.

Matplotlib is imported on use. Its object interface changes neither the caller's backend nor open pyplot figures.
"""

import logging
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loraft.runs.atomic_files import replacing

DPI = 150
# Inches. On a page of 360 px the text column is 328 px wide, so that 9 points become 9 / 72 * 328 / 5 = 8.2 px.
WIDTH = 5.0
LINE = 60  # characters of a title that fit into the width
STYLE = {
    "font.family": "DejaVu Sans",  # ships with matplotlib and has all Vietnamese letters
    "font.size": 9,
    **dict.fromkeys(("axes.titlesize", "figure.titlesize", "legend.fontsize"), 9),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "text.parse_math": False,  # $ in a label is a $
}


@contextmanager
def drawing(path: Path, size: tuple[float, float]) -> Iterator[Any]:
    """An empty matplotlib figure in the common style, saved as PNG when the `with` block ends without an error.

    Figures of reports are `WIDTH` wide and have no text below 9 points, so that they can be read on a phone. What tells
    lines and bars apart is never the colour alone: markers, dashes and hatches differ, and all colours are greys.

    Args:
        path: the PNG file; it is replaced in one step, so that an interrupt leaves no half file.
        size: width and height in inches.
    """
    # Where the folders of its caches cannot be written, it takes a temporary one, and says so in several lines.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        yield figure
        with replacing(path) as beside:
            FigureCanvasAgg(figure).print_png(beside, metadata={"Software": None})


def filled(*lines: str, width: int = LINE) -> str:
    """The lines, each broken where it is longer than the width in characters."""
    return "\n".join(textwrap.fill(line, width, break_long_words=len(line.split()) == 1) for line in lines)
