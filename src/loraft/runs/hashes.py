"""Hashes of files, by which a bundle and a checkpoint are known to be whole."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes_of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """File names, relative to `folder` and with `/` between folders, to the SHA-256 of each.

    Raises:
        OSError: one cannot be read.
    """
    return {name: sha256_of(folder / name) for name in sorted(names)}


def differing(folder: Path, hashes: dict[str, str]) -> dict[str, str]:
    """Of the files in `hashes`, those that are not in `folder` as they were: name to `missing` or `changed`.

    A name that leads out of the folder is `outside` and not read.
    """
    state = {}
    for name, expected in hashes.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            state[name] = "outside"
        elif not path.is_file():
            state[name] = "missing"
        elif sha256_of(path) != expected:
            state[name] = "changed"
    return state
