"""One process at a time works in a run directory: the lock file `.lock` in it; or on a file: `NAME.lock` beside it.

The file is created with O_EXCL, which one process alone can do, and says which process that is. It is removed at the
end, also by an error, Ctrl-C and SIGTERM. A killed process leaves it behind: the next one on the same machine sees that
the process is gone (or that its id now belongs to another one, which started at another time) and takes the lock over.
Nothing here needs `fcntl`, so that it also works on Windows and on network file systems.
"""

import json
import os
import shlex
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from loraft.distributed import is_main_process
from loraft.errors import Note, RunError
from loraft.runs.atomic_files import to_json, utc_now
from loraft.runs.records import record_from

LOCK_FILE = ".lock"
WRITTEN_WITHIN = 60.0  # seconds: a lock file that cannot be read may be another process's that is being written
SAME_START = 60.0  # seconds: start times are derived from the clock, which may be set; ids return much later than that
ATTEMPTS = 5
SHOWN = 60  # letters of a command line

_held: set[Path] = set()  # of this process
_lent: set[Path] = set()  # to this process, by the one that holds them


@dataclass(frozen=True)
class Owner:
    """What a lock file says about the process that holds the lock.

    Attributes:
        pid: its id on the machine `host`.
        host: name of the machine.
        process_started: seconds since 1970.
        started: when it took the lock, in UTC, ISO 8601.
        command: its command line, for people.
        job: its SLURM job, one for each task of a job array; "" outside SLURM.
        restarts: how often SLURM had requeued the job.
    """

    pid: int
    host: str
    process_started: float
    started: str
    command: str
    job: str = ""
    restarts: int = 0

    def __str__(self) -> str:
        seconds = max(0, round((datetime.now(UTC) - datetime.fromisoformat(self.started)).total_seconds()))
        age = next((f"{seconds // size} {unit}" for size, unit in ((3600, "h"), (60, "min")) if seconds >= size), None)
        text = f"process {self.pid} on {self.host} ({self.command}), begun {age or f'{seconds} s'} ago"
        return "".join(letter if letter.isprintable() else "?" for letter in text)


@contextmanager
def locked(folder: Path, *, force: bool = False) -> Iterator[None]:
    """Holds the lock of a run directory during the block; makes the directory, and removes it if it stays empty.

    Of several processes of one training, only the main one locks.

    Args:
        folder: the run directory; it need not exist.
        force: take over the lock of another machine, too.

    Raises:
        RunError: another process works there, or the directory cannot be made or written to. Nothing is left behind.
    """
    if not is_main_process():
        yield
        return
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder}: cannot be made ({error.strerror}); choose another --output") from error
        with _holding(folder / LOCK_FILE, force):
            yield
    finally:
        for parent in made:
            with suppress(OSError):  # it holds something
                parent.rmdir()


@contextmanager
def locked_file(file: Path) -> Iterator[None]:
    """Holds the lock of one file, which need not exist, during the block: the file `NAME.lock` beside it.

    Raises:
        RunError: another process works on it, or its folder cannot be written to.
    """
    with _holding(file.with_name(file.name + LOCK_FILE), force=False):
        yield


@contextmanager
def lent(folders: Iterable[Path]) -> Iterator[None]:
    """Inside the block this process may work in these run directories: the one that started it holds their locks.

    A worker that is killed then leaves no lock behind, which no process on another machine could take over.
    """
    paths = {Path(os.path.abspath(folder / LOCK_FILE)) for folder in folders}
    _lent.update(paths)
    try:
        yield
    finally:
        _lent.difference_update(paths)


@contextmanager
def _holding(lock: Path, force: bool) -> Iterator[None]:
    path, process = Path(os.path.abspath(lock)), os.getpid()
    if path in _lent:
        yield
        return
    content = _acquire(lock, force)
    _held.add(path)
    try:
        with _exit_on_sigterm():
            yield
    finally:
        _held.discard(path)
        with suppress(OSError):  # the folder may have been deleted
            if os.getpid() == process and path.read_bytes() == content:
                path.unlink()


def _locks(path: Path) -> Path:
    """What a lock file locks: its folder, or the file beside it."""
    return path.parent if path.name == LOCK_FILE else path.with_name(path.name.removesuffix(LOCK_FILE))


def refuse_locked(folder: Path, *, force: bool = False) -> None:
    """Raises an error if another process works in the directory; a lock of this process is no obstacle.

    Raises:
        RunError: as in `locked`.
    """
    path = folder / LOCK_FILE
    if (content := _content(path)) is not None and Path(os.path.abspath(path)) not in _held | _lent:
        _told_if_over(path, content, force)


