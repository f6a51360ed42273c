"""Bad input given to the command line inside the test's process: one message, an exit code, nothing left behind."""

import io
import os
import re
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from loraft.cli.app import main

LISTED = 10  # names that a message may list


def refusal(arguments: list[str], *says: str, stdin: str | bytes = "", folder: Path | None = None) -> str:
    """Calls `loraft` with arguments that it must refuse, checks how it does, and returns what stderr said.

    Args:
        arguments: of the command line, from the command's name on.
        *says: regular expressions that the message must match: the place, the value, what is allowed, the next step.
        stdin: what the command could read.
        folder: whose files and folders must stay as they are; by default the working folder.
    """
    folder = folder or Path.cwd()
    before = snapshot(folder)
    out, err = io.StringIO(), io.StringIO()
    piped = io.TextIOWrapper(io.BytesIO(stdin if isinstance(stdin, bytes) else stdin.encode()), encoding="utf-8")
    code: object = 0
    with redirect_stdout(out), redirect_stderr(err), patch("sys.stdin", piped), warnings.catch_warnings():
        try:
            main(arguments)
        except SystemExit as stop:  # any other exception would be a traceback, and fails the test
            code = stop.code
    said = err.getvalue()
    assert code in (1, 2), f"exit code {code}: {said}"
    assert out.getvalue() == "", f"a refused command printed a result: {out.getvalue()[:200]}"
    errors = [line for line in said.splitlines() if line.startswith(("error:", "Usage:"))]
    assert len(errors) == 1, f"not one message: {said}"
    message = said[said.index(errors[0]) :]
    assert "Traceback" not in said
    for pattern in says:
        assert re.search(pattern, message), f"{pattern!r} is not in: {message}"
    sentences = [part.strip() for part in re.split(r"[;\n]", message) if len(part.strip()) > 12]
    assert len(sentences) == len(set(sentences)), f"said twice: {message}"
    assert not re.search(rf"(?:[^,;:()\n]+, ){{{LISTED},}}", message), f"lists more than {LISTED} names: {message}"
    assert len(message) < 2000, f"{len(message)} characters"
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", message), f"raw control characters: {message!r}"
    left = snapshot(folder)
    assert left == before, f"left behind or changed: {sorted(set(left.items()) ^ set(before.items()))[:5]}"
    return message


def snapshot(folder: Path) -> dict[str, tuple[int, int] | None]:
    """Every path below the folder; for files size and time of the last change."""
    found: dict[str, tuple[int, int] | None] = {}
    for root, folders, files in os.walk(folder):
        for name in folders:
            found[os.path.join(root, name)] = None
        for name in files:
            state = os.lstat(os.path.join(root, name))
            found[os.path.join(root, name)] = (state.st_size, state.st_mtime_ns)
    return found
