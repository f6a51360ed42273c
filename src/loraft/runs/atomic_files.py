"""Write files atomically, and convert values to JSON.

A file is written under a temporary name in the same folder and then renamed, so that a killed process leaves the old
file or the new one, never half of one.
"""

import base64
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

from loraft.visible import HIDDEN

# On Linux; elsewhere /dev/stdout is a device itself.
DESCRIPTOR = re.compile(r"/dev/std(?P<std>out|err)|(/dev|/proc/(?P<process>[^/]+))/fd/(?P<number>\d+)")
MOST_LINKS = 40  # that Linux follows


def utc_now() -> str:
    """The present time in UTC, to the second, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file atomically; makes its folder."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON atomically; makes the file's folder."""
    write_text(path, to_json(value) + "\n")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder: renamed to `path` at the end of the block, removed if the block raises.

    A symlink stays one: the file that it names is replaced. A FIFO, a device or a file that is open already, such as
    /dev/stdout, is never replaced: what was written to the temporary path is copied into it.
    """
    if is_stream(path):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / path.name
            with (Path(folder) / path.name).open("rb") as whole, _opened(path) as stream:
                shutil.copyfileobj(whole, stream)
        return
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    try:
        with naming(path, temporary):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_stream(path: Path) -> bool:
    """Whether a FIFO, a device, a socket or an open file of a process is there, itself or by symlinks.

    Raises:
        OSError: it cannot be told what is there, as for a symlink to itself.
    """
    if _descriptor(path):
        return True
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _descriptor(path: Path) -> re.Match[str] | None:
    """The process and number of an open file that a path names, as /dev/stdout does; the file may have no name left."""
    for _ in range(MOST_LINKS):
        found = DESCRIPTOR.fullmatch(os.path.abspath(path))
        if found or not path.is_symlink():
            return found
        path = path.parent / os.readlink(path)
    return None


def _opened(path: Path) -> BinaryIO:
    """A stream, to write to it where its process is."""
    found = _descriptor(path)
    if found is None or found["process"] not in (None, "self", str(os.getpid())):
        return path.open("ab")
    return os.fdopen(os.dup(int(found["number"] or ("out", "err").index(found["std"]) + 1)), "wb")


@contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Errors of the operating system in the block name `path`, where they name its temporary file or none.

    Writing to an open file on a full disk names none.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename in (None, *([] if temporary is None else [str(temporary)])):
            error.filename, error.filename2 = str(path), None
        raise


def to_json(value: Any, indent: int | None = 2) -> str:
    """`value` as JSON text, with Vietnamese characters as they are.

    Other types than JSON's own are converted: numpy scalars and arrays; paths, decimals and UUIDs to text; dates and
    times to ISO 8601; durations to seconds; bytes to base64; NaN and infinities to null.

    Args:
        value: of these types, nested in mappings, lists and tuples.
        indent: spaces per level; None for one line.

    Raises:
        TypeError: a value is of another type.
    """
    text = json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, indent=indent)
    return HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)  # the same value, also safe on a terminal


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # numpy's types, recognised without importing numpy
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, date | time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value) if isinstance(value, Path | Decimal | UUID) else value
