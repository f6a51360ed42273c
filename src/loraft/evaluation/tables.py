"""Tables of an evaluation: scores before and after training, per label, confusion."""

from collections.abc import Mapping

from rich.table import Table

from loraft.display.table import add_row, number_table
from loraft.evaluation.baselines import Baselines
from loraft.evaluation.classification_report import EvaluationReport
from loraft.evaluation.metrics import NAMES


def before_after(before: EvaluationReport | None, after: EvaluationReport) -> Table:
    """Every score and every label's F1, as fractions: the backbone zero-shot, the adapter, the difference in points.

    Args:
        before: report of the backbone; None if it was not measured.
        after: report of the adapter.
    """
    table = number_table("", "before: zero-shot", "after: adapter", "points")

    def add(name: str, old: float | None, new: float, interval: str = "") -> None:
        change = "" if old is None else f"{100 * (new - old):+.1f}"
        add_row(table, name, "" if old is None else f"{old:.4f}", f"{new:.4f}{interval}", change)

    for score, value in after.scores.items():
        add(NAMES[score], None if before is None else before.scores.get(score), value, _interval(after, score))
    for k, label in enumerate(after.per_class):
        add(f"F1 {label.label} (n={label.support})", None if before is None else before.per_class[k].f1, label.f1)
    if after.no_label or (before is not None and before.no_label):
        shares = [0.0 if report is None else report.no_label for report in (before, after)]
        add_row(table, "answers that are no label", *(f"{share:.4f}" for share in shares), "")
    return table


def summary(report: EvaluationReport) -> Table:
    """The results of one evaluation that are not per label: fractions, and the log loss in nats."""
    table = number_table("", "value")
    for score, value in report.scores.items():
        add_row(table, NAMES[score], f"{value:.4f}{_interval(report, score)}")
    if report.expected_calibration_error is not None:
        add_row(table, "calibration error", f"{report.expected_calibration_error:.4f}")
        add_row(table, "log loss", f"{report.log_loss:.4f}")
    if report.no_label:
        add_row(table, "answers that are no label", f"{report.no_label:.4f}")
    add_row(table, "rows", str(report.n))
    return table


def baselines(found: Mapping[str, Baselines | None]) -> list[Table]:
    """The baselines beside each model: their scores as fractions, its difference to them in points, and the verdict.

    Args:
        found: by the name of the model; "" where there is one.

    Returns:
        One table; none where no baseline was measured.
    """
    rows = [(name, row) for name, one in found.items() if one is not None for row in one.rows]
    columns = [cell for score in (rows[0][1].differences if rows else ()) for cell in (NAMES[score], "points")]
    table = number_table("baseline on the same rows", *columns, "the model is")
    table.columns[-1].justify = "left"
    for name, row in rows:
        cells = []
        for score, gap in row.differences.items():
            low, high = (f"{100 * bound:+.1f}" for bound in gap.interval)
            cells += [f"{row.scores[score]:.4f}", f"{100 * gap.difference:+.1f} [{low}, {high}]"]
        add_row(table, f"{name}: {row.name}" if name else row.name, *cells, row.verdict)
    return [table] if rows else []


def parts(report: EvaluationReport) -> list[Table]:
    """The tables of one evaluation; without a confusion matrix where a row has several labels."""
    return [make(report) for make in (summary, per_class, confusion)[: 3 if report.confusion else 2]]


def per_class(report: EvaluationReport) -> Table:
    """Precision, recall and F1 of every label, as fractions, its number of rows and its threshold if it has one."""
    thresholds = report.thresholds or ()
    table = number_table("label", "precision", "recall", "F1", "rows", *["threshold"] * bool(thresholds))
    for k, label in enumerate(report.per_class):
        scores = (f"{value:.4f}" for value in (label.precision, label.recall, label.f1))
        add_row(table, label.label, *scores, str(label.support), *(f"{one:.3f}" for one in thresholds[k : k + 1]))
    return table


def confusion(report: EvaluationReport) -> Table:
    """Counts: a row for each true label, a column for each predicted one, and one for "no label" if that occurs."""
    labels = [label.label for label in report.per_class]
    width = len(labels) + (1 if report.no_label else 0)
    table = number_table("true / predicted", *[*labels, "no label"][:width])
    for label, counts in zip(labels, report.confusion, strict=True):
        add_row(table, label, *map(str, counts[:width]))
    return table


def _interval(report: EvaluationReport, score: str) -> str:
    low_high = report.intervals.get(score)
    return "" if low_high is None else f" [{low_high[0]:.3f}, {low_high[1]:.3f}]"
