"""Tables of an evaluation: scores before and after training, per label, confusion."""

from collections.abc import Mapping

from rich.table import Table

from loraft.display.table import add_row, narrow_table, number_table
from loraft.evaluation import significance
from loraft.evaluation.baselines import Baselines
from loraft.evaluation.classification_report import EvaluationReport
from loraft.evaluation.metrics import SCORES

SHOWN = {1: significance.BETTER, -1: significance.WORSE, 0: "neither"}  # by the sign of a difference that is shown


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
        add(SCORES[score], None if before is None else before.scores.get(score), value, _interval(after, score))
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
        add_row(table, SCORES[score], f"{value:.4f}{_interval(report, score)}")
    if report.expected_calibration_error is not None:
        add_row(table, "calibration error", f"{report.expected_calibration_error:.4f}")
        add_row(table, "log loss", f"{report.log_loss:.4f}")
    if report.no_label:
        add_row(table, "answers that are no label", f"{report.no_label:.4f}")
    add_row(table, "rows", str(report.n))
    return table


def baselines(found: Mapping[str, Baselines | None], models: str = "") -> list[Table]:
    """The baselines beside each model, a line for each score: its value, and the model's difference to it in points.

    Args:
        found: by the name of the model, which has a column of its own where there are several.
        models: head of that column.

    Returns:
        One table; none where no baseline was measured.
    """
    measured = {name: one for name, one in found.items() if one is not None}
    if not measured:
        return []
    named, confidence = len(found) > 1, next(iter(measured.values())).confidence
    heads = ("baseline", "score", "value", f"points [{confidence:.0%} interval]", "shown to be")
    table = narrow_table(*([models] if named else []), *heads)
    for name, row in [(name, row) for name, one in measured.items() for row in one.rows]:
        for n, (score, gap) in enumerate(row.differences.items()):
            low, high = (f"{100 * bound:+.1f}" for bound in gap.interval)
            points = f"{100 * gap.difference:+.1f} [{low}, {high}]"
            word = SHOWN[significance.shown(gap, confidence)]
            first = [name] * named + [row.name] if n == 0 else [""] * (1 + named)
            add_row(table, *first, SCORES[score], f"{row.scores[score]:.4f}", points, word)
    for column in table.columns[: 2 + named]:
        column.justify = "left"
    return [table]


def per_class(report: EvaluationReport) -> Table:
    """Precision, recall and F1 of every label, as fractions, and its number of rows."""
    table = number_table("label", "precision", "recall", "F1", "rows")
    for label in report.per_class:
        scores = (f"{value:.4f}" for value in (label.precision, label.recall, label.f1))
        add_row(table, label.label, *scores, str(label.support))
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
