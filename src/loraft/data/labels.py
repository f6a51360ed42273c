"""Match the cells of a label column with the task's labels.

A cell holds a label's name (upper or lower case, `_` for a space) or its id, which counts from 0; or no label, which is
never a name: a null is not the label "none", nor is NaN the label "nan".
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from loraft.config.names import show
from loraft.data.records import BadRow, Row
from loraft.errors import ConfigError, DataError, listed


def label_reader(labels: Sequence[str], *, ids_count: bool = True) -> Callable[[Any], int | None]:
    """A function from a cell of the label column to a label id; None for a cell that names no label.

    Args:
        labels: label names in id order. Exact names come before names in another case, and names before ids.
        ids_count: a whole number is the label with that id, unless a label has a number as its name.
    """
    ids = {normalised(label): index for index, label in enumerate(labels)}
    ids |= {label: index for index, label in enumerate(labels)}
    if ids_count and _ids_allowed(labels):
        ids |= {str(index): index for index in range(len(labels))}

    def read(value: Any) -> int | None:
        if is_unlabelled(value):
            return None
        text = str(value).strip()
        # A data frame turns a column of ids with gaps into floats: 2 becomes 2.0.
        for candidate in (text, normalised(text), re.sub(r"^(\d+)\.0$", r"\1", text)):
            if candidate in ids:
                return ids[candidate]
        return None

    return read


def asked_label(name: str, labels: Sequence[str], where: str) -> str:
    """Returns the label that an option or argument names, as a cell of the label column would.

    Raises:
        ConfigError: it names none.
    """
    found = label_reader(labels)(name)
    if found is None:
        raise ConfigError(f"{where}: none of the run's (got {show(name)}); allowed: {allowed_labels(labels)}")
    return labels[found]


def is_unlabelled(value: Any) -> bool:
    """Whether a cell holds no label: null, NaN or blank text."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def allowed_labels(labels: Sequence[str]) -> str:
    """The label names and, where ids are allowed too, the range of ids: for messages."""
    names = listed(labels)
    return f"{names}, or ids 0 to {len(labels) - 1}" if _ids_allowed(labels) else names


def ids_to_names(
    rows: Iterable[Row | BadRow], names: Sequence[str], label_column: str, where: str, labels: Sequence[str]
) -> Iterable[Row | BadRow]:
    """The rows with label ids replaced by the source's own names for them.

    Two copies of one data set may number the same labels differently; names do not change their meaning. The id -1 of a
    source with names is no label, and becomes None.

    Args:
        rows: rows of the source.
        names: the source's or the user's label names in the order of the ids; none leaves all rows as they are.
        label_column: the column that holds the ids.
        where: the source, for the message.
        labels: the task's labels; none where there is no task yet.

    Source:
        `datasets.ClassLabel`, whose encoding of a missing label is -1.

    Raises:
        DataError: a name is none of the task's labels.
    """
    if not names:
        return rows
    read_label = label_reader(labels)
    if labels and any(read_label(name) is None for name in names):
        way = "--task FILE with these labels"
        if len(names) <= 10:
            way = (
                f"--set 'prompt.labels=[{', '.join(names)}]' with prompt.label_words (the words for them in the"
                f" prompt, in the same order), or {way}"
            )
        raise DataError(
            f"{where}: the label names of column {label_column!r} are not the task's labels (got {listed(names)};"
            f" the task has {listed(labels)}), so its ids may mean other labels; {way}"
        )

    def named(item: Row | BadRow) -> Row | BadRow:
        value = item.columns.get(label_column) if isinstance(item, Row) else None
        if isinstance(item, Row) and isinstance(value, list):
            return Row(item.row, {**item.columns, label_column: [label_named(one, names) for one in value]})
        number = whole_number(value)
        if not isinstance(item, Row) or number is None or not -1 <= number < len(names):
            return item
        return Row(item.row, {**item.columns, label_column: names[number] if number >= 0 else None})

    return map(named, rows)


def label_named(value: Any, names: Sequence[str]) -> Any:
    """The name of the label with that id; any other value as it is."""
    number = whole_number(value)
    return value if number is None or not 0 <= number < len(names) else names[number]


def whole_number(value: Any) -> int | None:
    """The whole number in a cell, as a file without types (CSV) or a data frame (2.0) gives it; None for any other."""
    if isinstance(value, bool):
        return None
    match = re.fullmatch(r"([+-]?\d{1,18})(\.0)?", str(value).strip())
    return None if match is None else int(match[1])


def _ids_allowed(labels: Sequence[str]) -> bool:
    # With labels "1" to "5" a row's 1 is a name. Ids would be a second meaning of the same number.
    return not any(re.fullmatch(r"[+-]?\d+(\.0)?", label.strip()) for label in labels)


def normalised(label: str) -> str:
    """The label in composed form (NFC), case-folded, with every run of space and `_` as one space."""
    return re.sub(r"[\s_]+", " ", unicodedata.normalize("NFC", label)).strip().casefold()
