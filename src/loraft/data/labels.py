"""Labelled splits, from bundled data, the hub, folders and files, checked before anything heavy starts.

Text is composed to NFC here, at the door, and nowhere else. What is wrong with a row is said with its file and
number; what was left out is counted in the split's notes.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from loraft.data.records import BadRow, Row
from loraft.errors import DataError


def by_name(
    rows: Iterable[Row | BadRow], names: Sequence[str], label_column: str, where: str, labels: Sequence[str]
) -> Iterable[Row | BadRow]:
    """The rows with names for label ids, where the source has names: copies of one data set order their ids otherwise.

    Raises:
        DataError: a name is none of the task's labels.
    """
    read_label = label_reader(labels)
    if any(read_label(label) is None for label in names):
        theirs = ", ".join(names)
        raise DataError(
            f"{where}: the names of {label_column!r} are not the task's labels (got {theirs}; the task has"
            f" {', '.join(labels)}), and ids alone may mean other labels; --set 'prompt.labels=[{theirs}]' with"
            " prompt.label_words, what the prompt calls them, in the same order, or --task FILE with these labels"
        )

    def named(item: Row | BadRow) -> Row | BadRow:
        value = item.columns.get(label_column) if isinstance(item, Row) else None
        if not (isinstance(item, Row) and isinstance(value, int) and 0 <= value < len(names)):
            return item
        return Row(item.row, {**item.columns, label_column: names[value]})

    return map(named, rows)


def label_reader(labels: Sequence[str]) -> Callable[[Any], int | None]:
    """A function from a cell of the label column to a label id; None for a cell that names no label."""
    ids = {_fold(label): index for index, label in enumerate(labels)}
    ids |= {label: index for index, label in enumerate(labels)}
    if _ids_allowed(labels):
        ids |= {str(index): index for index in range(len(labels))}

    def read(value: Any) -> int | None:
        # 2.0 is an id after a trip through a data frame with gaps.
        text = re.sub(r"^(\d+)\.0$", r"\1", str(value).strip())
        return ids.get(text, ids.get(_fold(text)))

    return read


def _ids_allowed(labels: Sequence[str]) -> bool:
    # With labels "1" to "5" a row's 1 is the name; reading 0 as an id beside it would mix two scales.
    return not any(re.fullmatch(r"[+-]?\d+", label.strip()) for label in labels)


def allowed_labels(labels: Sequence[str]) -> str:
    """The label names and, where ids are allowed too, the range of ids: for messages."""
    names = ", ".join(labels)
    return f"{names}, or ids 0 to {len(labels) - 1}" if _ids_allowed(labels) else names


def _fold(label: str) -> str:
    return re.sub(r"[\s_]+", " ", unicodedata.normalize("NFC", label)).strip().casefold()
