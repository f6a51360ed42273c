"""The errors that a user can act on, and the category of warnings that only inform.

Form of a message: `<where>: <what> (got X); <what is allowed, or the next command>`.
"""

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

LISTED = 10  # names that a message lists at most


class LoraftError(Exception):
    """Base of all errors that the user can correct; the command line prints the message and exits with 1."""

    exit_code = 1


class ConfigError(LoraftError):
    """The configuration is wrong; the message holds every mistake found, one a line. Exit code 2, as for usage."""

    exit_code = 2


class DataError(LoraftError):
    """A data source cannot be read as labelled or unlabelled sentences."""


class BackboneError(LoraftError):
    """The backbone, its quantisation or an adapter cannot be built, or they do not fit each other."""


class RunError(LoraftError):
    """A run directory is missing, unfinished, exists already or does not match."""


class NewerFileError(RunError):
    """A file was written by a later version of loraft; nothing is wrong with it."""


class StorageError(LoraftError):
    """The operating system refused to read or write: no space, no permission, a folder that is gone."""


class OtherProcessError(LoraftError):
    """Another process of the same training ended, so that this one cannot go on."""


class Note(UserWarning):
    """Warning category for what the user asked for and need not act on, such as a row limit that took effect."""


def listed(names: Iterable[object], most: int = LISTED, between: str = ", ") -> str:
    """The first names with what stands `between` them, and how many more there are; "none" where there are none."""
    all_names = [str(name) for name in names]
    more = f" and {len(all_names) - most} more" if len(all_names) > most else ""
    return between.join(all_names[:most]) + more or "none"


def first_line(error: Exception) -> str:
    """The first line of an error's message, at most 300 characters and without control characters, or its class."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line[:300])


@contextmanager
def spared(what: str, again: str) -> Iterator[None]:
    """An error inside the block is one warning, so that it costs no result that is there already.

    Args:
        what: that the block makes.
        again: the command that makes it.
    """
    try:
        yield
    except Exception as error:
        if os.environ.get("LORAFT_DEBUG") == "1":
            raise
        said = str(error) if isinstance(error, LoraftError) else f"{type(error).__name__}: {first_line(error)}"
        warnings.warn(f"{what}: left out ({said}); {again} makes up for it", stacklevel=4)
