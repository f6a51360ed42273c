"""The peak of a training's memory is its own, or it is said not to be known; what fits is planned from the shape."""

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from helpers.training import rows, with_adapter

from loraft.engine.collator import pack
from loraft.engine.layout import bucket_size
from loraft.training import memory
from loraft.training.memory import Peak

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
    monkeypatch.setattr(psutil.Process, "memory_info", lambda self: SimpleNamespace(peak_wset=5 * MIB))  # Windows
    assert memory._process_peak() == 5 * 2**10


@pytest.mark.gpu
def test_on_a_gpu_it_is_the_gpus_memory() -> None:
    device = torch.device("cuda")
    peak = Peak(device)
    block = torch.empty(64 * MIB, dtype=torch.uint8, device=device)
    del block
    assert (peak.mib() or 0) >= 64


# --- planning ---------------------------------------------------------------------------------------------------------


def test_the_largest_packed_batch_is_counted() -> None:
    for batch in (rows(), rows()[:1] * 40):  # equal rows share all but the answer and the token before it
        tokens, keys = memory.packed_size(batch, len(batch))
        assert tokens == pack(batch)["input_ids"].numel()
        assert keys == max(len(row.input_ids) for row in batch)
        assert keys <= memory.packed_size(batch, 1)[0] <= bucket_size(keys)


def test_activations_follow_the_published_formula() -> None:
    model = with_adapter()
    config = model.config
    expected = 100 * config.num_hidden_layers * (34 * config.hidden_size + 5 * config.num_attention_heads * 60)
    assert memory.activation_bytes(model.to(torch.bfloat16), 100, 60) == expected
    assert memory.activation_bytes(model.to(torch.float32), 100, 60) == 2 * expected


def test_as_many_adapters_train_at_once_as_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = with_adapter(), rows()
    tokens, longest = memory.packed_size(batch, 4)
    assert tokens > longest
    # a few short rows attend to all of each other
    weights = 10**6
    each = memory.activation_bytes(model, tokens, tokens) + memory.OPTIMIZER_BYTES * weights
    for room, count in ((10.0, 5), (3.5, 3), (0.1, 1)):
        monkeypatch.setattr(memory, "free_bytes", lambda device, room=room: room * each / memory.SHARE)
        assert memory.most_adapters(model, batch, 4, [weights] * 5, packed=True) == count


def test_padded_batches_and_dense_masks_are_planned_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = with_adapter(), rows() * 10
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**10)
    packed = memory.most_adapters(model, batch, 60, [0] * 500, packed=True)
    assert 1 < memory.most_adapters(model, batch, 60, [0] * 500, packed=False) < packed < 500
    monkeypatch.setattr(memory, "supports", lambda model: False)
    assert 1 < memory.most_adapters(model, batch, 60, [0] * 500, packed=True) < packed


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=123_456))
    assert memory.free_bytes(CPU) == 123_456  # no container, no limit
    (tmp_path / "memory.current").write_text("1000\n")
    for limit, free in (("5000\n", 4000), ("max\n", 123_456), ("900000\n", 123_456)):
        (tmp_path / "memory.max").write_text(limit)
        assert memory.free_bytes(CPU) == free


@pytest.mark.parametrize("recompute", [False, True])
def test_what_fits_follows_what_is_free(recompute: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = with_adapter(), rows()
    tokens = memory.packed_size(batch, 4)[0]  # few short rows, which attend to all of each other
    needed = memory.activation_bytes(model, tokens, tokens, recompute=recompute)
    asked: list[torch.device] = []
    for adapters in (1, 3):
        for more, found in ((1, 4), (-1, 2)):
            free = adapters * needed / memory.SHARE + more
            monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: asked.append(device) or free)
            made = memory.largest_fit(model, batch, [4, 2, 1], adapters, packed=True, recompute=recompute)
            assert made == found
    assert asked == [CPU] * 4  # once for all sizes: on a GPU it waits
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0)
    assert memory.largest_fit(model, batch, [4, 2, 1], 1, packed=True, recompute=recompute) is None


def test_with_recomputing_the_inputs_of_layers_are_kept_and_the_activations_of_one() -> None:
    model = with_adapter().to(torch.bfloat16)
    config = model.config
    one_layer = 34 * config.hidden_size + 5 * config.num_attention_heads * 60
    inputs = 2 * config.hidden_size * config.num_hidden_layers  # Korthikanti et al. 2022, section 5
    assert memory.activation_bytes(model, 100, 60, recompute=True) == 100 * (inputs + one_layer)


def test_free_memory_is_some_of_the_machines() -> None:
    assert 2**20 < memory.free_bytes(torch.device("cpu")) < 2**50
