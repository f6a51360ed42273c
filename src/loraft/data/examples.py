"""Many labelled rows without a Python object for each: the sentences in one buffer, the rest in columns.

An object a row costs about 600 bytes beside its text; this costs the text in UTF-8 and 24 bytes, and 8 bytes for each
other column whose values repeat.
"""

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from loraft.data.records import Example

Label = int | tuple[int, ...] | None
MISSING = object()  # in a column: the row has no such column
POOLED = 1000  # different values of each type that are kept once


class Texts(Sequence[str]):
    """Sentences in one UTF-8 buffer."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._buffer, self._ends = bytearray(), array("q", [0])
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Adds a sentence."""
        self._buffer += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._buffer))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return [self[i] for i in numbers]
        return self._buffer[self._ends[numbers] : self._ends[numbers + 1]].decode("utf-8", "surrogatepass")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)


class Examples(Sequence[Example]):
    """Labelled examples in columns; each `Example` is made when it is asked for.

    Its `extra` has the columns in the order in which they first occur, whatever the order in its own row.

    Attributes:
        texts: the sentences.
        labels: their label ids.
    """

    def __init__(self, examples: Iterable[Example] = ()) -> None:
        self.texts = Texts()
        self.labels: list[Label] = []
        self._rows = array("q")
        self._columns: dict[str, list[Any]] = {}
        pool: dict[tuple[type, Any], Any] = {}

        def once(value: Any) -> Any:
            """The same object for equal texts, whole numbers and label sets, as long as few differ."""
            label_set = isinstance(value, tuple) and all(type(item) is int for item in value)
            if type(value) not in (str, int) and not label_set:  # 0.0 and -0.0 are equal, and so are (1,) and (True,)
                return value
            key = (type(value), value)
            return pool.setdefault(key, value) if len(pool) < POOLED else pool.get(key, value)

        for number, example in enumerate(examples):
            self.texts.append(example.text)
            self.labels.append(once(example.label))
            self._rows.append(example.row)
            for name, value in example.extra.items():
                column = self._columns.setdefault(name, [])
                column += [MISSING] * (number - len(column))
                column.append(once(value))

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> "Examples": ...
    def __getitem__(self, index: int | slice) -> "Example | Examples":
        i = range(len(self))[index]
        if isinstance(i, range):
            return Examples(self[number] for number in i)
        cells = {name: column[i] for name, column in self._columns.items() if i < len(column)}
        extra = {name: cell for name, cell in cells.items() if cell is not MISSING}
        return Example(self.texts[i], self.labels[i], self._rows[i], extra)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """The numbers of the rows in the data, (N,)."""
        return np.array(self._rows, dtype=np.int64)

    @property
    def columns(self) -> list[str]:
        """The names of the other columns, in the order in which they first occur."""
        return list(self._columns)

    def column(self, name: str) -> list[Any]:
        """The values of another column, in order, of the rows that have it."""
        return [value for value in self._columns.get(name, ()) if value is not MISSING]


def digest(*parts: object) -> bytes:
    """Sixteen bytes that stand for these texts, numbers or tuples: equal for equal ones, and else different.

    BLAKE2b with 128 bits: among 10^9 values two different ones agree with a probability below 10^-20.
    """
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


def first_rows(examples: Examples) -> Sequence[int]:
    """The indices of the rows that are no copy of an earlier one, with the same text and label."""
    seen: set[bytes] = set()
    first = array("q")
    for i, row in enumerate(zip(examples.texts, examples.labels, strict=True)):
        if (key := digest(*row)) not in seen:
            seen.add(key)
            first.append(i)
    return first


def conflicting_texts(parts: Iterable[Examples]) -> set[bytes]:
    """The digests of the sentences that have several labels, in one part or in several."""
    label_of: dict[bytes, Label] = {}
    found: set[bytes] = set()
    for examples in parts:
        for text, label in zip(examples.texts, examples.labels, strict=True):
            if label_of.setdefault(key := digest(text), label) != label:
                found.add(key)
    return found
