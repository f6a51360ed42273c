"""A row as a file gives it (`Row`), unreadable (`BadRow`) or checked (`Example`); and how a file is read.

An unreadable row is an item like any other and not an exception: a caller may refuse the whole file or go on.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class FileSettings:
    """What a file does not say of itself; None takes what the file shows. The keys of `data` with these names."""

    encoding: str | None = None  # of text files
    delimiter: str | None = None  # of CSV files
    sheet: str | None = None  # of Excel files


@dataclass(frozen=True)
class Row:
    """The columns of one row as the file gives them."""

    row: int  # of the data rows, from 1: the header is none; counted through the files of a split
    columns: dict[str, Any]


@dataclass(frozen=True)
class BadRow:
    """A row that could not be read, and why; `row` counts as in `Row`.

    `hint` is the end of the reason that says what to do, which a message about many rows says once.

    Examples:
        >>> import loraft
        >>> loraft.BadRow(row=7, reason="no text")
        BadRow(row=7, reason='no text')
    """

    row: int
    reason: str
    hint: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True)
class Example:
    """One sentence, in Unicode's composed form (NFC) and stripped, with its label id if it has one.

    With `prompt.kind=multilabel` the label is the tuple of the ids of all its labels in ascending order, and may be
    empty.

    Examples:
        >>> import loraft
        >>> loraft.Example("thầy dạy hay", row=1, extra={"mã": "a1"})
        Example(text='thầy dạy hay', label=None, row=1, extra={'mã': 'a1'})
    """

    text: str
    label: int | tuple[int, ...] | None = None
    row: int = 0  # counts as in `Row`
    extra: dict[str, Any] = field(default_factory=dict)  # the other columns
