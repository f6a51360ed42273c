"""Draws the figure of a few-shot study: scores over the number of demonstrations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loraft.display.figure import WIDTH, drawing, filled
from loraft.evaluation.shares import percent
from loraft.studies.fewshot.records import DrawRecord, FewshotResult, TableRow
from loraft.studies.fewshot.summary import ADAPTER, BACKBONE, BASELINE

DASHES = ("--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)))


def fewshot_curve(study: FewshotResult, path: Path) -> None:
    """Draws accuracy and the metric over the number of demonstrations, with each draw as a dot.

    Baselines, and the adapter with the prompt that it was trained with, are horizontal lines.

    Args:
        study: the results of the study.
        path: the PNG.
    """
    shots = sorted(row.shots or 0 for row in study.rows if row.model == BACKBONE)
    # Equal distances: on a linear axis 1, 2, 4 and 8 shots would be crowded at the left.
    x_of = {k: float(x) for x, k in enumerate(shots)}
    levels = [row for row in study.rows if row.model == BASELINE]
    levels += [row for row in study.rows if row.model == ADAPTER and row.shots == 0]
    curves = {model: [row for row in study.rows if row.model == model and row.shots in x_of]
              for model in (BACKBONE, ADAPTER)}  # fmt: skip
    with drawing(path, (WIDTH, 6.8)) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True)
        key, axis = study.metric.axis()
        for axes, score, name in ((upper, "accuracy", "accuracy (fraction"), (lower, key, axis)):
            _levels(axes, levels, score, len(shots))
            for model, marker, shade, shift in ((BACKBONE, "o", "0.0", -0.03), (ADAPTER, "s", "0.5", 0.03)):
                rows = sorted(curves[model], key=lambda row: row.shots or 0)
                if not rows or (model == ADAPTER and len(rows) == 1 and rows[0].shots == 0):
                    continue  # the adapter without demonstrations is a level
                x_shifted = {k: x + shift for k, x in x_of.items()}
                _curve(axes, rows, study.draws, score, x_shifted, marker=marker, color=shade)
            axes.set_ylabel(f"{name})")
        lower.set_xticks(list(x_of.values()), [str(k) for k in shots])
        lower.set_xlim(-0.4, len(shots) - 0.5 + 0.1 * len(levels))
        lower.set_xlabel("demonstrations in the prompt (shots)")
        backbone, source, task = Path(study.backbone).name, Path(study.source).name, Path(study.task).stem
        test_rows = study.data["test"].rows
        title = (
            f"Few-shot: {backbone} on {source}, {task}",
            f"{study.selection} demonstrations, decode {study.decode}, {test_rows:,} test rows",
            f"bars: {percent(study.confidence)} interval over draws and test rows",
        )
        figure.suptitle(filled(*title))
        handles, names = lower.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2)


def _levels(axes: Any, rows: Sequence[TableRow], score: str, width: int) -> None:
    """Draws a horizontal line for each row, and its interval to the right of the last number of shots."""
    for row, dash in zip(rows, DASHES, strict=False):
        label = "adapter, as trained" if row.model == ADAPTER else row.name
        axes.axhline(row.scores[score].mean, linestyle=dash, color="0.35", linewidth=1.2, label=label)
    for number, row in enumerate(rows):
        level = row.scores[score].mean
        low, high = row.scores[score].interval or (level, level)
        axes.errorbar(width - 0.6 + 0.1 * number, level, yerr=[[level - low], [high - level]], fmt="none",
                      ecolor="0.35", elinewidth=1.2, capsize=3)  # fmt: skip


def _curve(
    axes: Any, rows: Sequence[TableRow], draws: Sequence[DrawRecord], score: str, x_of: dict[int, float], *,
    marker: str, color: str,
) -> None:  # fmt: skip
    """Draws the means of one model with their intervals, and its draws to the right of them."""
    model = rows[0].model
    x = np.array([x_of[row.shots or 0] for row in rows])
    mean = np.array([row.scores[score].mean for row in rows])
    bounds = np.array([row.scores[score].interval for row in rows])
    axes.errorbar(x, mean, yerr=[mean - bounds[:, 0], bounds[:, 1] - mean], fmt=f"{marker}-", color=color,
                  markersize=5, capsize=3, label=f"{model}, mean of draws")  # fmt: skip
    several = {row.shots for row in rows if row.draws > 1}  # a single draw is its mean
    dots = [
        (x_of[draw.shots or 0] + 0.09, draw.report.scores[score])
        for draw in draws
        if draw.model == model and draw.shots in several
    ]
    if dots:
        axes.plot(*zip(*dots, strict=True), marker, color=color, markersize=3.5, fillstyle="none", linestyle="none",
                  label=f"{model}, one draw")  # fmt: skip
