"""What a command may write over where the user names the file: its own earlier output, a FIFO or a device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from loraft.config.names import show
from loraft.errors import ConfigError, RunError
from loraft.runs.atomic_files import is_stream, replacing
from loraft.runs.run import Run
from loraft.runs.study_folders import (
    AuditFolder,
    DatasetFolder,
    FewshotFolder,
    FoldsFolder,
    RankCurveFolder,
    SweepFolder,
)

LONG_NAME = 255  # letters, above which a message shows the begin of a path
HEAD = 64 * 1024  # bytes at the beginning of a file in which its mark stands


def check_target(path: Path, flag: str, *, own: Callable[[Path], bool] | None, force: bool) -> None:
    """Refuses a file that this command must not replace.

    A FIFO or a device is written to, and an empty file holds nothing to lose. `force` replaces a foreign file, but none
    of a run or a study, whose files belong to each other.

    Args:
        path: where the output shall go.
        flag: the option that names it, for messages.
        own: whether a file is an earlier output of the same command; None: such a one is not replaced either.
        force: replace a foreign file.

    Raises:
        ConfigError: a folder is there, or a file that this command did not write.
    """
    try:
        if path.is_dir():
            raise ConfigError(f"{flag}: is a folder (got {path}); name a file")
        if is_stream(path) or not path.exists() or not path.stat().st_size or (own and own(path)):
            return
    except OSError as error:
        got = path if len(str(path)) <= LONG_NAME else show(str(path))
        raise ConfigError(f"{flag}: cannot be written (got {got}: {error.strerror}); name another file") from None
    if _of_a_run(path.resolve()):
        raise ConfigError(f"{flag}: is a file of a run or study (got {path}); name another file")
    if not force:
        what = "exists" if own is None else "exists, and is not an earlier output of this command"
        raise ConfigError(f"{flag}: {what} (got {path}); --force replaces it, or name another file")


@contextmanager
def writing(path: Path, flag: str) -> Iterator[Path]:
    """`replacing`, with an error of the file system as a message.

    Raises:
        RunError: the file cannot be written.
    """
    try:
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        why = error.strerror or error
        raise RunError(f"{flag}: cannot be written (got {path}: {why}); name another file") from error


def head(path: Path) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as file:
        return file.read(HEAD)


def _of_a_run(path: Path) -> bool:
    # An adapter's or a checkpoint's file lies up to two folders below its run's.
    runs = [
        kind(folder)
        for kind in (Run, SweepFolder, FoldsFolder, FewshotFolder, AuditFolder, RankCurveFolder)
        for folder in path.parents[:3]
    ]
    return any(run.recognised for run in runs) or path == DatasetFolder(path.parent).results_path
