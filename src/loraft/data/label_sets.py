"""Read a cell that holds any number of labels: a list, or one text with a separator.

Such a cell gives the ids of its labels, in ascending order and each once. An empty list and an empty text are no label,
which is a label set like any other. A null is no label set: the row is unlabelled.
"""

import ast
import re
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

SEPARATORS = ("|", ";", ",")  # the first one that a text holds separates its labels, unless the text is a label itself
NAMED_SEPARATORS = ("/", "+")  # separate labels where `data.label_separator` says so only


def label_set_reader(
    read_label: Callable[[Any], int | None], separator: str | None = None
) -> Callable[[Any], tuple[int, ...] | None]:
    """A function from a cell to the ids of its labels; None for a cell without a label set, or with an unknown label.

    Args:
        read_label: from one label's name or id to its id, None for an unknown one.
        separator: between the labels of a text; None looks for those of `SEPARATORS`.
    """

    def read(cell: Any) -> tuple[int, ...] | None:
        ids = [read_label(item) for item in _items(cell)]
        return None if None in ids or _is_null(cell) else tuple(sorted({label for label in ids if label is not None}))

    def _items(cell: Any) -> list[Any]:
        if not isinstance(cell, str):
            return [*cell] if isinstance(cell, list | tuple) else [cell]
        text = cell.strip()
        if (items := list_in(text)) is not None:
            return items
        if not text or (separator is None and read_label(text) is not None):
            return [text] if text else []
        found = separator or next((one for one in SEPARATORS if one in text), None)
        return parts(text, found)

    return read


def list_in(text: str) -> list[Any] | None:
    """The items of a list, as JSON and pandas write it into a CSV file; None for any other text."""
    if text.startswith("[") and text.endswith("]"):
        try:
            return [*ast.literal_eval(text)]
        except (ValueError, SyntaxError):
            pass  # a label may begin so
    return None


def parts(text: str, separator: str | None) -> list[str]:
    """What stands between the separators, without spaces around it and blank parts; None separates nothing."""
    return [part.strip() for part in (text.split(separator) if separator else [text]) if part.strip()]


def separator_in(values: Collection[str]) -> str | None:
    """The separator of labels in the different values of a column; None where each value is one label.

    It separates labels where half of what it joins stands in other values, too: "học phí" beside "học phí|thầy cô", but
    no part of the label "kinh tế, xã hội". A comma, a slash or a plus, which labels have themselves, needs more than
    half, and separates no digits.
    """
    for separator in (*SEPARATORS, *NAMED_SEPARATORS):
        sure = separator in "|;"
        words = [one for one in values if sure or not re.fullmatch(r"[\d\s.,/+-]+", one)]
        split = [{*parts(value, separator)} for value in words]
        counts = Counter(part for one in split for part in one)
        joined = {part for one in split if len(one) > 1 for part in one}
        if joined and 2 * sum(counts[part] > 1 for part in joined) >= len(joined) + (not sure):
            return separator
    return None


def _is_null(cell: Any) -> bool:
    return cell is None or cell != cell  # NaN
