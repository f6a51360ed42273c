"""PNG figures of one run. Readable in greyscale: lines differ in dash and marker, not in colour alone.

Matplotlib is imported on use, and its object interface leaves the caller's backend and figures alone.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loraft.display.figure import drawing
from loraft.errors import RunError
from loraft.evaluation.metrics import reliability_bins
from loraft.runs.run import Run

# Of the learning curve's four lines, two to a panel.
STYLES = ("-", "o--", "s-", "o--")
SHADES = ("0.45", "0.0", "0.45", "0.0")


def learning_curve(log_rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws loss, and accuracy and macro-F1, over steps.

    Args:
        log_rows: the trainer's log: `step` with `loss` (nats per answer token), `eval_loss` (log loss of the label,
            nats per sentence), `eval_accuracy` or `eval_macro_f1`. Where a resumed run logged a step twice, the later
            row counts.
        path: the PNG.

    Raises:
        RunError: there is nothing to draw.
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
        raise RunError(f"{path}: nothing to draw (got a log of {len(log_rows)} rows without loss or metrics)")
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
    """Draws counts and row shares; the column "no label" only where an answer was none.

    Args:
        confusion: K x (K + 1) counts, row is the reference, the last column "no label".
        labels: the K names.
        path: the PNG.
    """
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


def reliability_diagram(references: npt.ArrayLike, probs: npt.ArrayLike, path: Path) -> None:
    """Draws accuracy over confidence in 15 bins, with the number of rows below.

    Args:
        references: N label ids.
        probs: N x K probabilities.
        path: the PNG.
    """
    bins = reliability_bins(references, probs)
    filled = bins["count"] > 0
    edges = np.linspace(0, 1, len(filled) + 1)
    ece = np.nansum(bins["count"] * np.abs(bins["accuracy"] - bins["confidence"])) / bins["count"].sum()
    with drawing(path, (5.2, 5.6)) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.bar(edges[:-1][filled], bins["accuracy"][filled], width=edges[1], align="edge", color="0.8",
                  edgecolor="0.4", label="accuracy in the bin")  # fmt: skip
        upper.plot(bins["confidence"][filled], bins["accuracy"][filled], "o", color="0.0", markersize=4,
                   label="at the bin's mean confidence")  # fmt: skip
        upper.plot([0, 1], [0, 1], "--", color="0.4", label="calibrated")
        upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy (fraction)")
        upper.set_title(f"Reliability (expected calibration error {ece:.3f})")
        upper.legend(loc="upper left")
        lower.bar(edges[:-1], bins["count"], width=edges[1], align="edge", color="0.6", edgecolor="0.4")
        lower.set(xlabel="confidence (probability of the predicted label)", ylabel="rows")


def draw_run_figures(run: Run, after: Mapping[str, Any], labels: Sequence[str]) -> None:
    """Draws the learning curve, the confusion matrix and the reliability diagram of a run from its files.

    Args:
        after: its metrics with the adapter.
    """
    run.plots.mkdir(exist_ok=True)
    learning_curve(run.read_log(), run.plots / "learning_curve.png")
    confusion_matrix(after["confusion"], labels, run.plots / "confusion_matrix.png")
    rows = [json.loads(line) for line in run.predictions_path.read_text(encoding="utf-8").split("\n") if line]
    if rows and "probs" in rows[0]:
        probs_NK = np.array([[row["probs"][label] for label in labels] for row in rows])
        references_N = np.array([list(labels).index(row["label"]) for row in rows])
        reliability_diagram(references_N, probs_NK, run.plots / "reliability.png")


def _over_steps(log_rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    values = {row["step"]: row[key] for row in log_rows if row.get(key) is not None and "step" in row}
    return sorted(values.items())
