"""The peak of a training's memory is its own, or it is said not to be known."""

import os
from pathlib import Path

import pytest
import torch

from loraft import memory
from loraft.memory import Peak

CPU = torch.device("cpu")
MIB = 2**20
ANEW = pytest.mark.skipif(not os.access(memory.CLEAR, os.W_OK), reason="the peak cannot be started anew here")


def peaks(monkeypatch: pytest.MonkeyPatch, *mib: int) -> None:
    """Makes the process's peak take these values one after the other."""
    values = iter(mib)
    monkeypatch.setattr(memory, "_process_peak", lambda: next(values) * 2**10)


@ANEW
def test_an_earlier_trainings_memory_is_not_counted() -> None:
    in_use = Peak(CPU).mib()
    earlier = Peak(CPU)
    block = bytearray(200 * MIB)
    heap = [bytes(2000) for _ in range(100_000)]  # small pieces, which the C library keeps when they are freed
    last = bytes(2000)  # above them, without which they would go back by themselves
    highest = earlier.mib()
    del block, heap
    own = Peak(CPU).mib()
    del last
    assert in_use is not None
    assert highest is not None
    assert own is not None
    assert highest > in_use + 300
    assert own < highest - 300


@ANEW
def test_memory_that_was_freed_again_is_in_the_peak() -> None:
    peak = Peak(CPU)
    before = peak.mib()
    block = bytearray(200 * MIB)
    del block
    assert (peak.mib() or 0) > (before or 0) + 150


def test_where_the_peak_cannot_be_started_anew_an_earlier_one_is_not_taken_for_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "none" / "clear_refs")
    peaks(monkeypatch, 900, 900)
    assert Peak(CPU).mib() is None
    peaks(monkeypatch, 900, 1200)
    assert Peak(CPU).mib() == 1200


def test_started_anew_the_peak_is_known_also_where_nothing_more_was_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "clear_refs")
    peaks(monkeypatch, 900)
    assert Peak(CPU).mib() == 900
    assert (tmp_path / "clear_refs").read_text() == "5"  # man 5 proc_pid_clear_refs: reset the peak


def test_linux_tells_this_process_peak_and_not_its_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = tmp_path / "status"
    monkeypatch.setattr(memory, "STATUS", status)
    status.write_text("Name:\tpython\nVmPeak:\t  999999 kB\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\n")
    assert memory._process_peak() == 20480
    status.write_text("Name:\tpython\n")
    assert memory._process_peak() > 10 * 2**10  # by getrusage: a Python with torch has more than 10 MiB


@pytest.mark.gpu
def test_on_a_gpu_it_is_the_gpus_memory() -> None:
    device = torch.device("cuda")
    peak = Peak(device)
    block = torch.empty(64 * MIB, dtype=torch.uint8, device=device)
    del block
    assert (peak.mib() or 0) >= 64
