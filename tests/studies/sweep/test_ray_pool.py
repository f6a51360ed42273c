"""What the driver of a sweep on Ray does when a part of it fails, without a cluster."""

import errno
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from loraft.config.resolve import resolve
from loraft.errors import LoraftError
from loraft.progress import Stage
from loraft.runs.study_folders import SweepFolder
from loraft.studies.sweep import ray_pool
from loraft.studies.sweep.grid import expand
from loraft.studies.sweep.shared_backbone import SharedBackbone

ray = pytest.importorskip("ray")


class Pool(ray_pool.Pool):
    """The workers of a sweep over two ranks, with what was told; workers are names here."""

    def __init__(self, folder: Path) -> None:
        self.told: list[str] = []
        self.next: list[str] = []
        super().__init__(
            cast(Any, None), SweepFolder(folder), SharedBackbone(self.told.append), {"CPU": 1.0, "GPU": 0.0}
        )
        self.stage = Stage("trial", 2)
        self.unit = tuple(expand(resolve(flags={"sweep.ranks": [1, 2], "output": str(folder)})))

    def _next(self, worker: Any) -> None:
        self.next.append(worker)


def died(what: str) -> Callable[..., Any]:
    def get(*given: Any, **named: Any) -> None:
        raise ray.exceptions.ActorUnavailableError(what, None)

    return get


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pool:
    monkeypatch.setattr(ray, "kill", lambda worker: None)
    monkeypatch.setattr(ray_pool, "machines", lambda: [{"CPU": 1.0}, {"CPU": 1.0}])
    return Pool(tmp_path / "quét")


def test_runs_that_cannot_be_stored_fail_and_the_worker_goes_on(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "quét/r2")

    monkeypatch.setattr(ray, "get", lambda one: ({"r1": "nhãn thiếu"}, b"tar"))
    monkeypatch.setattr(ray_pool, "unpack", full)
    closed: list[str] = []
    task = ray_pool._Task(pool.unit)
    task.locks.callback(closed.append, "r1, r2")
    pool.working["gọi"] = "máy 1", task
    pool._ended("gọi")
    assert pool.errors == {
        "r1": "nhãn thiếu",
        "r2": "its run cannot be kept here ([Errno 28] No space left on device: 'quét/r2'); the same command trains it"
        " again",
    }
    assert pool.folder.error_path("r2").read_text(encoding="utf-8") == f"{pool.errors['r2']}\n"
    assert (closed, pool.next, pool.stage.done) == (["r1, r2"], ["máy 1"], 2)


def test_the_sweep_goes_on_without_the_lines_of_the_workers(pool: Pool) -> None:
    pool.lines = cast(Any, type("Queue", (), {"size": lambda self: died("hàng đợi")()})())
    for _ in range(3):
        pool._tell_lines()
    (told,) = pool.told
    assert re.fullmatch(r"what the workers tell is lost from here on \(got .*hàng đợi.*\); the trials go on", told)


def test_each_of_the_workers_that_start_together_may_fail_twice(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get", died("hết bộ nhớ"))
    pool.todo.extend(ray_pool._Task((trial,)) for trial in pool.unit)
    for number in range(4):
        pool.starting[number] = f"máy {number}"
        pool._started(number)
    pool.starting[4] = "máy 4"
    with pytest.raises(LoraftError, match=r"workers do not start \(got .*hết bộ nhớ.*\); install the same loraft on"):
        pool._started(4)


def test_a_start_that_fails_when_nothing_waits_any_more_is_no_error(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "get", died("hết bộ nhớ"))
    for number in range(9):
        pool.starting[number] = f"máy {number}"
        pool._started(number)
    assert pool.starting == {}
