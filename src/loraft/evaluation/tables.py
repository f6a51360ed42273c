"""Tables for the terminal: results before and after, per label, confusion. Plain aligned text when piped."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from loraft.display.table import add_row, number_table

CORE = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
}


def before_after(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Table:
    """Every metric and every label's F1: the backbone zero-shot, the adapter, the difference in points.

    Args:
        before: the backbone's numbers as `metrics.full` gives them, None if they were not measured.
        after: the adapter's.
    """
    table = number_table("", "before: zero-shot", "after: adapter", "points")
    rows: list[tuple[str, str, int | None]] = [(name, key, None) for key, name in CORE.items()]
    rows += [(f"F1 {row['label']} (n={row['support']})", "f1", k) for k, row in enumerate(after["per_class"])]
    for name, key, label in rows:
        new = _value(after, key, label)
        old = None if before is None else _value(before, key, label)
        change = "" if old is None else f"{100 * (new - old):+.1f}"
        interval = _interval(after, key) if label is None else ""
        add_row(table, name, "" if old is None else f"{old:.4f}", f"{new:.4f}{interval}", change)
    no_label = [numbers["no_label"] for numbers in (before, after) if numbers is not None]
    if any(no_label):
        add_row(table, "answers that are no label", *[f"{share:.4f}" for share in ([0.0] * 2 + no_label)[-2:]], "")
    return table


def summary(result: Mapping[str, Any]) -> Table:
    """The numbers of one evaluation that are not per label; fractions, log loss in nats."""
    table = number_table("", "value")
    for key, name in CORE.items():
        add_row(table, name, f"{result[key]:.4f}{_interval(result, key)}")
    if result["expected_calibration_error"] is not None:
        add_row(table, "calibration error", f"{result['expected_calibration_error']:.4f}")
        add_row(table, "log loss", f"{result['log_loss']:.4f}")
    if result["no_label"]:
        add_row(table, "answers that are no label", f"{result['no_label']:.4f}")
    add_row(table, "rows", str(result["n"]))
    return table


def per_class(result: Mapping[str, Any]) -> Table:
    """Precision, recall, F1 and number of rows of every label."""
    table = number_table("label", "precision", "recall", "F1", "rows")
    for row in result["per_class"]:
        add_row(table, row["label"], *(f"{row[key]:.4f}" for key in ("precision", "recall", "f1")), str(row["support"]))
    return table


def confusion(result: Mapping[str, Any]) -> Table:
    """Rows by true label, columns by predicted label; a last column counts answers that are no label, if any are."""
    labels = [row["label"] for row in result["per_class"]]
    width = len(labels) + (1 if result["no_label"] else 0)
    table = number_table("true / predicted", *[*labels, "no label"][:width])
    for label, counts in zip(labels, result["confusion"], strict=True):
        add_row(table, label, *map(str, counts[:width]))
    return table


def _value(result: Mapping[str, Any], key: str, label: int | None) -> float:
    return float(result[key] if label is None else result["per_class"][label][key])


def _interval(result: Mapping[str, Any], key: str) -> str:
    low_high = result["intervals"].get(key)
    return "" if low_high is None else f" [{low_high[0]:.3f}, {low_high[1]:.3f}]"
