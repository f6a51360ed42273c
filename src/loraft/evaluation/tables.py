"""Tables of an evaluation: scores before and after training, per label, confusion."""

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from loraft.display.table import MANY_LABELS, SHOWN_LABELS, add_row, narrow_table, number_table
from loraft.display.under_words import under_words
from loraft.evaluation import verdicts
from loraft.evaluation.baselines import Baselines
from loraft.evaluation.choosing import DEFAULT, Metric
from loraft.evaluation.classification_report import EvaluationReport, ProbabilityScores, confusions
from loraft.evaluation.explanation import Explanation, signed
from loraft.evaluation.shares import percent
from loraft.evaluation.verdicts import cell
from loraft.visible import visible


def before_after(
    before: EvaluationReport | None, after: EvaluationReport, metric: Metric = DEFAULT, before_is: str = "zero-shot"
) -> Table:
    """Every score and every label's F1, as fractions: before the training, the adapter, the difference in points.

    Args:
        before: report of the backbone, or of the adapter that was trained further; None if it was not measured.
        after: report of the adapter.
        metric: that picked the checkpoint.
        before_is: what `before` are the scores of.
    """
    table = number_table("", f"before: {before_is}", "after: adapter", "points")

    def add(name: str, old: float | None, new: float, interval: str = "", score: str = "") -> None:
        gap = "" if old is None else cell(score, new - old)
        add_row(table, name, "" if old is None else f"{old:.4f}", f"{new:.4f}{interval}", gap)

    for score in metric.shown(after.scores):
        old = None if before is None else before.scores.get(score)
        add(metric.name(score), old, after.scores[score], _interval(after, score), score)
    for k in _worst(after):
        label = after.per_class[k]
        add(f"F1 {label.label} (n={label.support})", None if before is None else before.per_class[k].f1, label.f1)
    _add_rest(table, after, 4)
    if after.no_label or (before is not None and before.no_label):
        shares = [0.0 if report is None else report.no_label for report in (before, after)]
        add_row(table, "answers that are no label", *(f"{share:.4f}" for share in shares), "")
    if after.truncated:
        add_row(table, "rows shortened, share of all tokens", "", _shortened(after), "")
    return table


def explained(found: Explanation, width: int, *, likeliest: bool = True) -> Text:
    """The label with its probability, and the sentence with each word's effect below it.

    Words for the label are green and have a plus, words against it red with a minus; an effect of at least half the
    largest is bold.

    Args:
        found: of one label.
        width: of the terminal, in cells.
        likeliest: whether a label that is not predicted is there as the likeliest one, since none is.
    """
    strong = max((abs(word.effect) for word in found.words), default=0.0) / 2

    def style(effect: float) -> str:
        colour = {"+": "green", "-": "red"}.get(signed(effect)[0], "")
        return f"bold {colour}" if colour and abs(effect) >= strong else colour

    words = [(word.text, signed(word.effect), style(word.effect)) for word in found.words]
    head = f"{found.label} {found.probability:.3f}"
    if not found.predicted:
        head = f"no label is predicted; {'the likeliest: ' * likeliest}{head}"
    elif found.label not in found.predicted:
        head += f"; predicted: {', '.join(found.predicted)}"
    return Text("\n").join([Text(visible(head), "bold", end=""), under_words(words, width)])


def summary(report: EvaluationReport, metric: Metric = DEFAULT) -> Table:
    """The results of one evaluation that are neither per label nor of probabilities, as fractions."""
    table = number_table("", "value")
    for score in metric.shown(report.scores):
        add_row(table, metric.name(score), f"{report.scores[score]:.4f}{_interval(report, score)}")
    if report.no_label:
        add_row(table, "answers that are no label", f"{report.no_label:.4f}")
    add_row(table, "rows", str(report.n))
    if report.truncated:
        add_row(table, "rows shortened, share of all tokens", _shortened(report))
    return table


def calibration(report: EvaluationReport) -> list[Table]:
    """How good the probabilities are, as scored and calibrated; labels only where calibration changes some.

    Returns:
        One table; none without probabilities.
    """
    if report.expected_calibration_error is None:
        return []
    before = report.before_calibration
    both: list[EvaluationReport | ProbabilityScores] = [report] if before is None else [before, report]
    table = number_table("probabilities", *["as scored", "calibrated"][: len(both)])
    errors = [(one.expected_calibration_error, one.calibration_error_interval) for one in both]
    cells = [f"{error:.4f}" + (f" [{low[0]:.3f}, {low[1]:.3f}]" if low else "") for error, low in errors]
    add_row(table, "calibration error", *cells)
    add_row(table, "log loss, nats", *(f"{one.log_loss:.4f}" for one in both))
    if report.brier_score is not None:  # in files of this version
        add_row(table, "Brier score", *(f"{one.brier_score:.4f}" for one in both))
    if before is not None and before.changed:
        add_row(table, "accuracy", *(f"{one.accuracy:.4f}" for one in both))
        add_row(table, "macro F1", *(f"{one.macro_f1:.4f}" for one in both))
    return [table]


