"""What a signal does to a command: one line on stderr that says how to go on, and exit code 130 or 143.

SIGTERM raises KeyboardInterrupt with its number, as Python's own handler of SIGINT does without one. What can be
continued adds a note to the exception that says how. Only the standard library is imported here, so that signals are
looked after before anything that takes long to import.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from loraft import distributed
from loraft.errors import LoraftError

EXIT_CODES = (128 + signal.SIGINT, 128 + signal.SIGTERM)


class Interrupted(BaseException):
    """Carries a KeyboardInterrupt, its cause, through typer, which would end the process without a word."""


_came: int = signal.SIGINT  # the last signal; an exception that ray raises in its place has no number


def _interrupt(number: int, frame: Any) -> NoReturn:
    global _came
    _came = number
    raise KeyboardInterrupt(number)


@contextmanager
def caught() -> Iterator[None]:
    """Ends the process with 128 and the number of the signal that interrupted the block."""
    # A process that was started with SIGTERM ignored goes on ignoring it; other threads take no signals.
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, _interrupt)
    global _came
    _came = signal.SIGINT
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as error:
        cause = error.__cause__ if isinstance(error, Interrupted) else error
        if distributed.speaks():
            lost = distributed.lost()
            why = "interrupted" if lost is None else f"error: {lost} has ended, and with it all others"
            print("; ".join([why, *getattr(cause, "__notes__", [])]), file=sys.stderr, flush=True)
            distributed.error_told()
        number = cause.args[0] if isinstance(cause, KeyboardInterrupt) and cause.args else _came
        sys.exit(128 + int(number))
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def passed_on() -> Iterator[None]:
    """Keeps from typer what it would answer by itself: an interrupt, and a file that ends too early ("Aborted.")."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted from error
    except EOFError as error:
        raise LoraftError(
            f"a file is empty or cut off (got its end: {error}); LORAFT_DEBUG=1 shows where it is read"
        ) from error
