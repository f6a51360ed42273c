"""Figures of one run: learning curve, confusion matrix and reliability diagram, as PNG.

They are readable in greyscale: lines differ in dash and marker, not only in colour.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loraft.display.figure import drawing
from loraft.display.table import MANY_LABELS, SHOWN_LABELS
from loraft.errors import RunError
from loraft.evaluation.classification_report import Confused, EvaluationReport, confusions
from loraft.evaluation.metrics import expected_calibration_error, reliability_bins
from loraft.runs.predictions import read_rows
from loraft.runs.run import Run

# Of the learning curve's four lines: two in the upper panel, two in the lower.
STYLES = ("-", "o--", "s-", "o--")
SHADES = ("0.45", "0.0", "0.45", "0.0")


def learning_curve(log_rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws losses, and below them accuracy and macro F1, over the training steps.

    Args:
        log_rows: the trainer's log: `step` with `loss` (nats per answer token), `eval_loss` (log loss of the label,
            nats per sentence), `eval_accuracy` or `eval_macro_f1`. Where a resumed run logged a step twice, the later
            row is drawn.
        path: of the PNG.

    Raises:
        RunError: no row of the log has one of these values.
    """
    lines = {
        name: _over_steps(log_rows, key)
        for name, key in (
            ("train, per answer token", "loss"),
            ("validation, per sentence", "eval_loss"),
            ("accuracy", "eval_accuracy"),
            ("macro-F1", "eval_macro_f1"),
        )
    }
    if not any(lines.values()):
        raise RunError(
            f"{path}: nothing to draw (got a log of {len(log_rows)} rows without loss or scores); train the run again"
            " with --force"
        )
    with drawing(path, (6.4, 5.6)) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True)
        for axes, name, style, shade in zip((upper, upper, lower, lower), lines, STYLES, SHADES, strict=True):
            if lines[name]:
                axes.plot(*zip(*lines[name], strict=True), style, color=shade, label=name, markersize=4)
                axes.legend()
        upper.set_ylabel("loss (nats)")
        lower.set_ylabel("validation score (fraction)")
        lower.set_xlabel("training step")
        upper.set_title("Learning curve")


