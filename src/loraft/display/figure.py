"""PNG figures of one run. Readable in greyscale: lines differ in dash and marker, not in colour alone.

Matplotlib is imported on use, and its object interface leaves the caller's backend and figures alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loraft.runs.files import replacing

DPI = 150
# Part of matplotlib itself, so that Vietnamese renders on every machine.
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


@contextmanager
def drawing(path: Path, size: tuple[float, float]) -> Iterator[Any]:
    """An empty figure in our style, size in inches, saved to `path` in one step at the end."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        yield figure
        with replacing(path) as beside:
            FigureCanvasAgg(figure).print_png(beside, metadata={"Software": None})
