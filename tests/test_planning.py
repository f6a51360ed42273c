"""Memory is planned from the shape: more rows, keys or adapters need more, and little memory means few at once."""

from pathlib import Path

import pytest
import torch
from test_training import rows, with_adapter

from loraft import planning
from loraft.batching import pack
from loraft.config import TrainConfig
from loraft.layouts import rounded
from loraft.training import one_window


def test_the_largest_packed_batch_is_counted() -> None:
    batch = rows()
    tokens, keys = planning.packed_size(batch, len(batch))
    assert tokens == pack(batch)["input_ids"].numel()
    assert keys == max(len(row.input_ids) for row in batch)
    assert keys <= planning.packed_size(batch, 1)[0] <= rounded(keys)


def test_activations_follow_the_published_formula() -> None:
    model = with_adapter()
    config = model.config
    expected = 100 * config.num_hidden_layers * (34 * config.hidden_size + 5 * config.num_attention_heads * 60)
    assert planning.activation_bytes(model.to(torch.bfloat16), 100, 60) == expected
    assert planning.activation_bytes(model.to(torch.float32), 100, 60) == 2 * expected


def test_as_many_adapters_train_at_once_as_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = with_adapter(), rows()
    tokens, longest = planning.packed_size(batch, 4)
    assert tokens > longest
    # a few short rows attend to all of each other
    each = planning.activation_bytes(model, tokens, tokens) + planning.OPTIMIZER_BYTES * 1000
    for room, count in ((10.0, 5), (3.5, 3), (0.1, 1)):
        monkeypatch.setattr(planning, "free_bytes", lambda device, room=room: room * each / planning.SHARE)
        assert planning.most_adapters(model, batch, 4, [1000] * 5, packed=True) == count


def test_an_accumulation_window_becomes_one_batch_where_memory_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = with_adapter(), rows()
    section = TrainConfig(per_device_train_batch_size=2, gradient_accumulation_steps=3)
    merged = one_window(section, model, batch, 1)
    assert (merged.per_device_train_batch_size, merged.gradient_accumulation_steps) == (6, 1)
    for kept in ({"shared_prefix": "off"}, {"gradient_checkpointing": True}, {"gradient_accumulation_steps": 1}):
        other = section.model_copy(update=kept)
        assert one_window(other, model, batch, 1) == other
    monkeypatch.setattr(planning, "free_bytes", lambda device: 1000)
    assert one_window(section, model, batch, 1) == section


def test_padded_batches_and_dense_masks_are_planned_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = with_adapter(), rows() * 10
    monkeypatch.setattr(planning, "free_bytes", lambda device: 10**10)
    packed = planning.most_adapters(model, batch, 60, [0] * 500, packed=True)
    assert 1 < planning.most_adapters(model, batch, 60, [0] * 500, packed=False) < packed < 500
    monkeypatch.setattr(planning, "supports", lambda model: False)
    assert 1 < planning.most_adapters(model, batch, 60, [0] * 500, packed=True) < packed


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "CGROUP", tmp_path)
    machine = planning.free_bytes(torch.device("cpu"))
    (tmp_path / "memory.current").write_text("1000\n")
    for limit, free in (("5000\n", 4000), ("max\n", machine)):
        (tmp_path / "memory.max").write_text(limit)
        assert planning.free_bytes(torch.device("cpu")) == pytest.approx(free, rel=0.2)


def test_free_memory_is_some_of_the_machines() -> None:
    assert 2**20 < planning.free_bytes(torch.device("cpu")) < 2**50
