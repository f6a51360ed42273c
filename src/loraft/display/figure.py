"""The common style of all figures, and the function that saves one as PNG.

Matplotlib is imported on use. Its object interface changes neither the caller's backend nor open pyplot figures.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loraft.runs.atomic_files import replacing

DPI = 150
STYLE = {
    "font.family": "DejaVu Sans",  # ships with matplotlib and has all Vietnamese letters
    "font.size": 9,
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
