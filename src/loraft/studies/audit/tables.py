"""Builds the tables of an audit and the notes around them, for the terminal and the page."""

from collections import Counter

from rich.table import Table

from loraft.display.page import Part
from loraft.display.table import add_row, listing, narrow_table, number_table, shorten
from loraft.studies.audit.records import AuditResult, SuspectRow

SHOWN = 20  # suspect rows on the terminal
ON_PAGE = 1000  # rows of a table of the page
SENTENCE = 34  # characters of a sentence on the terminal, in 80 columns


def suspects(result: AuditResult) -> Table:
    """The most suspect rows with both labels and their probabilities."""
    table = narrow_table("row", "label", "p", "suggestion", "p", "sentence")
    for one in result.suspects[:SHOWN]:
        add_row(table, str(one.row), one.label, f"{one.prob_label:.2f}", one.suggestion, f"{one.prob_suggestion:.2f}",
                shorten(one.text, SENTENCE))  # fmt: skip
    return table


def page_suspects(result: AuditResult) -> list[Part]:
    """All suspect rows with why they are suspect, up to `ON_PAGE`."""
    cells = [(one.text, one.label, one.suggestion, why(one), str(one.row)) for one in result.suspects[:ON_PAGE]]
    if not cells:
        return []
    more = len(result.suspects) - len(cells)
    left = [f"{more:,} more are in audit.json."] if more else []
    return [listing(("sentence", "label", "suggestion", "why", "row"), cells), *left]


def why(one: SuspectRow) -> str:
    """Why a row is suspect: the probabilities of both labels, and the labels of the rows alike."""
    said = f"{one.suggestion} {one.prob_suggestion:.3f}, {one.label} {one.prob_label:.3f}"
    if not one.alike:
        return said
    return f"{said}; the same or nearly the same sentence: {_counts(one.alike)}"


def moves(result: AuditResult) -> Table:
    """Suspect rows by label and suggestion, the most frequent pair first."""
    table = number_table("label", "suggestion", "rows")
    table.columns[1].justify = "left"
    pairs = Counter((one.label, one.suggestion) for one in result.suspects)
    for (label, suggestion), count in pairs.most_common(ON_PAGE):
        add_row(table, label, suggestion, f"{count:,}")
    return table


def page_conflicts(result: AuditResult) -> list[Part]:
    """Groups of rows alike with several labels, up to `ON_PAGE`."""
    cells = [
        (one.text, "; ".join(f"{label}: {', '.join(map(str, rows))}" for label, rows in one.rows.items()))
        for one in result.conflicts[:ON_PAGE]
    ]
    return [listing(("first sentence", "rows of each label"), cells)] if cells else []


def notes(result: AuditResult) -> list[str]:
    """What was found and what it means, one sentence a line."""
    total, groups, repeats = len(result.suspects), len(result.conflicts), result.duplicates
    rows = sum(len(numbers) for one in result.conflicts for numbers in one.rows.values())
    return [
        f"{total:,} of {result.rows:,} labels are probably wrong ({total / result.rows:.1%}), by confident learning;"
        f" the most probable label is the given one in {result.agreement:.1%} of all rows.",
        f"Each row was judged by an adapter and a linear model that learned from the other {result.folds - 1} of"
        f" {result.folds} folds, none of which holds the same or nearly the same sentence. p is the probability of the"
        " label: the geometric mean of both, normalised.",
        "A suspect label may be right: the sentence may be hard, or the model wrong. Look before you change it.",
        f"Groups of the same or nearly the same sentences with several labels: {groups:,} ({rows:,} rows); rows that"
        f" repeat the sentence and label of an earlier one: {repeats:,}.",
    ]


def _counts(alike: dict[str, int]) -> str:
    return ", ".join(f"{count} {label}" for label, count in alike.items())
