"""Keep what takes seconds to compute from rows alone, for the next command on the same rows."""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from loraft.errors import RunError
from loraft.runs.atomic_files import write_json
from loraft.runs.records import from_json, read_text

LAYOUT = 1  # part of every file's name: one higher where the same rows give another content


def kept(
    output: Path, what: str, fingerprints: Sequence[str], make: Callable[[], Any], fits: Callable[[Any], bool]
) -> Any:
    """What `make` returns, from a file in `output` if it was made before from the same rows.

    Args:
        output: the folder of the runs; nothing is kept where it does not exist or cannot be written.
        what: name of the content.
        fingerprints: of all splits that the content depends on.
        make: computes the content, which must survive JSON.
        fits: whether a file's content has the shape of what `make` returns; a damaged one is made again.
    """
    key = hashlib.sha256(" ".join([str(LAYOUT), *fingerprints]).encode()).hexdigest()[:16]
    path = output / ".rows" / f"{what}-{key}.json"
    with contextlib.suppress(RunError):
        found = from_json(read_text(path, ""), path, "")
        if fits(found):
            return found
    made = make()
    if output.is_dir():
        with contextlib.suppress(OSError):  # only the time is lost
            write_json(path, made)
    return made
