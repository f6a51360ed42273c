"""Static steps, run on the CPU without graphs: losses, gradients, weights and checkpoints of the usual steps."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.training import PAD, fit, loss_and_gradients, rows, with_adapter
from peft import PeftModel

from loraft.engine import fused_layer, lora_linear
from loraft.engine.collator import pad
from loraft.engine.loss import BatchMethod, static_loss_sums
from loraft.engine.static_batch import Size, static_batch, token_bucket
from loraft.training import batch_method


@pytest.fixture
def static(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings on the CPU take static steps."""
    monkeypatch.setattr(batch_method, "STATIC_DEVICES", {"cpu"})


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("architecture", "method"), [("llama", "FUSED"), ("llama", "MASK"), ("qwen3", "MASK")])
@pytest.mark.parametrize("count", [1, 6])
def test_a_static_batch_has_the_loss_and_gradients_of_a_padded_one(architecture: str, method: str, count: int) -> None:
    model, batch = with_adapter(architecture), rows("balanced")[:count]
    loss, gradients = loss_and_gradients(model, pad(batch, PAD))
    model.zero_grad()
    inputs = static_batch(batch, kept=40, copies=1).inputs  # more targets than there are
    with fused_layer.enabled(model) if method == "FUSED" else lora_linear.enabled(model):
        found = static_loss_sums(model, inputs, torch.float32, method=BatchMethod[method])
    found.sum().backward()
    assert found.item() == pytest.approx(loss, rel=1e-5)
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-4, atol=1e-5)


def test_sizes_come_back_and_a_vector_holds_all_fields() -> None:
    batches = [static_batch(rows()[i : i + 2], kept=12, copies=3).inputs for i in range(4)]
    assert {batch.size for batch in batches} == {Size(batches[0].size.tokens, 12, 3)}
    assert len(batches[0].vector) == sum(batches[0].size.numbers().values())
    for count in (1, 31, 32, 33, 500, 513, 2300):
        assert count <= token_bucket(count) < count + max(count / 8, 32)
        assert token_bucket(token_bucket(count)) == token_bucket(count)


# --- trainings --------------------------------------------------------------------------------------------------------


def weights(model: PeftModel) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters() if p.requires_grad]


SETTINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({}, {"gradient_accumulation_steps": 2, "shared_prefix": "auto", "max_steps": 4}),
    ({"use_rslora": True, "lora_alpha": 4}, {"weight_decay": 0.1, "lr_scheduler_type": "cosine"}),
    ({"modules_to_save": ["lm_head"]}, {"max_grad_norm": 0.05}),
    ({"use_dora": True, "target_modules": ["q_proj"]}, {}),
]


@pytest.mark.parametrize(("lora", "train"), SETTINGS)
def test_static_steps_are_the_usual_ones(
    lora: dict[str, Any], train: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, ours = with_adapter(**lora), with_adapter(**lora)
    expected = fit(tmp_path / "a", usual, **train)
    monkeypatch.setattr(batch_method, "STATIC_DEVICES", {"cpu"})
    assert fit(tmp_path / "b", ours, **train) == pytest.approx(expected, rel=1e-5)
    for own, right in zip(weights(ours), weights(usual), strict=True):
        torch.testing.assert_close(own, right, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("order", ["static first", "usual first"])
def test_a_checkpoint_goes_on_with_either_kind_of_step(
    order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"lr_scheduler_type": "constant", "weight_decay": 0.1}
    expected = fit(tmp_path / "whole", with_adapter(), **settings)
    kinds = [{"cpu"}, set()] if order == "static first" else [set(), {"cpu"}]
    monkeypatch.setattr(batch_method, "STATIC_DEVICES", kinds[0])
    fit(tmp_path / "run", with_adapter(), max_steps=3, **settings)
    monkeypatch.setattr(batch_method, "STATIC_DEVICES", kinds[1])
    found = fit(tmp_path / "run", with_adapter(), resume=True, **settings)
    assert found == pytest.approx(expected, rel=1e-4)


def test_bf16_steps_read_low_precision_copies_and_give_them_up_at_the_end(static: None, tmp_path: Path) -> None:
    model = with_adapter().to(torch.bfloat16)
    losses = fit(tmp_path, model)
    assert losses[-1] < losses[0]
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    assert not any(hasattr(p, "low_precision") for p in model.parameters())
