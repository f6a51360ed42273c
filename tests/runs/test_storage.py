"""Errors of the operating system as one message: path, reason, what to do, and how the work goes on."""

import errno
import os
import re
from pathlib import Path

import pytest

from loraft.errors import RunError, StorageError, spared
from loraft.runs import atomic_files
from loraft.runs.atomic_files import write_text
from loraft.runs.folders import append_line
from loraft.runs.kept import kept
from loraft.runs.run import Run
from loraft.runs.storage import SAME_COMMAND, reraise, storage_error


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "No space left on device.*free some space"),
        (errno.EROFS, "Read-only file system.*name another folder"),
        (errno.EACCES, "Permission denied.*permission"),
        (errno.EMFILE, "Too many open files.*ulimit -n"),
        (errno.EFBIG, "File too large.*ulimit -f"),
        (errno.ENAMETOOLONG, "File name too long.*shorter name"),
        (errno.ENOENT, "No such file or directory.; put it back, if it was deleted or moved"),
    ],
)
def test_each_reason_has_its_remedy_and_the_next_command(number: int, says: str) -> None:
    told = storage_error(OSError(number, os.strerror(number), "đĩa/a.json"), "loraft train --resume continues")
    assert isinstance(told, StorageError)
    assert told.args[0].startswith("đĩa/a.json: cannot be used (")
    assert told.args[0].endswith("then loraft train --resume continues")
    assert re.search(says, str(told))


def test_an_error_of_the_program_is_not_taken_for_one_of_the_disk() -> None:
    for error in (ValueError("x"), KeyError("no space left on device"), RuntimeError("shape mismatch")):
        assert storage_error(error, SAME_COMMAND, Path()) is None


def test_the_reason_that_safetensors_and_torch_hide_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rust = Exception("Error while serializing: I/O error: No space left on device (os error 28)")
    assert "No space left on device" in str(storage_error(rust, SAME_COMMAND, tmp_path))
    torch = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")
    assert "unexpected pos 64 vs 0, with" in str(storage_error(torch, SAME_COMMAND, tmp_path))  # what is known
    gone = storage_error(torch, SAME_COMMAND, tmp_path / "đã xóa")
    assert "No such file or directory" in str(gone)
    torch.__context__ = OSError(errno.ENOSPC, "No space left on device")
    assert "No space left on device" in str(storage_error(torch, SAME_COMMAND, tmp_path))


def test_a_full_disk_names_the_file_and_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kết quả.json"
    write_text(path, "cũ")

    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")  # as a write does: without a path

    with monkeypatch.context() as patched:
        patched.setattr(atomic_files.os, "replace", full)
        with pytest.raises(OSError, match="kết quả") as raised:
            write_text(path, "mới")
    assert raised.value.filename == str(path)
    assert path.read_text(encoding="utf-8") == "cũ"
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_log_on_a_full_device_is_named() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with pytest.raises(OSError, match="/dev/full"):
        append_line(Path("/dev/full"), {"step": 1})


def test_work_that_was_begun_is_told_how_to_go_on(tmp_path: Path) -> None:
    run = Run(tmp_path / "a b")
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(StorageError, match="then run the same command again"):
        reraise(full, run)
    write_text(run.config_path, "seed: 1\n")
    with pytest.raises(StorageError, match=r"a b: cannot.*then loraft train --resume --config '.*continues"):
        reraise(full, run)
    run.finish({})  # as where `discard` has brought the finished run back
    with pytest.raises(StorageError, match="then run the same command again"):
        reraise(full, run)
    with pytest.raises(ZeroDivisionError):
        reraise(ZeroDivisionError(), run)


def test_what_is_spared_is_one_warning_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    said = r"^the figures: left out \(ValueError: no font\); loraft report a makes"
    with pytest.warns(UserWarning, match=said), spared("the figures", "loraft report a"):
        raise ValueError("no font")
    monkeypatch.setenv("LORAFT_DEBUG", "1")
    with pytest.raises(RunError), spared("the figures", "loraft report a"):
        raise RunError("x")


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 5000, b"9" * 5000, b'{"a": [1, "x"]}'])
def test_a_damaged_cache_is_made_again(tmp_path: Path, content: bytes) -> None:
    def make() -> dict[str, list[int]]:
        return {"a": [1, 2]}

    def fits(found: object) -> bool:
        return isinstance(found, dict) and found.get("a") == [1, 2]

    kept(tmp_path, "x", ["f"], make, fits)
    (path,) = (tmp_path / ".rows").iterdir()
    whole = path.read_bytes()
    path.write_bytes(content)
    assert kept(tmp_path, "x", ["f"], make, fits) == {"a": [1, 2]}
    assert path.read_bytes() == whole
