"""Rows of token ids without a Python object for each: one flat array of 32-bit ids, and where each row ends."""

from array import array
from collections.abc import Iterable, Sequence
from typing import overload


class TokenRows(Sequence[list[int]]):
    """Rows of token ids; a row is made a list when it is asked for."""

    def __init__(self, rows: Iterable[Sequence[int]] = ()) -> None:
        self._ids, self._ends = array("i"), array("q", [0])
        for row in rows:
            self.append(row)

    def append(self, *parts: Sequence[int]) -> None:
        """Adds one row, which may come in parts."""
        for part in parts:
            self._ids.extend(part)
        self._ends.append(len(self._ids))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...
    def __getitem__(self, index: int | slice) -> list[int] | list[list[int]]:
        i = range(len(self))[index]
        if isinstance(i, range):
            return [self[number] for number in i]
        return self._ids[self._ends[i] : self._ends[i + 1]].tolist()
