"""Read a cell that holds any number of labels: a list, or one text with a separator.

Such a cell gives the ids of its labels, in ascending order and each once. An empty list and an empty text are no label,
which is a label set like any other. A null is no label set: the row is unlabelled.
"""

import ast
from collections.abc import Callable
from typing import Any

SEPARATORS = ("|", ";", ",")  # the first one that a text holds separates its labels, unless the text is a label itself


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
        if text.startswith("[") and text.endswith("]"):  # a list, as JSON and pandas write it into a CSV file
            try:
                return [*ast.literal_eval(text)]
            except (ValueError, SyntaxError):
                pass  # a label may begin so
        if not text or (separator is None and read_label(text) is not None):
            return [text] if text else []
        found = separator or next((one for one in SEPARATORS if one in text), None)
        return [part.strip() for part in (text.split(found) if found else [text]) if part.strip()]

    return read


def _is_null(cell: Any) -> bool:
    return cell is None or cell != cell  # NaN