def working_there(folder: Path) -> str:
    """What `refuse_locked` says about the other process in the directory, for messages; "" if there is none."""
    try:
        refuse_locked(folder)
    except RunError as error:
        return str(error).removeprefix(f"{folder}: ")
    return ""


def _acquire(path: Path, force: bool) -> bytes:
    """Creates the lock file; returns its content."""
    import psutil

    me = psutil.Process()
    command = shlex.join([os.path.basename(sys.argv[0]).replace("__main__.py", "loraft"), *sys.argv[1:]])
    command = command if len(command) < SHOWN else f"{command[:SHOWN]} ..."
    owner = Owner(me.pid, socket.gethostname(), me.create_time(), utc_now(), command, *_slurm_job())
    content = to_json(asdict(owner), indent=None).encode() + b"\n"
    for _ in range(ATTEMPTS):
        try:
            file = path.open("xb")
        except FileExistsError:
            _take_over(path, force)
            continue
        except OSError as error:
            raise _not_lockable(path, error) from error
        try:
            with file:
                file.write(content)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise _not_lockable(path, error) from error
        return content
    raise RunError(f"{_locks(path)}: other processes begin to work there at the same time; run the command again")


def _not_lockable(path: Path, error: OSError) -> RunError:
    what, other = ("it", "folder") if path.name == LOCK_FILE else ("its folder", "--output-file")
    return RunError(
        f"{_locks(path)}: cannot be locked ({error.strerror}); make {what} writable, or choose another {other}"
    )


def _take_over(path: Path, force: bool) -> None:
    """Removes the lock file if its owner does not work any more, and says so."""
    content = _content(path)
    if content is None:  # it has just been removed
        return
    told = _told_if_over(path, content, force)
    # Of several processes that come here at the same time, one can rename the file. What it renamed may be the new lock
    # of a process that was quicker: that one gets it back.
    aside = path.with_name(f"{path.name}-{os.getpid()}")
    with suppress(FileNotFoundError):
        os.replace(path, aside)
        if aside.read_bytes() != content:
            os.replace(aside, path)
            return
        aside.unlink()
        warnings.warn(told, Note, stacklevel=1)


def _content(path: Path) -> bytes | None:
    """The content of the lock file; None if there is none."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}); delete it if no process works there") from error


def _told_if_over(path: Path, content: bytes, force: bool) -> str:
    """What to tell about a lock that may be taken over.

    Raises:
        RunError: it may not.
    """
    locked_one = _locks(path)
    try:
        owner = record_from(json.loads(content), Owner, path, "")
        shown = str(owner)
    except (ValueError, TypeError, RecursionError, RunError):
        with suppress(OSError):
            if not force and time.time() - path.stat().st_mtime < WRITTEN_WITHIN:
                raise RunError(
                    f"{path}: is damaged, or another process is just writing it; run the command again in a minute"
                ) from None
        return f"{locked_one}: a damaged lock file was removed"
    if owner.host == socket.gethostname():
        if _is_alive(owner, path):
            raise RunError(f"{locked_one}: {shown}, works there; wait for it or end it, or choose another name")
        return f"{locked_one}: took over the lock of {shown}, which has ended"
    job, restarts = _slurm_job()
    if job and owner.job == job and owner.restarts < restarts:  # a job is never at work on two machines
        return f"{locked_one}: took over the lock of {shown}, whose job SLURM has requeued"
    if not force:
        or_force = ", or give --force, which begins again" if path.name == LOCK_FILE else ""
        raise RunError(
            f"{locked_one}: {shown}, works there, and whether it still runs cannot be seen from here; if it has ended,"
            f" delete {path}{or_force}"
        )
    return f"{locked_one}: took over the lock of {shown}, as --force asks"


def _slurm_job() -> tuple[str, int]:
    """The SLURM job of this process, "" outside SLURM, and how often it was requeued."""
    restarts = os.environ.get("SLURM_RESTART_COUNT", "")
    return os.environ.get("SLURM_JOB_ID", ""), int(restarts) if restarts.isdecimal() else 0


def _is_alive(owner: Owner, path: Path) -> bool:
    """Whether the process of a lock of this machine still runs."""
    import psutil

    if owner.pid == os.getpid():  # in a container, ids return when it is started again
        return Path(os.path.abspath(path)) in _held
    try:
        process = psutil.Process(owner.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return bool(abs(process.create_time() - owner.process_started) < SAME_START)
    except psutil.AccessDenied:
        return True
    except (psutil.Error, ValueError, OverflowError):
        return False


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Lets SIGTERM raise SystemExit, which ends blocks in order, where it would end the process at once."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
