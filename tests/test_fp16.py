"""Training over fp16 weights, as on cards without bf16: the losses and gradients of fp32, through a scaled loss."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.tiny import awaken, backbone, tokenizer
from helpers.training import PAD, rows
from peft import PeftModel

from loraft.config.schema import LoraSection, ModelConfig, QuantConfig, TrainConfig
from loraft.engine import fused_layer, lora_linear, prefix_attention
from loraft.engine.collator import TrainingRow, pack, pad
from loraft.engine.loss import BatchMethod, answer_loss_sum
from loraft.models.adapter import add_adapter
from loraft.models.backbone import load_backbone
from loraft.training.dataset import TrainingData
from loraft.training.trainer import LabelTrainer

SCALE = 1024.0


def model_in(dtype: torch.dtype) -> PeftModel:
    """The tiny backbone with weights that fp16 holds exactly, in this dtype, with an adapter in fp32."""
    model = add_adapter(backbone().half().to(dtype), LoraSection(r=4), seed=1)
    awaken(model)
    return model


def gradients_of(model: PeftModel, batch: dict[str, torch.Tensor], method: BatchMethod) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    loss = answer_loss_sum(model, batch, model.get_base_model().dtype, method=method)
    (loss * SCALE).backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {parameter.grad.dtype for parameter in trained} == {torch.float32}
    return loss.item(), torch.cat([parameter.grad.flatten() / SCALE for parameter in trained])


@pytest.mark.parametrize("method", list(BatchMethod))
def test_every_method_computes_loss_and_gradients_of_fp32_within_the_precision_of_fp16(method: BatchMethod) -> None:
    exact = gradients_of(model_in(torch.float32), pad(rows(), PAD), BatchMethod.PADDED)
    model = model_in(torch.float16)
    assert fused_layer.supports(model)
    assert lora_linear.supports(model)
    layers = fused_layer.enabled(model) if method is BatchMethod.FUSED else nullcontext()
    shared = method in (BatchMethod.FUSED, BatchMethod.ATTENTION)
    attention = prefix_attention.enabled(model.get_base_model()) if shared else nullcontext()
    batch = pad(rows(), PAD) if method is BatchMethod.PADDED else pack(rows())
    with layers, attention:
        loss, gradients = gradients_of(model, batch, method)
    # fp16 has 11 significant bits: a relative error of 5e-4 in each operation, and a pass has some dozens of them.
    assert loss == pytest.approx(exact[0], rel=2e-3)
    assert float((gradients - exact[1]).norm() / exact[1].norm()) < 1e-2


def norms(folder: Path, dtype: torch.dtype, batch: list[TrainingRow], **train: object) -> list[float]:
    """The gradient norms that a training of two steps logs."""
    section = TrainConfig(
        **{"max_steps": 2, "per_device_train_batch_size": 6, "logging_steps": 1, "warmup_steps": 0, **train}
    )
    data = TrainingData(batch, tokenizer(), lambda current: {"macro_f1": 0.5})
    trainer = LabelTrainer.build(model_in(dtype), data, section, output_dir=str(folder), seed=3)
    trainer.train()
    assert (trainer.accelerator.scaler is not None) == (dtype is torch.float16)
    return [line["grad_norm"] for line in trainer.state.log_history if "grad_norm" in line]


@pytest.mark.parametrize("shared_prefix", ["auto", "off"])
def test_gradients_too_small_for_fp16_survive_in_the_scaled_loss_and_are_clipped_by_their_own_size(
    tmp_path: Path, shared_prefix: str
) -> None:
    small = [replace(row, weight=1e-5) for row in rows()]  # below fp16's smallest number after a layer or two
    exact = norms(tmp_path / "a", torch.float32, small, shared_prefix=shared_prefix)
    scaled = norms(tmp_path / "b", torch.float16, small, shared_prefix=shared_prefix)
    assert len(scaled) == 2
    assert scaled == pytest.approx(exact, rel=2e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["none", "nf4"])
def test_the_bundled_backbone_trains_in_fp16_on_a_card(tmp_path: Path, method: str) -> None:
    base = load_backbone(ModelConfig(dtype="fp16", device="cuda"), QuantConfig(method=method, compute_dtype="fp16"))
    data = TrainingData(rows(), tokenizer(), lambda current: {"macro_f1": 0.5})
    section = TrainConfig(
        max_steps=20, per_device_train_batch_size=6, logging_steps=1, learning_rate=2e-3, warmup_steps=0
    )
    model = add_adapter(base, LoraSection(r=4), seed=1)
    trainer = LabelTrainer.build(model, data, section, output_dir=str(tmp_path), seed=3)
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[-1] < 0.5 * losses[0]
