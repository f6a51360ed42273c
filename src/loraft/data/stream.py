"""Group the rows of a source so that they can be scored together, without holding back rows of a slow source."""

import heapq
import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")
FIRST = 32  # rows of the first group, a small one, so that the first answers come early
MOST_CHARACTERS, LONG = 2**24, 2**16  # of a group, and of a row that is not read ahead


@dataclass(frozen=True)
class _End:
    """Follows the last row in the queue; `error` is what ended the source early, else None."""

    error: BaseException | None


def groups(
    rows: Iterable[Item],
    *,
    most: int,
    first: int = FIRST,
    wait: float | None = None,
    size: Callable[[Item], int] = lambda row: 0,
) -> Iterator[list[Item]]:
    """Yields all rows in order, `first` of them and then `most` at a time.

    Args:
        rows: the source.
        most: the most rows of a group, and the most rows read ahead.
        first: the most rows of the first group.
        wait: seconds that a row waits for others before it is handed on in a smaller group; the source is then read in
            a thread of its own, and an empty group is yielded where there is nothing to do but to wait. None waits as
            long as the source takes.
        size: characters of a row. A group of `MOST_CHARACTERS` is full, and a row of `LONG` is read when those before
            it have been handed on, so that memory is bounded whatever the length of rows.

    Raises:
        BaseException: what the source raised; with `wait`, after the rows before it.
    """
    first = min(first, most)
    if wait is not None:
        yield from _timed_groups(rows, first, most, wait, size)
        return
    group: list[Item] = []
    characters, limit = 0, first
    for row in rows:
        group.append(row)
        characters += size(row)
        if len(group) == limit or characters >= MOST_CHARACTERS:
            yield group
            group, characters, limit = [], 0, most
    if group:
        yield group


def sample(rows: Iterable[Item], most: int, size: Callable[[Item], int]) -> list[Item]:
    """Returns a random sample of rows in their order, the same one each time; all of them where they are few.

    Args:
        rows: the source, which is read to its end.
        most: the most rows of the sample.
        size: characters of a row; the sample has at most about `MOST_CHARACTERS`.
    """
    keys = random.Random(0)
    kept: list[tuple[float, int, Item]] = []  # a heap; its first row is the next one to leave
    characters, limit = 0, 1.0
    for number, row in enumerate(rows):
        key = keys.random()
        if key >= limit:  # a row with a lower key has left already
            continue
        heapq.heappush(kept, (-key, number, row))
        characters += size(row)
        while len(kept) > most or (characters > MOST_CHARACTERS and len(kept) > 1):
            left, _, gone = heapq.heappop(kept)
            characters, limit = characters - size(gone), -left
    return [row for _, _, row in sorted(kept, key=lambda one: one[1])]


def _timed_groups(
    rows: Iterable[Item], first: int, most: int, wait: float, size: Callable[[Item], int]
) -> Iterator[list[Item]]:
    arrived: queue.Queue[Item | _End] = queue.Queue(maxsize=most)

    def read() -> None:
        error: BaseException | None = None
        try:
            for row in rows:
                if size(row) >= LONG:
                    arrived.join()
                arrived.put(row)
        except BaseException as failure:  # raised again below, in the thread that uses the rows
            error = failure
        arrived.put(_End(error))

    # A daemon thread does not keep the program from ending, even inside a read that never returns.
    # It may end the display of progress, which is known by the context.
    threading.Thread(target=copy_context().run, args=(read,), daemon=True).start()
    limit = first
    item = arrived.get()
    while not isinstance(item, _End):
        # `item` begins a group. Add rows until the group is full, its time is over, or the source ends. The row that
        # ended it, if there is one, begins the next group; otherwise wait for a row.
        arrived.task_done()
        group, deadline = [item], time.monotonic() + wait
        characters = size(item)
        while True:
            full = len(group) == limit or characters >= MOST_CHARACTERS
            try:
                item = arrived.get(timeout=0 if full else max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                yield group
                if arrived.empty():
                    yield []
                item = arrived.get()
                break
            if isinstance(item, _End) or full:
                yield group
                break
            group.append(item)
            characters += size(item)
            arrived.task_done()
        limit = most
    if item.error is not None:
        raise item.error
