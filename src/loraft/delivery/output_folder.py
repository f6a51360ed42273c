"""Folders of weights that a command writes: all of one or nothing, and never in the place of something else."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from loraft.config.names import show
from loraft.errors import ConfigError, RunError
from loraft.runs.folders import delete
from loraft.runs.records import read_object
from loraft.runs.run import MANIFEST_FILE
from loraft.runs.storage import SAME_COMMAND, storage_error


def check_folder(path: Path, *, exported: bool, force: bool) -> None:
    """Refuses a folder that this command must not replace; a foreign one not even with `force`.

    Args:
        path: where the output shall go; an empty folder holds nothing to lose.
        exported: the command is `export`, and not `merge`.
        force: replace an earlier output.

    Raises:
        ConfigError: a file is there, or a folder that holds something.
    """
    try:
        if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
            return
    except OSError as error:
        raise ConfigError(
            f"--output: cannot be used (got {show(str(path))}: {error.strerror}); name another folder"
        ) from None
    if not path.is_dir():
        raise ConfigError(f"--output: is a file (got {path}); name a folder")
    if (foreign := _foreign(path, exported)) is not None:
        raise ConfigError(f"--output: the folder holds other files (got {foreign}); name another folder")
    if not force:
        raise ConfigError(f"--output: is there already (got {path}); --force replaces it, or name another folder")


def _foreign(folder: Path, exported: bool) -> Path | None:
    """Something in a folder that is not of an earlier output of the same command; None if all is."""
    try:
        content = read_object(folder / MANIFEST_FILE, "")
    except RunError:
        return folder
    merged, files = content.get("merged"), content.get("files")
    if not isinstance(merged, dict) or not isinstance(files, dict) or ("to" in merged) != exported:
        return folder
    own = {folder / name for name in (MANIFEST_FILE, *files)}
    own |= {parent for path in own for parent in path.parents}
    return next((path for path in sorted(folder.rglob("*")) if path not in own), None)


def open_to_readers(folder: Path) -> None:
    """Gives all files the mode of the config: safetensors writes files that the user alone may read."""
    for path in filter(Path.is_file, folder.iterdir()):
        path.chmod((folder / "config.json").stat().st_mode)


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, which takes its place at the end of the block, or is deleted if the block raises.

    Raises:
        StorageError: the operating system refuses to write, as on a full disk.
    """
    path = Path(os.path.realpath(path))
    aside, before = (path.with_name(f".{path.name}-{os.getpid()}{end}") for end in ("", "-before"))
    missing = [parent for parent in path.parents if not parent.exists()]
    try:
        aside.mkdir(parents=True)
        yield aside
        if path.exists():
            os.replace(path, before)
        os.replace(aside, path)
    except Exception as error:
        if (told := storage_error(error, SAME_COMMAND, path.parent)) is None:
            raise
        raise told from error
    finally:
        if before.exists() and not path.exists():  # stopped between the two renames
            os.replace(before, path)
        with suppress(OSError):  # it could not be made
            delete(before)
            delete(aside)
        for parent in missing:
            with suppress(OSError):  # it holds something
                parent.rmdir()
