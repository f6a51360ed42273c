"""Ways in which a file of a run is damaged by hand, and a run, a sweep, a study and statistics to damage."""

import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from helpers.bad_input import refusal

FIXTURES = Path(__file__).parents[1] / "fixtures" / "first_layout"

CONTENTS = {
    "empty": b"",
    "an empty object": b"{}",
    "a list": b"[]",
    "null": b"null",
    "text": b'"x"',
    "binary": bytes(range(256)),
    "nested": b"[" * 1_200,
    "a number of 5,000 digits": b'{"labels": ' + b"9" * 5000 + b"}",
    "NaN": b"NaN",
    "half": b'{"labels": ["a',
    "no UTF-8": b'{"labels": "\xe1\xba"}',
}
DAMAGES = (*CONTENTS, "a folder", "no permission")


def copied(folder: Path) -> Path:
    """The folder `runs` with a run, a sweep, a few-shot study and statistics, whose files are links."""
    return Path(shutil.copytree(FIXTURES, folder / "runs", copy_function=os.link))


@contextmanager
def damaged(path: Path, damage: str) -> Iterator[None]:
    """The file is damaged inside the block."""
    path.unlink(missing_ok=True)
    if damage == "a folder":
        path.mkdir()
    else:
        path.write_bytes(CONTENTS.get(damage, b"{}"))
    with _refused(path) if damage == "no permission" else _as_it_is():
        yield


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Opening the file is refused, also to root."""
    opened: Callable[..., Any] = pathlib.io.open  # type: ignore[attr-defined]

    def refuse(file: Any, *given: Any, **named: Any) -> Any:
        if isinstance(file, str | os.PathLike) and os.path.abspath(file) == os.path.abspath(path):
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, *given, **named)

    with patch("io.open", refuse), patch("builtins.open", refuse):
        yield


def refused_everywhere(work: Path, file: str, damage: str, commands: Sequence[list[str]]) -> None:
    """Damages a file below `runs` in a copy of the fixtures, and checks that each command refuses it by its name."""
    runs = copied(work)
    if file == "run/before.json":  # read where a training goes on
        (runs / "run" / "metrics.json").unlink()
    with damaged(runs / file, damage):
        for command in commands:
            refusal(command, Path(file).name)
