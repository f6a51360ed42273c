"""The three forms of a row: as a file gives it (`Row`), unreadable (`BadRow`), checked (`Example`).

An unreadable row is an item like any other and not an exception: a caller may refuse the whole file or go on.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """The columns of one row as the file gives them."""

    row: int  # 1-based, of the data rows: neither the header nor blank lines count
    columns: dict[str, Any]


@dataclass(frozen=True)
class BadRow:
    """A row that could not be read, and why; `row` counts as in `Row`.

    Example:
        >>> import loraft
        >>> loraft.BadRow(row=7, reason="no text")
        BadRow(row=7, reason='no text')
    """

    row: int
    reason: str


@dataclass(frozen=True)
class Example:
    """One sentence, in Unicode's composed form (NFC) and stripped, with its label id if it has one.

    With `prompt.kind=multilabel` the label is the tuple of the ids of all its labels in ascending order, and may be
    empty.

    Example:
        >>> import loraft
        >>> loraft.Example("thầy dạy hay", row=1, extra={"mã": "a1"})
        Example(text='thầy dạy hay', label=None, row=1, extra={'mã': 'a1'})
    """

    text: str
    label: int | tuple[int, ...] | None = None
    row: int = 0  # counts as in `Row`
    extra: dict[str, Any] = field(default_factory=dict)  # the other columns
