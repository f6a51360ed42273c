"""Figures of one run: learning curve, confusion matrix and reliability diagram, as PNG.

They are readable in greyscale: lines differ in dash and marker, not only in colour.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loraft.config.resolve import load_config
from loraft.display.figure import WIDTH, drawing, filled
from loraft.display.table import MANY_LABELS, SHOWN_LABELS
from loraft.errors import RunError
from loraft.evaluation.choosing import DEFAULT, Metric
from loraft.evaluation.classification_report import Confused, EvaluationReport, confusions
from loraft.evaluation.metrics import expected_calibration_error, reliability_bins
from loraft.runs.predictions import read_rows
from loraft.runs.run import Run

BLACK_UP_TO = 0.6  # share of a cell; text in white on darker ones, so that its contrast is 4.5 or more
LONGEST_NAME = 36  # characters of a label beside a matrix, in two lines
SHARES_UP_TO = 4  # labels of a matrix whose cells have room for counts and shares


def learning_curve(
    log_rows: Sequence[Mapping[str, Any]], path: Path, metric: Metric = DEFAULT, keep: str = "best"
) -> None:
    """Draws the losses of training and validation, and below them validation's metric, over the training steps.

    Both losses are in nats an answer token, as training weights them: that of training is a mean since the value
    before it, over weights that change and with dropout. The step whose weights are kept is marked and named.

    Args:
        log_rows: the trainer's log: `step` with `loss`, `eval_answer_loss` (not in logs of earlier versions) or the
            metric. Where a resumed run logged a step twice, the later row is drawn.
        path: of the PNG.
        metric: the run's.
        keep: `train.keep`.

    Raises:
        RunError: no row of the log has one of these values.
    """
    key, axis = metric.axis() if metric.key != "accuracy" else (metric.key, "accuracy (fraction")
    lines = {one: _over_steps(log_rows, one) for one in ("loss", "eval_answer_loss", f"eval_{key}")}
    if not any(lines.values()):
        raise RunError(
            f"{path}: nothing to draw (got a log of {len(log_rows)} rows without loss or scores); train the run again"
            " with --force"
        )
    train, validation, scores = lines.values()
    with drawing(path, (WIDTH, 5.0 if scores else 3.0)) as figure:
        upper, *below = figure.subplots(2 if scores else 1, 1, sharex=True, squeeze=False)[:, 0]
        lower = below[0] if scores else upper  # without an evaluation there is one panel
        often = max(1, len(train) // 20)  # a line of one value is its marker
        for axes, points, style, shade, name in (
            (upper, train, ".-", "0.45", "training"),
            (upper, validation, "o--", "0.0", "validation"),
            (lower, scores, "s-", "0.0", None),
        ):
            if points:
                axes.plot(*zip(*points, strict=True), style, color=shade, label=name, markersize=4,
                          markevery=often if points is train else 1)  # fmt: skip
        if scores:
            best = max(scores, key=lambda point: metric.gain(point[1]))  # the first of equal ones
            kept = best if keep == "best" else scores[-1]
            told = f"best: step {best[0]:,}, {metric.word} {best[1]:.2f}"
            if keep == "last":
                told = f"kept: the last step, {kept[0]:,}, {metric.word} {kept[1]:.2f}; {told}"
            lower.set_title(filled(f"○ {told}"))
            lower.plot(*kept, "o", fillstyle="none", color="0.0", markersize=11, linestyle="none")
            lower.axvline(kept[0], color="0.3", linestyle=":", linewidth=1)
            upper.axvline(kept[0], color="0.3", linestyle=":", linewidth=1, label="weights that are kept")
            lower.set(ylabel=filled(f"validation {axis})", width=26))
        upper.set(title="Learning curve", ylabel="loss\n(nats an answer token)")
        lower.set(xlabel="training step")
        lower.xaxis.get_major_locator().set_params(integer=True)
        if train or validation:
            upper.legend()


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
    short = [textwrap.shorten(name, LONGEST_NAME, placeholder=" …") for name in columns]
    names = [filled(name, width=max(14, len(name) // 2 + 4)) for name in short]
    few, longest = len(columns) <= SHARES_UP_TO, max(len(line) for name in names for line in name.split("\n"))
    with drawing(path, (WIDTH, 0.9 + (0.8 if few else 0.5) * len(labels) + 0.08 * longest)) as figure:
        axes = figure.subplots()
        image = axes.imshow(shares, cmap="Greys", vmin=0, vmax=1, aspect="auto")
        for (row, column), count in np.ndenumerate(counts):
            share = shares[row, column]
            axes.text(column, row, f"{count:,}\n{share:.1%}" if few else _in_thousands(count), ha="center", va="center",
                      color="black" if share <= BLACK_UP_TO else "white")  # fmt: skip
        axes.set_xticks(range(len(columns)), names, rotation=90)
        axes.set_yticks(range(len(labels)), [f"{name}\n(n={n})" for name, n in zip(names, totals[:, 0], strict=False)])
        axes.set_xlabel("predicted")
        axes.set_ylabel("reference")
        axes.set_title("Confusion matrix")
        axes.grid(False)
        if not few:
            figure.colorbar(image, ax=axes, label="share of the reference's rows", location="top", fraction=0.04)


def _in_thousands(count: int) -> str:
    """The number in at most four characters below ten millions: 9999, 12k."""
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"


def _confusion_bars(worst: Sequence[Confused], path: Path) -> None:
    """Draws a bar for each kind of wrong answer, the most frequent at the top."""
    names = [filled(f"{one.reference} → {one.predicted}", width=26) for one in worst]
    with drawing(path, (WIDTH, 1.2 + 0.2 * sum(1.2 + name.count("\n") for name in names))) as figure:
        axes = figure.subplots()
        bars = axes.barh(range(len(worst)), [one.count for one in worst], color="0.75", edgecolor="0.4")
        axes.bar_label(bars, [f"{one.count:,} ({one.share:.0%})" for one in worst], padding=3)
        axes.set_yticks(range(len(worst)), names)
        axes.invert_yaxis()
        axes.margins(x=0.3)
        axes.grid(False, axis="y")
        axes.set_xlabel("rows (share of the reference's rows)")
        figure.suptitle("Most frequent confusions: reference → predicted" if worst else "No confusions")


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
    with drawing(path, (WIDTH, 5.8)) as figure:
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
        figure.suptitle(title)
        figure.legend(loc="outside lower center")
        lower.set(xlabel="confidence (probability of the predicted label)", ylabel="rows")


def draw_run_figures(run: Run, after: EvaluationReport, labels: Sequence[str]) -> None:
    """Draws the learning curve, the confusion matrix and, with probabilities, the reliability diagram of a run.

    Where a row has any number of labels, it draws the learning curve alone.

    Args:
        run: a run whose config, log and predictions are written.
        after: the report of the adapter.
        labels: names of the K labels, in id order.

    Raises:
        RunError: the log has nothing to draw, or the predictions cannot be read.
    """
    run.plots.mkdir(exist_ok=True)
    config = load_config(run.config_path)
    learning_curve(run.read_log(), run.learning_curve_path, Metric.of(config), config.train.keep)
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
