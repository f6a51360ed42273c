"""One process at a time works in a run directory: who is refused, what is taken over, and what is left."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from helpers.bad_input import refusal
from helpers.config import config

from loraft.config.yaml_io import dump_config
from loraft.errors import Note, RunError
from loraft.runs import lock
from loraft.runs.lock import LOCK_FILE, locked, refuse_locked
from loraft.runs.run import Run
from loraft.runs.study_folders import SweepFolder
from loraft.studies.fewshot import study
from loraft.studies.sweep import folds, local_engine, runner
from loraft.studies.sweep.grid import expand
from loraft.training import pipeline

HOLDER = """
import sys, time
from pathlib import Path
from loraft.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of the folder."""
    command = [sys.executable, "-X", "utf8", "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def write_lock(folder: Path, **changes: Any) -> Path:
    """The lock file of a process that has ended (or of what `changes` make of it)."""
    folder.mkdir(parents=True, exist_ok=True)
    owner = {"pid": 2**22 + 1, "host": socket.gethostname(), "process_started": 1.0, "command": "loraft train"}
    path = folder / LOCK_FILE
    path.write_text(json.dumps({**owner, "started": "2026-01-01T00:00:00+00:00", **changes}), encoding="utf-8")
    return path


def unfinished(folder: Path) -> Run:
    run = Run(folder)
    run.path.mkdir(parents=True)
    run.config_path.write_text(dump_config(config(folder.parent, f"name={folder.name}")), encoding="utf-8")
    return run


def test_one_process_is_refused_while_another_works_and_takes_over_when_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = unfinished(tmp_path / "chạy")
    (run.path / "metrics.json").write_text("{}", encoding="utf-8")  # finished: --force could replace it
    monkeypatch.chdir(tmp_path)
    with another_process(run.path) as process:
        says = rf"{run.path}: process {process.pid} on {socket.gethostname()} .*begun \d+ s ago, works there; wait"
        refusal(["train", "--force", "--config", str(run.config_path)], says, folder=tmp_path)
        refusal(["train", "--resume", "--config", str(run.config_path)], says, folder=tmp_path)
        with pytest.raises(RunError, match=says), locked(run.path, force=True):
            pass
        process.kill()  # and not waited for: it stays a zombie, which is gone too
        time.sleep(0.05)
        says = rf"took over the lock of process {process.pid} .*, which has ended"
        with pytest.warns(Note, match=says), locked(run.path):
            held = json.loads((run.path / LOCK_FILE).read_text(encoding="utf-8"))
        assert held["pid"] == os.getpid()
    assert sorted(os.listdir(run.path)) == ["config.yaml", "metrics.json"]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGTERM that a process sees")
def test_a_process_that_is_asked_to_end_leaves_no_lock_and_no_empty_folder(tmp_path: Path) -> None:
    with another_process(tmp_path / "a" / "b") as process:
        assert (tmp_path / "a" / "b" / LOCK_FILE).is_file()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 143
    assert os.listdir(tmp_path) == []


def test_the_lock_goes_at_the_end_and_after_errors_with_the_folders_that_stay_empty(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    for error in (RunError("x"), KeyboardInterrupt(), None):
        with pytest.raises(type(error)) if error else warnings.catch_warnings(), locked(folder):
            assert os.listdir(folder) == [LOCK_FILE]
            refuse_locked(folder)  # its own lock is no obstacle
            with pytest.raises(RunError, match=f"process {os.getpid()} on"), locked(folder, force=True):
                pass
            assert os.listdir(folder) == [LOCK_FILE]
            if error:
                raise error
        assert os.listdir(tmp_path) == []
    with locked(folder):
        (folder / "config.yaml").touch()
    assert os.listdir(folder) == ["config.yaml"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pid": os.getpid()},  # as after a container's restart
        {"pid": os.getppid()},  # runs, but started at another time
        {"pid": -1},
        {"pid": 10**30},
    ],
)
def test_a_stale_lock_of_this_machine_is_told_and_taken_over(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_lock(tmp_path, **changes)
    refuse_locked(tmp_path)
    says = r"took over the lock of process .*\(loraft train\), begun \d+ h ago, which has ended"
    with pytest.warns(Note, match=says), locked(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


def test_a_lock_of_another_machine_is_taken_over_with_force_alone(tmp_path: Path) -> None:
    path = write_lock(tmp_path, host="máy\x1b[31m-khác")
    before = path.read_bytes()
    for refused in (lambda: locked(tmp_path).__enter__(), lambda: refuse_locked(tmp_path)):
        with pytest.raises(RunError, match=r"on máy\?\[31m-khác .* delete .*\.lock, or give --force"):
            refused()
    assert path.read_bytes() == before
    with pytest.warns(Note, match="as --force asks"), locked(tmp_path, force=True):
        assert path.read_bytes() != before
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\x00", b'{"pid": 1}', b"[" * 100_000])
def test_a_damaged_lock_is_taken_over_when_nobody_can_be_writing_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / LOCK_FILE
    path.write_bytes(content)
    says = "damaged, or another process is just writing it; run the command again"
    with pytest.raises(RunError, match=says), locked(tmp_path):
        pass
    assert path.read_bytes() == content
    os.utime(path, (1, 1))
    with pytest.warns(Note, match="a damaged lock file was removed"), locked(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path, *given: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(RunError, match=r"cannot be locked \(Permission denied\); make it writable"), locked(tmp_path):
        pass
    monkeypatch.undo()
    assert os.listdir(tmp_path) == []
    (tmp_path / LOCK_FILE).mkdir()
    with pytest.raises(RunError, match=r"\.lock: cannot be read \(.*\); delete it"):
        refuse_locked(tmp_path)


def test_a_lock_that_another_process_took_over_meanwhile_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_lock(tmp_path)
    told = lock._told_if_over

    def slow(*given: Any) -> str:
        found = told(*given)
        write_lock(tmp_path, pid=os.getppid(), process_started=psutil.Process(os.getppid()).create_time())
        return found

    monkeypatch.setattr(lock, "_told_if_over", slow)
    lock._take_over(tmp_path / LOCK_FILE, False)
    monkeypatch.undo()
    assert json.loads(path.read_text(encoding="utf-8"))["pid"] == os.getppid()
    with pytest.raises(RunError, match=f"process {os.getppid()} on"), locked(tmp_path):
        pass


def test_the_lock_is_taken_before_force_deletes_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def stop(*given: Any, **named: Any) -> Any:
        seen.append((tmp_path / "chạy" / LOCK_FILE).is_file())
        raise RunError("dừng")

    for name in ("build", "start_run"):
        with monkeypatch.context() as patch:
            patch.setattr(pipeline, "build", lambda section: (None, None))
            patch.setattr(pipeline, name, stop)
            with pytest.raises(RunError, match="dừng"):
                pipeline.train(config(tmp_path, "name=chạy"), force=True, quiet=True)
        assert os.listdir(tmp_path) in ([], [".rows"])
    assert seen == [True, True]


def test_sweep_folds_and_study_lock_their_directories(tmp_path: Path) -> None:
    section = config(tmp_path, "sweep.ranks=[1]", "name=quét")
    works: list[Callable[[], Any]] = [
        lambda: runner.sweep(section, quiet=True, force=True),
        lambda: folds.train_folds(section, 2, quiet=True, force=True),
        lambda: study.fewshot(section, quiet=True, force=True),
        lambda: pipeline.train(section, quiet=True, force=True),
    ]
    with locked(tmp_path / "quét"):
        for work in works:
            with pytest.raises(RunError, match=rf"quét: process {os.getpid()} on .* works there"):
                work()
        assert os.listdir(tmp_path / "quét") == [LOCK_FILE]


def test_a_trial_that_another_process_trains_fails_alone(tmp_path: Path) -> None:
    trials = expand(config(tmp_path, "sweep.ranks=[1]", "name=quét"))
    shared: Any = SimpleNamespace(tell=lambda line: None, inputs=lambda section: None, check=lambda: True)
    with locked(tmp_path / "quét" / "r1"):
        errors = local_engine.run_trials(trials, SweepFolder(tmp_path / "quét"), shared, "off", force=True, quiet=True)
    assert list(errors) == ["r1"]
    assert "works there" in errors["r1"]


def test_only_the_main_process_of_a_training_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with locked(tmp_path / "a"):
        assert os.listdir(tmp_path) == []