def calibration_notes(report: EvaluationReport) -> list[str]:
    """What stands below that table, one a line: what calibrated them, and how many labels it changed."""
    before = report.before_calibration
    if before is None:
        return []
    own = report.calibration
    told = ["calibrated: each fold by its own temperature" if own is None else f"calibrated: {own.words}"]
    if before.changed or (own is not None and own.bias is not None):
        told.append(f"biases change labels: {before.changed:,} of {report.n:,} here")
    return told


def baselines(found: Mapping[str, Baselines | None], models: str = "", metric: Metric = DEFAULT) -> list[Table]:
    """The baselines beside each model, a line for each score: its value, and the model's difference to it in points.

    Args:
        found: by the name of the model, which has a column of its own where there are several.
        models: head of that column.
        metric: that picked the checkpoint of each.

    Returns:
        One table; none where no baseline was measured.
    """
    measured = {name: one for name, one in found.items() if one is not None}
    if not measured:
        return []
    named, confidence = len(found) > 1, next(iter(measured.values())).confidence
    heads = ("baseline", "score", "value", f"points [{percent(confidence)} interval]", "shown to be")
    table = narrow_table(*([models] if named else []), *heads)
    for name, row in [(name, row) for name, one in measured.items() for row in one.rows]:
        for n, score in enumerate(metric.shown(row.differences)):
            gap = row.differences[score]
            points = cell(score, gap.difference, gap.interval)
            word = verdicts.SHOWN[verdicts.better(score, gap, confidence)]
            first = [name] * named + [row.name] if n == 0 else [""] * (1 + named)
            add_row(table, *first, metric.head(score), f"{row.scores[score]:.4f}", points, word)
    for column in table.columns[: 2 + named]:
        column.justify = "left"
    return [table]


def baselines_notes(found: Mapping[str, Baselines | None], models: str = "", metric: Metric = DEFAULT) -> list[str]:
    """What stands below that table, one a line: where interval and corrected test disagree, which of them decides.

    Args:
        found, models, metric: as in `baselines`.
    """
    return [
        (f"{models} {name}, " if len(found) > 1 else "")
        + f"{row.name}, {metric.name(score)}: {row.differences[score].note}"
        for name, one in found.items()
        for row in (() if one is None else one.rows)
        for score in metric.shown(row.differences)
        if row.differences[score].note
    ]


def parts(report: EvaluationReport, metric: Metric = DEFAULT) -> list[Table]:
    """The tables of one evaluation."""
    return [summary(report, metric), *calibration(report), *labels(report)]


def labels(report: EvaluationReport) -> list[Table]:
    """The tables of labels: scores of each, and the confusion matrix where a row has one label."""
    return [per_class(report), *([confusion(report)] if report.confusion else [])]


def per_class(report: EvaluationReport) -> Table:
    """Precision, recall and F1 of every label, as fractions, its rows and its threshold; of many labels the worst."""
    thresholds = report.thresholds or ()
    table = number_table("label", "precision", "recall", "F1", "rows", *["threshold"] * bool(thresholds))
    for k in _worst(report):
        label = report.per_class[k]
        scores = (f"{value:.4f}" for value in (label.precision, label.recall, label.f1))
        add_row(table, label.label, *scores, str(label.support), *(f"{one:.3f}" for one in thresholds[k : k + 1]))
    _add_rest(table, report, len(table.columns))
    return table


def _worst(report: EvaluationReport) -> list[int]:
    """The ids of the labels that tables show: all of them, or the worst of many, that with the lowest F1 first."""
    labels = report.per_class
    if len(labels) <= MANY_LABELS:
        return list(range(len(labels)))
    tested = [k for k in range(len(labels)) if labels[k].support]  # without rows, an F1 says nothing
    return sorted(tested, key=lambda k: (labels[k].f1, -labels[k].support))[:SHOWN_LABELS]


def _add_rest(table: Table, report: EvaluationReport, columns: int) -> None:
    """Adds a row that says how many labels the table leaves out."""
    left = len(report.per_class) - len(_worst(report))
    if left:
        add_row(table, f"the worst of {len(report.per_class)} labels; {left} more", *[""] * (columns - 1))


def confusion(report: EvaluationReport) -> Table:
    """Counts: a row for each true label, a column for each predicted one, and one for "no label" if that occurs.

    Of many labels the most frequent confusions only, one a row.
    """
    labels = [label.label for label in report.per_class]
    if len(labels) > MANY_LABELS:
        wrong = confusions(report.confusion, labels)
        table = number_table("true", "predicted", "rows", "of its rows")
        table.columns[1].justify = "left"
        for one in wrong[:SHOWN_LABELS]:
            add_row(table, one.reference, one.predicted, f"{one.count:,}", f"{one.share:.1%}")
        left = sum(one.count for one in wrong[SHOWN_LABELS:])
        add_row(table, "all other confusions" if wrong else "none", "", f"{left:,}", "")
        return table
    width = len(labels) + (1 if report.no_label else 0)
    table = number_table("true / predicted", *[*labels, "no label"][:width])
    for label, counts in zip(labels, report.confusion, strict=True):
        add_row(table, label, *map(str, counts[:width]))
    return table


def _shortened(report: EvaluationReport) -> str:
    return f"{report.truncated:,} of {report.n:,}, {report.cut:.1%}"


def _interval(report: EvaluationReport, score: str) -> str:
    low_high = report.intervals.get(score)
    return "" if low_high is None else f" [{low_high[0]:.3f}, {low_high[1]:.3f}]"
