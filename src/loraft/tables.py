"""Tables for the terminal: results before and after, per label, confusion. Plain aligned text when piped."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

CORE = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
}


def show(tables: Sequence[Table]) -> None:
    """Prints tables on stdout; without frames, colours and line breaks where stdout is no terminal."""
    console = Console(highlight=False, markup=False)
    for table in tables:
        if not console.is_terminal:
            console = Console(highlight=False, markup=False, width=500)
            table.box = None
        console.print(table)
        console.print()


def before_after(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Table:
    """Every metric and every label's F1: the backbone zero-shot, the adapter, the difference in points.

    Args:
        before: the backbone's numbers as `metrics.full` gives them, None if they were not measured.
        after: the adapter's.
    """
    table = _table("before: zero-shot", "after: adapter", "points")
    rows: list[tuple[str, str, int | None]] = [(name, key, None) for key, name in CORE.items()]
    rows += [(f"F1 {row['label']} (n={row['support']})", "f1", k) for k, row in enumerate(after["per_class"])]
    for name, key, label in rows:
        new = _value(after, key, label)
        old = None if before is None else _value(before, key, label)
        change = "" if old is None else f"{100 * (new - old):+.1f}"
        interval = _interval(after, key) if label is None else ""
        table.add_row(name, "" if old is None else f"{old:.4f}", f"{new:.4f}{interval}", change)
    no_label = [numbers["no_label"] for numbers in (before, after) if numbers is not None]
    if any(no_label):
        table.add_row("answers that are no label", *[f"{share:.4f}" for share in ([0.0] * 2 + no_label)[-2:]], "")
    return table


def summary(result: Mapping[str, Any]) -> Table:
    """The numbers of one evaluation that are not per label; fractions, log loss in nats."""
    table = _table("value")
    for key, name in CORE.items():
        table.add_row(name, f"{result[key]:.4f}{_interval(result, key)}")
    if result["expected_calibration_error"] is not None:
        table.add_row("calibration error", f"{result['expected_calibration_error']:.4f}")
        table.add_row("log loss", f"{result['log_loss']:.4f}")
    if result["no_label"]:
        table.add_row("answers that are no label", f"{result['no_label']:.4f}")
    table.add_row("rows", str(result["n"]))
    return table


def per_class(result: Mapping[str, Any]) -> Table:
    """Precision, recall, F1 and number of rows of every label."""
    table = _table("precision", "recall", "F1", "rows", first="label")
    for row in result["per_class"]:
        table.add_row(row["label"], *(f"{row[key]:.4f}" for key in ("precision", "recall", "f1")), str(row["support"]))
    return table


def confusion(result: Mapping[str, Any]) -> Table:
    """Rows by true label, columns by predicted label; a last column counts answers that are no label, if any are."""
    labels = [row["label"] for row in result["per_class"]]
    width = len(labels) + (1 if result["no_label"] else 0)
    table = _table(*[*labels, "no label"][:width], first="true / predicted")
    for label, counts in zip(labels, result["confusion"], strict=True):
        table.add_row(label, *map(str, counts[:width]))
    return table


def listing(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A plain table of words."""
    table = Table(*columns, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row)
    return table


def _table(*columns: str, first: str = "") -> Table:
    table = Table(first, box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _value(result: Mapping[str, Any], key: str, label: int | None) -> float:
    return float(result[key] if label is None else result["per_class"][label][key])


def _interval(result: Mapping[str, Any], key: str) -> str:
    low_high = result["intervals"].get(key)
    return "" if low_high is None else f" [{low_high[0]:.3f}, {low_high[1]:.3f}]"