def confusion_matrix(confusion: Sequence[Sequence[int]], labels: Sequence[str], path: Path) -> None:
    """Draws counts and shares of each row; the column "no label" only where it is not empty.

    Of many labels the most frequent confusions are drawn as bars, since a matrix of them could not be read.

    Args:
        confusion: K x (K + 1) counts, row is the reference, the last column "no label".
        labels: the K names.
        path: of the PNG.
    """
    if len(labels) > MANY_LABELS:
        return _confusion_bars(confusions(confusion, labels)[:SHOWN_LABELS], path)
    counts = np.asarray(confusion)
    columns = list(labels)
    if counts[:, -1].any():
        columns.append("no label")
    counts = counts[:, : len(columns)]
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    side = 2.2 + 0.8 * len(labels)
    with drawing(path, (side + 1.2, side)) as figure:
        axes = figure.subplots()
        image = axes.imshow(shares, cmap="Greys", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            share = shares[row, column]
            axes.text(column, row, f"{count:,}\n{share:.1%}", ha="center", va="center",
                      color="white" if share > 0.5 else "black", fontsize=8)  # fmt: skip
        axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right", rotation_mode="anchor")
        axes.set_yticks(
            range(len(labels)), [f"{label}\n(n={n})" for label, n in zip(labels, totals[:, 0], strict=True)]
        )
        axes.set_xlabel("predicted")
        axes.set_ylabel("reference")
        axes.set_title("Confusion matrix")
        axes.grid(False)
        figure.colorbar(image, ax=axes, label="share of the reference's rows", fraction=0.046)


def _confusion_bars(worst: Sequence[Confused], path: Path) -> None:
    """Draws a bar for each kind of wrong answer, the most frequent at the top."""
    with drawing(path, (7.2, 1.2 + 0.28 * max(1, len(worst)))) as figure:
        axes = figure.subplots()
        bars = axes.barh(range(len(worst)), [one.count for one in worst], color="0.75", edgecolor="0.4")
        axes.bar_label(bars, [f"{one.count:,} ({one.share:.0%})" for one in worst], padding=3, fontsize=8)
        axes.set_yticks(range(len(worst)), [f"{one.reference} → {one.predicted}" for one in worst])
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.grid(False, axis="y")
        axes.set_xlabel("rows (share of the reference's rows)")
        axes.set_title("Most frequent confusions: reference → predicted" if worst else "No confusions")


def reliability_diagram(
    references: npt.ArrayLike, probs: npt.ArrayLike, path: Path, as_scored: npt.ArrayLike | None = None
) -> None:
    """Draws accuracy over confidence in 15 bins, and below it the number of rows in each bin.

    Args:
        references: N label ids.
        probs: N x K probabilities.
        path: of the PNG.
        as_scored: those before calibration, drawn as a dashed line over the others; None where there was none.
    """
    bins = reliability_bins(references, probs)
    filled = bins["count"] > 0
    edges = np.linspace(0, 1, len(filled) + 1)
    ece = expected_calibration_error(references, probs)
    with drawing(path, (5.2, 5.6)) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        which = "" if as_scored is None else ", calibrated"
        upper.bar(edges[:-1][filled], bins["accuracy"][filled], width=edges[1], align="edge", color="0.8",
                  edgecolor="0.4", label=f"accuracy in the bin{which}")  # fmt: skip
        upper.plot(bins["confidence"][filled], bins["accuracy"][filled], "o", color="0.0", markersize=4,
                   label="at the bin's mean confidence")  # fmt: skip
        upper.plot([0, 1], [0, 1], ":", color="0.3", label="confidence = accuracy")
        upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy (fraction)")
        title = f"Reliability (expected calibration error {ece:.3f})"
        lower.bar(edges[:-1], bins["count"], width=edges[1], align="edge", color="0.6", edgecolor="0.4")
        if as_scored is not None:
            raw, ece_raw = reliability_bins(references, as_scored), expected_calibration_error(references, as_scored)
            seen = raw["count"] > 0
            upper.plot(raw["confidence"][seen], raw["accuracy"][seen], "s--", color="0.0", markerfacecolor="white",
                       markersize=5, linewidth=1, label="as scored, before calibration")  # fmt: skip
            lower.stairs(raw["count"], edges, color="0.0", linestyle="--", linewidth=1)
            title = f"Reliability: calibration error {ece:.3f} (as scored {ece_raw:.3f})"
        upper.set_title(title)
        upper.legend(loc="upper left")
        lower.set(xlabel="confidence (probability of the predicted label)", ylabel="rows")


def draw_run_figures(run: Run, after: EvaluationReport, labels: Sequence[str]) -> None:
    """Draws the learning curve, the confusion matrix and, with probabilities, the reliability diagram of a run.

    Where a row has any number of labels, it draws the learning curve alone.

    Args:
        run: a run whose log and predictions are written.
        after: the report of the adapter.
        labels: names of the K labels, in id order.

    Raises:
        RunError: the log has nothing to draw, or the predictions cannot be read.
    """
    run.plots.mkdir(exist_ok=True)
    learning_curve(run.read_log(), run.learning_curve_path)
    if not after.confusion:  # several labels a row
        return
    confusion_matrix(after.confusion, labels, run.confusion_matrix_path)
    rows = read_rows(run)
    probs = [row.probs for row in rows if row.probs is not None]
    if probs:
        probs_NK = np.array([[of_row[label] for label in labels] for of_row in probs])
        references_N = np.array([list(labels).index(str(row.label)) for row in rows])
        own = after.calibration
        reliability_diagram(references_N, probs_NK, run.reliability_path, None if own is None else own.raw(probs_NK))


def _over_steps(log_rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    values = {row["step"]: row[key] for row in log_rows if row.get(key) is not None and "step" in row}
    return sorted(values.items())
