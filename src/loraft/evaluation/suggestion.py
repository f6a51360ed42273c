"""Choose the unlabelled rows that are most worth labelling, and write them in the form that training reads.

Rows are ranked by margin: the difference of the two highest probabilities (Scheffer et al. 2001), the best or among the
best rules in the comparison of Bahri et al. 2022, "Is margin all you need?". Rows that resemble one that is chosen
already are passed over, since a person would say the same twice.
"""

import csv
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from loraft.data.examples import digest
from loraft.data.labels import is_unlabelled
from loraft.data.near_duplicates import first_unlike
from loraft.data.records import BadRow, Example
from loraft.evaluation.output_file import cell_text
from loraft.progress import rows_scored
from loraft.runs.atomic_files import to_json

if TYPE_CHECKING:  # the choice itself needs no model
    from loraft.evaluation.predict import Prediction

ALIKE = 0.5  # Jaccard index of character 4-grams above which two rows are not both suggested
WITHOUT_LABEL = "rows without label"  # a note
POOL = 5  # rows kept for each row that is asked for: those with the smallest margins


@dataclass(frozen=True)
class Suggestion:
    """A row that is worth labelling.

    Attributes:
        row: number in its input, from 1.
        text: the sentence.
        label: what the model says now; with `prompt.kind=multilabel` a tuple.
        margin: how sure it is: difference of its two highest probabilities; with `prompt.kind=multilabel` the distance
            of a probability to its threshold, of the label where that is smallest.
        probs: probability of each label.
        extra: the row's other columns.
    """

    row: int
    text: str
    label: str | tuple[str, ...] | None
    margin: float
    probs: dict[str, float]
    extra: dict[str, Any]


def margin(probs: Sequence[float], thresholds: Sequence[float] = ()) -> float:
    """How sure a model is of a row, see `Suggestion.margin`; with thresholds, labels are decided one by one."""
    if thresholds:
        return min(abs(p - least) for p, least in zip(probs, thresholds, strict=True))
    first, second = heapq.nlargest(2, probs)
    return first - second


def suggest(
    predictions: Iterable["Prediction"], count: int, thresholds: Sequence[float] = ()
) -> tuple[list[Suggestion], int]:
    """The rows of the smallest margins, in this order, of which no two are alike; and the number of sentences seen.

    Of equal margins the earlier row comes first. Memory holds `POOL` times `count` rows, and a digest of each sentence.
    Of each sentence the first row counts.

    Args:
        predictions: of the rows without label; unreadable ones are passed over.
        count: rows that are wanted. Fewer come back where too many of the kept ones are alike.
        thresholds: of each label with `prompt.kind=multilabel`.
    """
    seen: set[bytes] = set()

    def candidates() -> Iterator[Suggestion]:
        for found in predictions:
            if found.error is None and (key := digest(found.text)) not in seen:
                seen.add(key)
                sure = margin([*found.probs.values()], thresholds)
                yield Suggestion(found.row, found.text, found.label, sure, found.probs, found.extra)

    kept = heapq.nsmallest(POOL * count, candidates(), key=lambda one: one.margin)
    return [kept[i] for i in first_unlike((one.text for one in kept), count, threshold=ALIKE)], len(seen)


def worth_asking(
    rows: Iterable[Example | BadRow], label_column: str, known: Iterable[str], notes: Counter[str]
) -> Iterator[Example | BadRow]:
    """The rows without a label in that column whose sentence is none of the `known` ones; unreadable ones, too.

    All rows without a label are counted in the notes.
    """
    answered = {digest(text) for text in known}
    for row in rows:
        if isinstance(row, Example):
            if not is_unlabelled(row.extra.get(label_column)):
                rows_scored(1)  # nothing is left to do
                continue
            notes[WITHOUT_LABEL] += 1
            if digest(row.text) in answered:
                rows_scored(1)
                continue
        yield row


def to_be_labelled(
    chosen: Sequence[Suggestion], text_column: str, label_column: str, *, texts: bool = True
) -> list[dict[str, Any]]:
    """The columns of each row as training reads them: the sentence, no label yet, and the row's other columns.

    The model's own answer is not among them: who sees it tends to agree with it. Without texts, no column of the input
    is: any may hold a sentence.

    Args:
        chosen: the rows.
        text_column, label_column: of the training; a column of the input with such a name gives way.
        texts: false puts the number of the row in place of all that the input holds.
    """
    if not texts:
        return [{label_column: None, "row": one.row} for one in chosen]
    names = (text_column, label_column)
    return [
        {
            text_column: one.text,
            label_column: None,
            **{key: value for key, value in one.extra.items() if key not in names},
        }
        for one in chosen
    ]


def write_rows(rows: Sequence[dict[str, Any]], file: TextIO, *, json_lines: bool) -> None:
    """Writes at least one row as JSON lines, or as CSV with a header of all their columns."""
    if json_lines:
        file.writelines(to_json(row, indent=None) + "\n" for row in rows)
        return
    header = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([cell_text(row.get(key)) for key in header] for row in rows)
