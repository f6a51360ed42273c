"""Shows on stderr how far the work is: bars on a terminal, else now and then a plain line.

See `loraft.progress` for how work reports itself.
"""

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from loraft.distributed import is_main_process
from loraft.progress import Listener, installed, remove
from loraft.visible import visible

# A plain line comes after `LONGEST` seconds, or `SHORTEST` ones apart with each further 20th of the outermost stage.
SHORTEST, LONGEST, PARTS = 5.0, 30.0, 20
FRAMES = 4  # a second, on a terminal: each takes about a millisecond of the processor
WIDEST_BAR, NARROWEST_BAR = 24, 6  # cells


class Bars(Listener):
    """A line with a bar for each open stage, the outermost on top; it vanishes at the end.

    While it is shown, what is printed to stderr stands above it. Start it after stdout was exchanged for stderr.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console, self.spinner, self.idle = console, Spinner("dots"), "loading libraries"
        self.live = Live(
            console=console,
            get_renderable=self.table,
            refresh_per_second=FRAMES,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )

    def changed(self) -> None:
        """Draws nothing: the next frame does."""
        self.idle = "working"

    def start(self) -> None:
        """Shows that something is done, also where no stage is open."""
        self.live.start()

    def stop(self) -> None:
        """Leaves the terminal as it was, with its cursor."""
        self.live.stop()

    def table(self) -> Table:
        """A row for each stage."""
        stages, width = list(self.stages), self.console.width
        lines = [visible(stage.line(self.clock())) for stage in stages] or [self.idle]
        bar = min(WIDEST_BAR, width - max(map(cell_len, lines)) - 4)
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(width=1)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        for number, line in enumerate(lines):
            cells: list[RenderableType] = [self.spinner if number == len(lines) - 1 else Text(), Text(line)]
            stage = stages[number] if stages else None
            if bar >= NARROWEST_BAR and stage is not None and stage.total:
                cells.append(ProgressBar(stage.total, stage.done, width=bar))
            grid.add_row(*cells)
        return grid


class PlainLines(Listener):
    """Prints a line about the innermost stage, with the positions of those around it; see `SHORTEST`.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        # When the first stage began or the last line was printed, and what the outermost stage had done.
        self.printed, self.done = math.inf, 0
        self._stopped = threading.Event()

    def start(self) -> None:
        """Prints lines also while nothing advances, such as a backbone that loads."""
        threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        """Prints no more lines."""
        self._stopped.set()
        self.stages.clear()

    def _watch(self) -> None:
        while not self._stopped.wait(SHORTEST):
            self.waited()

    def waited(self) -> None:
        """Prints a line if nothing was printed for long; not about an input whose end is not known, and that waits."""
        stages = list(self.stages)
        if stages and (stages[-1].total is not None or not stages[-1].unit) and self.clock() - self.printed >= LONGEST:
            self._print()

    def changed(self) -> None:
        """Prints a line if one is due."""
        outer, inner = (self.stages[0], self.stages[-1]) if self.stages else (None, None)
        if self.printed == math.inf:
            self.printed = self.clock()
        if outer is None or inner is None or (outer.done == outer.first and inner is outer):
            self.done = 0 if outer is None else outer.first
            return
        if inner.total is not None and inner.done >= inner.total:  # what follows says that it is done
            return
        waited, further = self.clock() - self.printed, (outer.done - self.done) * PARTS >= (outer.total or math.inf)
        if waited >= LONGEST or (waited >= SHORTEST and further):
            self.done = outer.done
            self._print()

    def _print(self) -> None:
        self.printed = self.clock()
        around = [stage.position for stage in self.stages[:-1] if stage.unit or stage.total is not None]
        with suppress(OSError, ValueError, IndexError):  # nobody reads stderr; the stage ended meanwhile
            line = ": ".join([*around, self.stages[-1].line(self.printed)])
            sys.stderr.write(visible(line) + "\n")  # in one piece, beside the lines of another thread
            sys.stderr.flush()


def install(*, plain: bool = False) -> None:
    """Shows progress from now on, until `progress.remove`; not in a process that is not the main one.

    Args:
        plain: by lines, also on a terminal.
    """
    if not is_main_process() or sys.stderr is None:
        return
    console = Console(stderr=True)
    bars = not plain and sys.stderr.isatty() and console.is_terminal and not console.is_dumb_terminal
    listener = Bars(console) if bars else PlainLines()
    installed.set(listener)
    listener.start()


@contextmanager
def shown(*, quiet: bool) -> Iterator[None]:
    """Shows progress in the block, unless it is shown already; with `quiet` none."""
    before = installed.get()
    if quiet:
        installed.set(None)
    elif before is None:
        install()
    try:
        yield
    finally:
        if not quiet and before is None:
            remove()
        installed.set(before)
