"""From the rows of a file to labelled examples: which rows are used, which are left out, and which are refused."""

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from loraft.config.data_section import DataConfig
from loraft.config.names import show
from loraft.data.columns import AS_UTF8, UNDECODABLE, missing_column, sentence
from loraft.data.label_sets import label_set_reader
from loraft.data.labels import allowed_labels, is_unlabelled, label_named, label_reader, whole_number
from loraft.data.records import BadRow, Example, Row
from loraft.errors import DataError, listed

SHOWN_ERRORS = 5  # rows named in one message
BLANK, UNLABELLED = "blank rows skipped", "unlabelled rows skipped"  # notes
UNKNOWN_LABEL, UNNAMED_ID = "unknown label", "a number that does not say which label it means"
NO_LABEL = "no label"  # how the reason begins for which a row without label is refused


def labelled_rows(
    rows: Iterable[Row | BadRow],
    source: str,
    section: DataConfig,
    label_column: str,
    ids: "LabelIds",
    notes: Counter[str],
) -> Iterator[Example]:
    """The rows with sentence and label; counts what is left out; refuses all bad rows together at the end."""
    bad: list[BadRow] = []
    labelled = False  # whether any row has a label, allowed or not
    for row in rows:
        example = row if isinstance(row, BadRow) else _example(row, section, label_column, ids)
        if isinstance(example, str):
            notes[example] += 1
        elif isinstance(example, BadRow):
            bad.append(example)
            labelled |= example.reason.startswith((UNKNOWN_LABEL, UNNAMED_ID))
        else:
            labelled = True
            yield example
    if bad:
        lines, hints = [], set()  # what to do is said once
        for item in bad[:SHOWN_ERRORS]:
            what = item.reason.removesuffix(f"; {item.hint}") if item.hint in hints else item.reason
            lines.append(f"{source} row {item.row}: {what}")
            hints.add(item.hint)
        if len(bad) > SHOWN_ERRORS:
            lines.append(f"... and {len(bad) - SHOWN_ERRORS} more such rows")
        hint = "correct the rows, or set data.text_column, data.label_column"
        if any(item.reason.startswith(UNNAMED_ID) for item in bad):
            hint = "name them with --set 'data.label_names=[NAME OF 0, NAME OF 1, ...]'"
        if any(item.reason.startswith((UNKNOWN_LABEL, UNNAMED_ID)) for item in bad):
            hint += f", or write a task for these labels: loraft task new --data {shlex.quote(section.source)}"
        if labelled and any(item.reason.startswith(NO_LABEL) for item in bad):  # skipping leaves rows
            hint += ", or data.unlabelled=skip"
        lines.append(f"allowed labels are {ids.allowed(bad)}; {hint}")
        raise DataError("\n".join(lines))


def _example(row: Row, section: DataConfig, label_column: str, ids: "LabelIds") -> Example | BadRow | str:
    """The row with its label id, or why it cannot be used, or the note under which it is left out and counted.

    A blank sentence is left out whatever its label.
    """
    text, reason = sentence(row.columns, section.text_column)
    if reason is not None:
        return BadRow(row.row, reason, AS_UTF8 if reason.startswith(UNDECODABLE) else "")
    if not text:
        return BLANK
    cell = row.columns.get(label_column)
    if ids.unlabelled(cell) and section.unlabelled == "skip":
        return UNLABELLED
    if label_column not in row.columns:
        return BadRow(row.row, f"{NO_LABEL}: {missing_column(label_column, row.columns)}")
    label = ids.of(cell, row)
    if label is None:
        number = whole_number(cell) is not None and ids.columns
        what = NO_LABEL if ids.unlabelled(cell) else UNNAMED_ID if number else UNKNOWN_LABEL
        return BadRow(row.row, f"{what} in {label_column!r} (got {show(cell)})")
    extra = {key: value for key, value in row.columns.items() if key not in (section.text_column, label_column)}
    return Example(text, label, row.row, extra)


class LabelIds:
    """From a cell to a label id, where ids count only in rows with certain columns."""

    def __init__(self, labels: Sequence[str], columns: Sequence[str], section: DataConfig, several: bool) -> None:
        self.labels, self.columns, self._several = labels, set(columns), several
        self._named: Callable[[Any], int | tuple[int, ...] | None]
        self._any: Callable[[Any], int | tuple[int, ...] | None]
        names = section.label_names or []  # of the ids in a text with several; a single id has its name already
        one, by_id = label_reader(labels, ids_count=False), label_reader(labels)
        self._named, self._any = one, by_id
        if several:
            self._named = label_set_reader(one, section.label_separator)
            self._any = label_set_reader(lambda value: by_id(label_named(value, names)), section.label_separator)

    def unlabelled(self, cell: Any) -> bool:
        """Whether a cell holds no label: null, NaN, or blank text where a row has one label."""
        return is_unlabelled(cell) and not (self._several and isinstance(cell, str))

    def of(self, cell: Any, row: Row) -> int | tuple[int, ...] | None:
        """The label id of a cell, or its label ids; None for no label, and for an id in another data set's row."""
        return self._any(cell) if self.columns <= row.columns.keys() else self._named(cell)

    def allowed(self, bad: Sequence[BadRow]) -> str:
        """The allowed labels, for the message about bad rows."""
        ids_count = not any(item.reason.startswith(UNNAMED_ID) for item in bad)
        return allowed_labels(self.labels) if ids_count else listed(self.labels)
