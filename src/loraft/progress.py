"""How far work is: what takes time opens a `Stage`, and what a command or a caller installed shows the open ones.

    with Stage("scoring test", total=725, unit="rows") as stage:
        stage.advance(64)

Without a listener nothing happens. A listener is seen by the thread that installed it, and not by threads that it
starts: what a server computes for its requests shows nothing.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextvars import ContextVar
from typing import Any, TypeVar

ROWS = "rows"
Item = TypeVar("Item")


class Listener:
    """Base class of what shows progress; it holds the open stages, the outermost first.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.stages: list[Stage] = []

    def changed(self) -> None:
        """Is called when a stage begins, advances or ends."""

    def stop(self) -> None:
        """Is called at the end, and shows nothing from then on."""


installed: ContextVar[Listener | None] = ContextVar("listener", default=None)


def remove() -> None:
    """Ends the listener, if there is one."""
    listener = installed.get()
    installed.set(None)
    if listener is not None:
        listener.stop()


class Stage:
    """A part of the work that takes time: a context, which may lie inside that of another stage.

    Args:
        name: of what is done, such as "scoring test".
        total: how much there is to do; None where that is not known.
        unit: of it, in the plural. "" stands for pieces that are numbered, such as trials: the third of eight is shown
            as `trial 3 of 8` once two are done.
        done: how much was done earlier, which takes no time now.
        note: shown behind it, such as a loss; without one the speed is shown.
    """

    def __init__(self, name: str, total: int | None = None, unit: str = "", *, done: int = 0, note: str = "") -> None:
        self.name, self.total, self.unit, self.done, self.note = name, total, unit, done, note
        self.first, self.started, self.last = done, 0.0, 0.0  # `last`: when it advanced
        self._listener: Listener | None = None

    def __enter__(self) -> "Stage":
        self._listener = installed.get()
        if self._listener is not None:
            self.started = self.last = self._listener.clock()
            self._listener.stages.append(self)
            self._listener.changed()
        return self

    def __exit__(self, *error: object) -> None:
        if self._listener is not None and self in self._listener.stages:
            self._listener.stages.remove(self)
            self._listener.changed()

    def begin(self, done: int, total: int) -> None:
        """Sets what is done and the total where these are known inside the context only; the clock starts now."""
        self.first, self.done, self.total = done, done, total
        if self._listener is not None:
            self.started = self.last = self._listener.clock()

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Counts what was done since the last call, and replaces the note where one is given.

        A total that is exceeded was wrong, and is shown no more.
        """
        self.done += count
        if self.total is not None and self.done > self.total:
            self.total = None
        self.note = self.note if note is None else note
        if self._listener is not None:
            self.last = self._listener.clock()
            self._listener.changed()

    @property
    def position(self) -> str:
        """The name with what is done and the total."""
        if self.unit and (self.done or self.total is not None):
            return f"{self.name} {self.done:,}{'' if self.total is None else f'/{self.total:,}'} {self.unit}"
        if self.total is None:
            return self.name
        return f"{self.name} {min(self.done + 1, self.total)} of {self.total}{self.note and f' ({self.note})'}"

    def line(self, now: float) -> str:
        """The position, time left, and the note or the speed.

        Args:
            now: the clock's time.
        """
        done, spent = self.done - self.first, self.last - self.started
        parts = [self.position]
        if self.total is not None and done and self.done < self.total:
            left = spent / done * (self.total - self.done) - (now - self.last)
            parts.append(f"{duration(max(0.0, left))} left")
        if self.unit and self.note:
            parts.append(self.note)
        elif self.unit and done and spent > 0:
            speed = done / spent
            parts.append(f"{speed:,.0f} {self.unit}/s" if speed >= 10 else f"{speed:.2g} {self.unit}/s")
        elif not self.unit and self.total is None and now - self.started >= 1:
            parts.append(f"{duration(now - self.started)} so far")
        return ", ".join(parts)


def rows_scored(count: int) -> None:
    """Advances the innermost stage, if it counts rows."""
    listener = installed.get()
    if listener is not None and listener.stages and listener.stages[-1].unit == ROWS:
        listener.stages[-1].advance(count)


def each(
    items: Iterable[Item],
    name: str,
    unit: str = "",
    *,
    total: int | None = None,
    note: Callable[[Item], Any] = lambda item: "",
) -> Iterator[Item]:
    """Yields the items inside a stage, which advances with each.

    Args:
        items: all of them.
        name: of the stage.
        unit: of the stage.
        total: how many there are, where the items do not know it and it is known.
        note: of the item that is worked on.
    """
    with Stage(name, len(items) if isinstance(items, Sized) else total, unit) as stage:
        for item in items:
            stage.advance(0, str(note(item)))
            yield item
            stage.done += 1  # the next item's note comes with it


def duration(seconds: float) -> str:
    """A time in seconds below two minutes, in minutes below two hours, else in hours."""
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 120 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
