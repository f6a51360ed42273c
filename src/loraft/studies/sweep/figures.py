"""Draws the PNG figure of a sweep: the metric and accuracy over the rank or another swept key."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loraft.display.figure import LINE, WIDTH, drawing, filled
from loraft.evaluation.shares import percent
from loraft.studies.sweep.records import SettingRecord, SweepResult
from loraft.studies.sweep.tables import alpha_in_words, in_words, key_word, most_seeds, setting_in_words

RANK = "lora.r"
MARKERS, DASHES = ("o", "s", "^", "D", "v", "p"), ("-", "--", ":", "-.")  # markers that can be drawn hollow
SHADES = ("0.0", "0.45", "0.25", "0.6")
# How a setting compares with the best one; these are also the words of the legend.
BEST, SAME, DIFFERS = "best on validation", "cannot be told apart from the best", "differs from the best"
OTHER_ROWS, ONE_SEED = "other test rows or seeds than the best", "one seed"
LOOKS: dict[str, dict[str, Any]] = {
    BEST: {"marker": "o", "markersize": 13, "fillstyle": "none"},
    SAME: {"marker": "o", "markersize": 6},
    DIFFERS: {"marker": "o", "markersize": 6, "markerfacecolor": "white"},
    OTHER_ROWS: {"marker": "x", "markersize": 6},
    ONE_SEED: {"marker": "_", "markersize": 7},
}


def sweep_curve(sweep: SweepResult, path: Path) -> None:
    """Draws the metric and accuracy over the rank, or over the first other key if no rank was swept.

    Each combination of the other keys is a line. The markers show the test against the best setting: filled where the
    difference is not significant, hollow where it is, crossed where there was nothing to compare.

    Args:
        sweep: with at least one finished trial.
        path: of the PNG file.
    """
    keys = [key for key in sweep.keys if key != "seed"]
    over = next((key for key in (RANK, *keys) if key in keys), "")  # "" where only seeds were swept
    best, seeds = sweep.best_setting, most_seeds(sweep)
    assert best is not None
    finished = [row for row in sweep.settings if row.measured is not None]
    values = _in_order([row.settings.get(over) for row in finished])
    # Values are placed at equal distances, as usual ranks double each time. Lists cannot be keys, so repr is the key.
    positions = {repr(value): float(x) for x, value in enumerate(values)}
    lines: dict[str, list[SettingRecord]] = {}
    for row in sorted(finished, key=lambda row: positions[repr(row.settings.get(over))]):
        rest = [f"{key_word(key)} {in_words(row.settings[key], key)}" for key in keys if key != over]
        lines.setdefault(", ".join(rest), []).append(row)
    with drawing(path, (WIDTH, 6.6 + 0.2 * len(lines))) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True)
        key, axis = sweep.metric.axis()
        for axes, score, name in ((upper, key, axis), (lower, "accuracy", "accuracy (fraction")):
            for number, (label, rows) in enumerate(lines.items()):
                # Lines are shifted a little, from -0.1 to 0.1, so that their bars do not overlap.
                shift = 0.2 * (number - (len(lines) - 1) / 2) / max(1, len(lines) - 1)
                x = np.array([positions[repr(row.settings.get(over))] for row in rows]) + shift
                _line(axes, x, rows, score, best, number, label)
            if seeds > 1:
                trials = [trial for trial in sweep.trials if trial.measured is not None]
                x = np.array([positions[repr(trial.settings.get(over))] for trial in trials]) + 0.2
                axes.plot(
                    x,
                    [trial.measured.scores[score] for trial in trials if trial.measured is not None],
                    linestyle="none",
                    color="0.0",
                    **LOOKS[ONE_SEED],
                )
            axes.set_ylabel(f"{name}, test split)")
        standings = [_standing(row, best) for row in finished]
        _explain(upper, best, [*standings, *([ONE_SEED] if seeds > 1 else [])], with_lines=len(lines) > 1)
        names = [filled(in_words(value, over), width=24) for value in values]
        lower.set_xticks(list(positions.values()), names, rotation=90 if sum(map(len, names)) > LINE // 2 else 0)
        lower.set_xlim(-0.5, len(values) - 0.5)
        lower.set_xlabel("LoRA rank r" if over == RANK else key_word(over))
        quantised = f" ({sweep.quant})" if sweep.quant != "none" else ""
        title = (
            f"{sweep.backbone}{quantised} on {sweep.data}, {sweep.task}",
            f"alpha policy: {alpha_in_words(sweep)}",
            (f"means of {seeds} seeds, " if seeds > 1 else "") + f"bars: {percent(sweep.confidence)} interval",
        )
        figure.suptitle(filled(*title))


def _line(
    axes: Any, x: Any, rows: Sequence[SettingRecord], score: str, best: SettingRecord, number: int, label: str
) -> None:
    """Draws the settings of one line with their intervals, each marked by its test against the best setting."""
    round_ = number // len(MARKERS)  # the dash moves on by one more, so that 24 lines differ in marker and dash
    mark, shade = MARKERS[number % len(MARKERS)], SHADES[number % len(SHADES)]
    dash = DASHES[(number + round_) % len(DASHES)]
    spreads = [row.measured.scores[score] for row in rows if row.measured is not None]
    mean = np.array([spread.mean for spread in spreads])
    low, high = np.array([spread.interval for spread in spreads]).T
    axes.errorbar(x, mean, yerr=[mean - low, high - mean], linestyle=dash, marker=mark, color=shade, markersize=6,
                  capsize=3, label=label)  # fmt: skip
    for at, height, row in zip(x, mean, rows, strict=True):
        standing = _standing(row, best)
        if standing in (DIFFERS, OTHER_ROWS):
            axes.plot(at, height, **{**LOOKS[DIFFERS], "marker": mark}, color=shade, zorder=4)
        if standing in (BEST, OTHER_ROWS):
            axes.plot(at, height, **LOOKS[standing], color="0.0", zorder=5)


def _standing(row: SettingRecord, best: SettingRecord) -> str:
    """BEST, SAME, DIFFERS or OTHER_ROWS: how a finished setting compares with the best one."""
    if row.settings == best.settings:
        return BEST
    test = None if row.measured is None else row.measured.versus_best
    return OTHER_ROWS if test is None else SAME if test.same else DIFFERS


def _explain(axes: Any, best: SettingRecord, standings: Sequence[str], *, with_lines: bool) -> None:
    """Adds a legend below the axes: the markers that occur, and the lines if there are several."""
    from matplotlib.lines import Line2D

    words = {BEST: filled(f"{BEST}: {setting_in_words(best)}", width=50)}
    marks = [
        Line2D([], [], linestyle="none", color="0.0", label=words.get(standing, standing), **look)
        for standing, look in LOOKS.items()
        if standing in standings
    ]
    lines = axes.get_legend_handles_labels()[0] if with_lines else []
    axes.figure.legend(handles=[*marks, *lines], loc="outside lower center")


def _in_order(values: Sequence[Any]) -> list[Any]:
    """Each value once: numbers in increasing order, other values in the order given."""
    once = list({repr(value): value for value in values}.values())
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in once)
    return sorted(once) if numbers else once
