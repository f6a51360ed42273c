"""Draws the figure of sentence lengths of a data source."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loraft.display.figure import WIDTH, drawing, filled
from loraft.display.table import MANY_LABELS

SHOWN_SHARE = 0.99  # lengths up to this quantile get bars of their own; all longer ones are in the last bar


def length_distributions(
    words_by_name: Mapping[str, npt.NDArray[np.int64]], path: Path, *, title: str, bins: int = 40
) -> None:
    """Draws a histogram of sentence lengths for each label, all with the same axes.

    Args:
        words_by_name: lengths in words of the rows of each label; a label without rows is left out, and of many labels
            those with the most rows are drawn.
        path: the PNG.
        title: title of the figure.
        bins: largest number of bars up to the quantile `SHOWN_SHARE`.
    """
    shown = {name: words for name, words in words_by_name.items() if len(words)}
    everything = np.concatenate(list(shown.values()))
    if len(shown) > MANY_LABELS:
        largest = sorted(shown, key=lambda name: -len(shown[name]))[:MANY_LABELS]
        title, shown = f"{title}; {MANY_LABELS} of {len(shown)}", {name: shown[name] for name in largest}
    longest = max(int(np.quantile(everything, SHOWN_SHARE)), int(everything.min()) + 1)
    width = -(-longest // bins)  # of a bar, in words, rounded up
    # Edges lie between whole numbers. The last bar starts above `longest`, and `clipped` puts all longer rows into it.
    edges = np.arange(0, longest + 2 * width, width) + 0.5
    with drawing(path, (WIDTH, 1.2 + 1.5 * len(shown))) as figure:
        panels: Sequence[Any] = figure.subplots(len(shown), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, (name, words) in zip(panels, shown.items(), strict=True):
            clipped = np.minimum(words, edges[-1] - 0.5)
            weights = np.full(len(words), 100 / len(words))
            axes.hist(clipped, bins=edges, weights=weights, color="0.75", edgecolor="0.4", linewidth=0.5)
            median = float(np.median(words))
            axes.axvline(median, color="0.0", linestyle="--", linewidth=1.2)
            counts = f"{len(words):,} rows, median {median:g}, longest {words.max()}"
            axes.set_title(filled(name, counts, width=55), loc="right")
        panels[0].set_xlim(0, edges[-1])
        figure.suptitle(filled(title))
        panels[-1].set_xlabel(f"length in words\n(dashed: median; the last bar holds all from {edges[-2] + 0.5:.0f})")
        figure.supylabel("share of the label's rows (%)", fontsize=9)
