"""PNG figures of the studies and of data, in the style of `loraft.plots`."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from loraft.display.figure import drawing
from loraft.studies.fewshot.summary import ADAPTER, BACKBONE, BASELINE

DASHES = ("--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)))


def fewshot_curve(study: Mapping[str, Any], path: Path) -> None:
    """Draws accuracy and macro-F1 over the number of demonstrations, every draw as a dot, beside the baselines.

    Args:
        study: what `fewshots.fewshot` returns.
        path: the PNG.
    """
    shots = sorted({row["shots"] for row in study["rows"] if row["model"] == BACKBONE})
    place = {k: float(x) for x, k in enumerate(shots)}  # equal distances: 1, 2, 4, 8 would crowd at the left
    levels = [row for row in study["rows"] if row["model"] == BASELINE]
    levels += [row for row in study["rows"] if row["model"] == ADAPTER and row["shots"] == 0]
    curves = {model: [row for row in study["rows"] if row["model"] == model and row["shots"] in place]
              for model in (BACKBONE, ADAPTER)}  # fmt: skip
    with drawing(path, (6.4, 6.4)) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True)
        for axes, score, name in ((upper, "accuracy", "accuracy"), (lower, "macro_f1", "macro-F1")):
            for row, dash in zip(levels, DASHES, strict=False):
                label = "adapter, as trained" if row["model"] == ADAPTER else row["name"]
                axes.axhline(row[score]["mean"], linestyle=dash, color="0.35", linewidth=1.2, label=label)
            for at, row in enumerate(levels):  # beyond the last number of shots, beside each other
                level, (low, high) = row[score]["mean"], row[score]["interval"]
                axes.errorbar(len(shots) - 0.6 + 0.1 * at, level, yerr=[[level - low], [high - level]], fmt="none",
                              ecolor="0.35", elinewidth=1.2, capsize=3)  # fmt: skip
            for model, marker, shade, shift in ((BACKBONE, "o", "0.0", -0.03), (ADAPTER, "s", "0.5", 0.03)):
                rows = sorted(curves[model], key=lambda row: row["shots"])
                if not rows or (model == ADAPTER and len(rows) == 1 and rows[0]["shots"] == 0):
                    continue
                x = np.array([place[row["shots"]] for row in rows]) + shift
                mean = np.array([row[score]["mean"] for row in rows])
                bounds = np.array([row[score]["interval"] for row in rows])
                axes.errorbar(x, mean, yerr=[mean - bounds[:, 0], bounds[:, 1] - mean], fmt=f"{marker}-", color=shade,
                              markersize=5, capsize=3, label=f"{model}, mean of draws")  # fmt: skip
                several = {row["shots"] for row in rows if row["draws"] > 1}  # of one draw the mean says all
                drawn = [(place[d["shots"]] + shift + 0.09, d[score]) for d in study["draws"]
                         if d["model"] == model and d["shots"] in several]  # fmt: skip
                if drawn:
                    axes.plot(*zip(*drawn, strict=True), marker, color=shade, markersize=3.5, fillstyle="none",
                              linestyle="none", label=f"{model}, one draw")  # fmt: skip
            axes.set_ylabel(f"{name} (fraction)")
        lower.set_xticks(list(place.values()), [str(k) for k in shots])
        lower.set_xlim(-0.4, len(shots) - 0.5 + 0.1 * len(levels))
        lower.set_xlabel("demonstrations in the prompt (shots)")
        backbone, source, task = Path(study["backbone"]).name, Path(study["source"]).name, Path(study["task"]).stem
        test_rows = study["data"]["test"]["rows"]
        upper.set_title(
            f"{textwrap.fill(f'Few-shot: {backbone} on {source}, {task}', 80)}\n"
            f"{study['selection']} demonstrations, decode {study['decode']}, {test_rows:,} test rows\n"
            f"bars: {study['confidence']:.0%} interval over draws and test rows",
            fontsize=9,
        )
        handles, names = lower.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2)
