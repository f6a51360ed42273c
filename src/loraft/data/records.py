"""Rows out of files and streams: lines, JSONL, JSON, CSV, TSV, Parquet, as they come from other people's programs.

A row that cannot be read is an item of its own (`BadRow`), so that a caller may refuse the file or go on.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Example:
    """One sentence, composed (NFC) and stripped, with its label id if it has one."""

    text: str
    label: int | None
    row: int  # 1-based: the line of a text file on which the row begins, else the row
    extra: dict[str, Any] = field(default_factory=dict)  # the other columns


@dataclass(frozen=True)
class BadRow:
    """A row that could not be read, and why; `row` counts as in `Example`."""

    row: int
    reason: str


@dataclass(frozen=True)
class Row:
    """The columns of one row as the file gives them."""

    row: int
    columns: dict[str, Any]
