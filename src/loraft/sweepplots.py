"""The PNG figure of a sweep, in the style of `loraft.plots`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loraft.plots import drawing
from loraft.sweeptables import alpha_in_words, in_words, key_word

RANK = "lora.r"
MARKS = ("o-", "s--", "^:", "D-.", "v-", "x--")
SHADES = ("0.0", "0.45", "0.25", "0.6")


def sweep_curve(sweep: Mapping[str, Any], path: Path) -> None:
    """Draws macro-F1 and accuracy over the rank, or over another swept key, a line for each combination of the others.

    Args:
        sweep: what `sweeps.sweep` returns.
        path: the PNG.
    """
    keys = [key for key in sweep["keys"] if key != "seed"]
    over = next((key for key in (RANK, *keys) if key in keys), None)
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in sweep["settings"]:
        rest = {key: value for key, value in row["settings"].items() if key != over}
        lines.setdefault(", ".join(f"{key_word(key)} {in_words(value)}" for key, value in rest.items()), []).append(row)
    values = _in_order([row["settings"].get(over) for row in sweep["settings"]])
    place = {repr(value): float(x) for x, value in enumerate(values)}  # equal distances: ranks double
    seeds = max(row["seeds"] for row in sweep["settings"])
    with drawing(path, (6.4, 6.4)) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True)
        for axes, score, name in ((upper, "macro_f1", "macro-F1"), (lower, "accuracy", "accuracy")):
            for number, (label, rows) in enumerate(lines.items()):
                shift = 0.12 * (number - (len(lines) - 1) / 2) / max(1, len(lines) - 1)
                rows = sorted(rows, key=lambda row: place[repr(row["settings"].get(over))])
                x = np.array([place[repr(row["settings"].get(over))] for row in rows]) + shift
                mean = np.array([row[score]["mean"] for row in rows])
                bounds = np.array([row[score]["interval"] for row in rows])
                axes.errorbar(x, mean, yerr=[mean - bounds[:, 0], bounds[:, 1] - mean], fmt=MARKS[number % len(MARKS)],
                              color=SHADES[number % len(SHADES)], markersize=5, capsize=3,
                              label=label or None)  # fmt: skip
            if seeds > 1:
                dots = [(place[repr(t["settings"].get(over))] + 0.15, t[score]) for t in sweep["trials"] if score in t]
                axes.plot(*zip(*dots, strict=True), "o", color="0.4", markersize=3, fillstyle="none", label="one seed")
            axes.set_ylabel(f"{name} (fraction, test split)")
        best = sweep["best"]
        upper.plot(place[repr(best["settings"].get(over))], best["macro_f1"], "*", color="0.0", markersize=13,
                   fillstyle="none", label=f"best on validation: {best['name']}")  # fmt: skip
        upper.legend(fontsize=7)
        lower.set_xticks(list(place.values()), [in_words(value) for value in values])
        lower.set_xlim(-0.5, len(values) - 0.5)
        lower.set_xlabel("LoRA rank r" if over == RANK else key_word(over) if over else "")
        means = f"means of {seeds} seeds, " if seeds > 1 else ""
        upper.set_title(
            f"{sweep['backbone']} on {sweep['data']}, {sweep['task']}\nalpha policy: {alpha_in_words(sweep)}\n"
            f"{means}bars: {sweep['confidence']:.0%} interval"
        )


def _in_order(values: Sequence[Any]) -> list[Any]:
    """Each value once: numbers by size, anything else as it came."""
    once = list({repr(value): value for value in values}.values())
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in once)
    return sorted(once) if numbers else once
