"""Say in one message why a file cannot be read or written, also where a library hides the system's reason."""

import errno
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import NoReturn

from loraft.errors import StorageError, first_line
from loraft.runs.folders import RunFolder

# What to do about the operating system's errors that a user can act on; for any other, look at the path.
REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space within your quota",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f)",
    errno.EROFS: "the file system is read-only: name another folder",
    errno.EACCES: "ask for the permission, or name another folder",
    errno.EPERM: "ask for the permission, or name another folder",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "close other programs, which hold too many open files",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "put it back, if it was deleted or moved while the command ran",
    errno.EISDIR: "a folder is where a file belongs: move it away",
    errno.ENOTDIR: "a file is where a folder belongs: move it away",
    errno.EEXIST: "something else of that name is there: move it away",
    errno.EIO: "the device fails: check it",
}
SAME_COMMAND = "run the same command again"
RUST = re.compile(r"\(os error (\d+)\)")  # how safetensors and tokenizers end the system's reason
# torch.save writes in C++, which drops the system's reason.
TORCH = re.compile(r"PytorchStreamWriter|unexpected pos|file write failed|iostream error|cannot be opened")


def storage_error(error: Exception, then: str, folder: Path | None = None) -> StorageError | None:
    """The message about an error of the operating system; None for any other error, whose traceback is needed.

    Args:
        error: what was raised; by the system, or by safetensors or torch in their own words.
        then: how the work goes on once the user has mended it: the end of the message.
        folder: that the work writes to; it is tested where the error does not give the system's reason.
    """
    found = _system_error(error, folder)
    if found is None:
        return None
    # Every file that loraft writes is named, see `naming`: what is left is what it prints.
    where = found.filename if found.filename is not None else folder if folder is not None else "stdout"
    reason = found.strerror or first_line(found)
    remedy = REMEDIES.get(found.errno or 0, "look at what is there")
    return StorageError(
        f"{where if isinstance(where, int) else os.fsdecode(where)}: cannot be used ({reason}); {remedy}, then {then}"
    )


def reraise(error: Exception, folder: RunFolder) -> NoReturn:
    """Raises an error of work in a directory again; one of the operating system with the command that goes on.

    Raises:
        StorageError: it is the operating system's.
    """
    then = f"{folder.how_to_resume} continues" if folder.begun and not folder.finished else SAME_COMMAND
    if (told := storage_error(error, then, folder.path)) is None:
        raise error
    raise told from error


def _system_error(error: Exception, folder: Path | None) -> OSError | None:
    if isinstance(error, OSError):
        return error
    if (number := RUST.search(str(error))) is not None:
        return OSError(int(number[1]), os.strerror(int(number[1])))
    if folder is None or not isinstance(error, RuntimeError) or TORCH.search(str(error)) is None:
        return None
    below: BaseException | None = error
    while below is not None:  # a stream of Python's under torch's writer
        if isinstance(below, OSError):
            return below
        below = below.__context__
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(2**20))
    except OSError as found:
        return OSError(found.errno, found.strerror, str(folder))
    free = shutil.disk_usage(folder).free // 2**20
    return OSError(errno.EIO, f"{first_line(error)}, with {free:,} MiB free", str(folder))
