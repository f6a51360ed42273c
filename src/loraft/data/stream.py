"""Rows in groups: full ones where the source is fast, and what is there where it is slow."""

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

Row = TypeVar("Row")
FIRST = 32  # rows of the first group: its answers come early, and the groups after it are full ones


@dataclass(frozen=True)
class _End:
    """Follows the last row; `error` is what ended the source before its end."""

    error: BaseException | None


def groups(rows: Iterable[Row], *, most: int, wait: float | None = None) -> Iterator[list[Row]]:
    """Yields all rows in order, `FIRST` of them and then `most` at a time.

    Args:
        rows: the source.
        most: bound on the rows of a group, and on those read ahead.
        wait: seconds that a row waits for others before it is handed on in a smaller group; the source is then read in
            a thread of its own. None waits as long as the source takes.

    Raises:
        BaseException: what the source raised; with `wait`, after the rows before it.
    """
    if wait is not None:
        yield from _as_they_come(rows, most, wait)
        return
    source, size = iter(rows), min(FIRST, most)
    while group := list(islice(source, size)):
        yield group
        size = most


def _as_they_come(rows: Iterable[Row], most: int, wait: float) -> Iterator[list[Row]]:
    arrived: queue.Queue[Row | _End] = queue.Queue(maxsize=most)

    def read() -> None:
        error: BaseException | None = None
        try:
            for row in rows:
                arrived.put(row)
        except BaseException as failure:  # raised again where the rows are used
            error = failure
        arrived.put(_End(error))

    # A daemon, for it may stand in a read that never ends, and an interrupt must not wait for it.
    threading.Thread(target=read, daemon=True).start()
    size = min(FIRST, most)
    item = arrived.get()
    while not isinstance(item, _End):
        group, handed_on = [item], time.monotonic() + wait
        while True:
            try:
                item = arrived.get(timeout=max(0.0, handed_on - time.monotonic()) if len(group) < size else 0)
            except queue.Empty:
                yield group
                item = arrived.get()
                break
            if isinstance(item, _End) or len(group) == size:
                yield group
                break
            group.append(item)
        size = most
    if item.error is not None:
        raise item.error
