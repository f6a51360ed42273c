"""Keep what takes seconds to compute from rows alone, for the next command on the same rows."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from loraft.runs.atomic_files import write_json

LAYOUT = 1  # part of every file's name: one higher where the same rows give another content


def kept(output: Path, what: str, fingerprints: Sequence[str], make: Callable[[], Any]) -> Any:
    """What `make` returns, from a file in `output` if it was made before from the same rows.

    Args:
        output: the folder of the runs; nothing is kept where it does not exist or cannot be written.
        what: name of the content.
        fingerprints: of all splits that the content depends on.
        make: computes the content, which must survive JSON.
    """
    key = hashlib.sha256(" ".join([str(LAYOUT), *fingerprints]).encode()).hexdigest()[:16]
    path = output / ".rows" / f"{what}-{key}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        made = make()
    if output.is_dir():
        with contextlib.suppress(OSError):  # only the time is lost
            write_json(path, made)
    return made
