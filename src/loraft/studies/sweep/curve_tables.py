"""The table of a rank curve, the notes below it, and its figure."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from rich.table import Table

from loraft.display.figure import WIDTH, drawing, filled
from loraft.display.table import add_row, narrow_table
from loraft.evaluation.equivalence import LEVEL, Equivalence
from loraft.evaluation.shares import Interval, percent
from loraft.studies.sweep.curve_records import RankCurve

LINES = {"trained": ("o", "-", "0.0"), "cut": ("s", "--", "0.45")}  # marker, dash and shade


def curve(result: RankCurve) -> Table:
    """A row for each rank, trained or cut: test scores as fractions, what is kept, and differences in points."""
    columns = result.metric.columns(result.points[0].scores)
    heads = [head for score, head in columns.items() if score in (result.metric.key, "macro_f1", "accuracy")]
    table = narrow_table("rank", "weights", *heads, "energy", "parameters", f"to rank {result.rank}", "to trained",
                         drop=("parameters", "energy", "accuracy"))  # fmt: skip
    shown = [score for score in columns if score in (result.metric.key, "macro_f1", "accuracy")]
    for point in result.points:
        add_row(
            table,
            str(point.rank),
            point.made,
            *(_score(point.scores[score], point.intervals.get(score)) for score in shown),
            "" if point.energy is None else f"{point.energy:.2%}",
            f"{point.trainable_parameters:,}",
            _difference(point.to_full),
            _difference(point.to_trained),
        )
    return table


def curve_notes(result: RankCurve, left_out: Collection[str] = ()) -> list[str]:
    """What was trained, what was cut, what it took, and what the columns mean, one sentence a line.

    Args:
        result: the curve.
        left_out: heads of columns that are not shown, which no note explains.
    """
    share, margin = result.seconds / max(result.training_seconds, 0.1), 100 * result.margin
    how = "in one batch" if result.together else "one after the other"
    cuts = sum(point.made == "cut" for point in result.points)
    return [
        f"cut: the adapter of {result.source} (rank {result.rank}), in each layer to the nearest update of that rank;"
        " nothing was trained again",
        f"ranks cut: {cuts}, scored {how} in {result.seconds:.1f} s; the training of rank {result.rank} took"
        f" {result.training_seconds:.1f} s, both together are {1 + share:.2f} of it",
        f"in brackets: {percent(result.confidence)} interval over {result.n:,} test rows"
        + ("" if "energy" in left_out else "; energy: share of the update's squared Frobenius norm"),
        f"to rank {result.rank}, to trained: {result.metric.word} minus that adapter's, in points, with the paired"
        f" {percent(1 - 2 * LEVEL)} interval",
        f"=: equivalent within {margin:g} points (two one-sided tests, level {LEVEL:g}, each rank by itself);"
        " without =, that is not shown",
        "a rank that is chosen by this table is chosen on test rows, so its score here is a little too high",
    ]


def draw(result: RankCurve, path: Path) -> None:
    """Draws the metric and accuracy over the rank: the cut adapters, and the trained ones beside them."""
    ranks = sorted({point.rank for point in result.points})
    key, axis = result.metric.axis()
    with drawing(path, (WIDTH, 6.0)) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True)
        for axes, score, name in ((upper, key, axis), (lower, "accuracy", "accuracy (fraction")):
            for shift, (made, (marker, dash, shade)) in zip((-0.06, 0.06), LINES.items(), strict=True):
                points = [point for point in result.points if point.made == made]
                x = np.array([ranks.index(point.rank) for point in points]) + shift
                mean = np.array([point.scores[score] for point in points])
                low, high = np.array([point.intervals[score] for point in points]).T
                label = f"cut from rank {result.rank}" if made == "cut" else made
                axes.errorbar(x, mean, yerr=[mean - low, high - mean], marker=marker, linestyle=dash, color=shade,
                              capsize=3, label=label)  # fmt: skip
            axes.set_ylabel(f"{name}, test split)")
        figure.legend(*upper.get_legend_handles_labels(), loc="outside lower center")
        lower.set_xticks(range(len(ranks)), [str(rank) for rank in ranks])
        lower.set_xlabel("LoRA rank r")
        quantised = f" ({result.quant})" if result.quant != "none" else ""
        title = f"{result.backbone}{quantised} on {result.data}, {result.task}"
        figure.suptitle(filled(title, f"bars: {percent(result.confidence)} interval"))


def _score(value: float, interval: Interval | None) -> str:
    return f"{value:.4f}" + ("" if interval is None else " [{},{}]".format(*(f"{x:.3f}".lstrip("0") for x in interval)))


def _difference(found: Equivalence | None) -> str:
    if found is None:
        return ""
    low, high = (f"{100 * bound:+.1f}" for bound in found.interval)
    return f"{'= ' if found.equivalent else ''}{100 * found.difference:+.1f} [{low},{high}]"
