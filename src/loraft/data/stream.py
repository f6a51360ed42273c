"""Group the rows of a source so that they can be scored together, without holding back rows of a slow source."""

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
FIRST = 32  # rows of the first group, a small one, so that the first answers come early


@dataclass(frozen=True)
class _End:
    """Follows the last row in the queue; `error` is what ended the source early, else None."""

    error: BaseException | None


def groups(rows: Iterable[Item], *, most: int, wait: float | None = None) -> Iterator[list[Item]]:
    """Yields all rows in order, `FIRST` of them and then `most` at a time.

    Args:
        rows: the source.
        most: the most rows of a group, and the most rows read ahead.
        wait: seconds that a row waits for others before it is handed on in a smaller group; the source is then read in
            a thread of its own, and an empty group is yielded where there is nothing to do but to wait. None waits as
            long as the source takes.

    Raises:
        BaseException: what the source raised; with `wait`, after the rows before it.
    """
    if wait is not None:
        yield from _timed_groups(rows, most, wait)
        return
    source, size = iter(rows), min(FIRST, most)
    while group := list(islice(source, size)):
        yield group
        size = most


def _timed_groups(rows: Iterable[Item], most: int, wait: float) -> Iterator[list[Item]]:
    arrived: queue.Queue[Item | _End] = queue.Queue(maxsize=most)

    def read() -> None:
        error: BaseException | None = None
        try:
            for row in rows:
                arrived.put(row)
        except BaseException as failure:  # raised again below, in the thread that uses the rows
            error = failure
        arrived.put(_End(error))

    # A daemon thread does not keep the program from ending, even inside a read that never returns.
    threading.Thread(target=read, daemon=True).start()
    size = min(FIRST, most)
    item = arrived.get()
    while not isinstance(item, _End):
        # `item` begins a group. Add rows until the group is full, its time is over, or the source ends. The row that
        # ended it, if there is one, begins the next group; otherwise wait for a row.
        group, deadline = [item], time.monotonic() + wait
        while True:
            try:
                item = arrived.get(timeout=max(0.0, deadline - time.monotonic()) if len(group) < size else 0)
            except queue.Empty:
                yield group
                if arrived.empty():
                    yield []
                item = arrived.get()
                break
            if isinstance(item, _End) or len(group) == size:
                yield group
                break
            group.append(item)
        size = most
    if item.error is not None:
        raise item.error
