"""Guess which column of a data source holds the texts and which one the labels, before any task exists."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from loraft.data.labels import is_unlabelled, whole_number
from loraft.data.records import BadRow, Row

MOST_VALUES = 1000  # different values that are counted; a column with more holds no labels
# Words in the names of columns, without diacritics; of labels, the likeliest first.
TEXT_NAMES = (
    "sentence", "text", "content", "review", "comment", "feedback", "document", "message", "cau", "van ban",
    "noi dung", "binh luan", "nhan xet", "phan hoi", "gop y",
)  # fmt: skip
LABEL_NAMES = (
    "label", "labels", "nhan", "sentiment", "cam xuc", "class", "category", "loai", "phan loai", "the loai", "target",
    "intent", "y dinh", "topic", "chu de", "emotion", "rating", "danh gia", "stars", "y",
)  # fmt: skip


@dataclass
class Column:
    """What the cells of one column hold: numbers of cells, and of each of the first `MOST_VALUES` different values."""

    name: str
    filled: int = 0
    texts: int = 0
    words: int = 0  # of all texts together
    values: Counter[str] = field(default_factory=Counter)
    many: bool = False  # whether there are more different values than are counted
    example: str = ""

    def add(self, cell: Any) -> None:
        """Takes a cell into account; one without content counts for nothing."""
        if is_unlabelled(cell):
            return
        self.filled += 1
        if isinstance(cell, str) and whole_number(cell) is None:
            self.texts += 1
            self.words += len(cell.split())
        self.example = self.example or str(cell)
        for name in names_in(cell):
            if name in self.values or len(self.values) < MOST_VALUES:
                self.values[name] += 1
            else:
                self.many = True

    @property
    def length(self) -> float:
        """Mean number of words of the texts; 0 where most cells are numbers."""
        return self.words / self.texts if 2 * self.texts > self.filled else 0.0

    @property
    def kind(self) -> str:
        """What most cells are, in words."""
        if self.length:
            return "text"
        numbers = sum(count for name, count in self.values.items() if re.fullmatch(r"-?\d+", name))
        return "whole numbers" if numbers and numbers == self.values.total() else "other"


def names_in(cell: Any) -> list[str]:
    """The label names in a cell: one, or those of a list; a whole number as its digits."""
    cells = cell if isinstance(cell, list | tuple) else [cell]
    numbers = [whole_number(one) for one in cells]
    return [
        str(number) if number is not None else unicodedata.normalize("NFC", str(one)).strip()
        for one, number in zip(cells, numbers, strict=True)
        if not is_unlabelled(one)
    ]


def columns_of(rows: Iterable[Row | BadRow]) -> dict[str, Column]:
    """The columns of all readable rows, by name, in the order in which they appear."""
    found: dict[str, Column] = {}
    for row in rows:
        for name, cell in row.columns.items() if isinstance(row, Row) else ():
            found.setdefault(name, Column(name)).add(cell)
    return found


def guess_text_column(columns: dict[str, Column]) -> str | None:
    """The column with the longest texts; one with a usual name need be half as long only. None without texts."""
    longest = max((column.length for column in columns.values()), default=0.0)
    named = [name for name, column in columns.items() if _rank(name, TEXT_NAMES) and 2 * column.length >= longest]
    by_length = sorted(named or columns, key=lambda name: -columns[name].length)
    return by_length[0] if longest else None


def guess_label_columns(columns: dict[str, Column], text_column: str | None) -> list[str]:
    """The columns that can hold labels, the likeliest first: a usual name, then few different values.

    A value of a label column stands in two rows on average, unless the column has a usual name; and is short.
    """
    able = [
        column
        for column in columns.values()
        if column.name != text_column and not column.many and len(column.values) > 1 and column.length <= 6
        if 2 * len(column.values) <= column.filled or _rank(column.name, LABEL_NAMES)
    ]
    able.sort(key=lambda column: (-_rank(column.name, LABEL_NAMES), len(column.values)))
    return [column.name for column in able]


def is_label_name(column: str) -> bool:
    """Whether a column is called as columns of labels usually are."""
    return _rank(column, LABEL_NAMES) > 0


def _rank(column: str, names: tuple[str, ...]) -> int:
    """How usual a column's name is: 0 where it holds none of the names, more for one that stands earlier."""
    letters = unicodedata.normalize("NFD", column.casefold().replace("đ", "d"))
    plain = re.sub(r"[\W_]+", " ", "".join(one for one in letters if not unicodedata.combining(one)))
    found = [place for place, name in enumerate(names) if re.search(rf"\b{name}\b", plain)]
    return len(names) - found[0] if found else 0
