"""Adapted tiny backbones, their training rows, and comparisons of losses and gradients."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from peft import PeftModel

from helpers.tiny import CONFIGS, LABELS, SENTENCES, awaken, backbone, encoder, prompts, special, tokenizer
from loraft.config.schema import LoraSection, TrainConfig
from loraft.data.dataset import Split
from loraft.data.records import Example
from loraft.engine import collator, fused_layer, lora_linear
from loraft.engine.collator import TrainingRow, make_rows, pack, pad
from loraft.engine.loss import BatchMethod, answer_loss_sum
from loraft.engine.prefix_attention import enabled, supports
from loraft.models.adapter import add_adapter
from loraft.training.dataset import TrainingData
from loraft.training.trainer import LabelTrainer

PAD = tokenizer().pad_token_id


EXTRA_PAIRS = {"whole row": 2**60, "prefix and suffixes": -(2**60)}  # for all batches


def rows(class_weights: str = "none", texts: list[str] = SENTENCES, labels: list[int] = LABELS) -> list[TrainingRow]:
    return list(make_rows(prompts(texts), labels, encoder().completions_K, class_weights))


def with_adapter(architecture: str = "llama", **lora: Any) -> PeftModel:
    """A backbone with an adapter whose B is not zero, so that every LoRA weight has a gradient."""
    settings = {"r": 4, "target_modules": "default" if architecture == "gpt2" else "all-linear", **lora}
    # peft turns its setting for GPT-2's transposed linear layers round, and says so
    noted = pytest.warns(UserWarning, match="fan_in_fan_out") if architecture == "gpt2" else nullcontext()
    with noted:
        base = backbone(architecture) if architecture in CONFIGS else special(architecture)
        model = add_adapter(base, LoraSection(**settings), seed=1)
    awaken(model)
    return model


def loss_and_gradients(
    model: PeftModel, inputs: dict[str, torch.Tensor], *, method: BatchMethod = BatchMethod.MASK
) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = answer_loss_sum(model, inputs, torch.float32, method=method)
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(model: PeftModel, batch: list[TrainingRow]) -> None:
    plain = loss_and_gradients(model, pad(batch, PAD))
    assert len(plain[1]) >= 4
    found = [loss_and_gradients(model, pack(batch))]
    if supports(model.get_base_model()):
        with enabled(model.get_base_model()):
            found.append(loss_and_gradients(model, pack(batch), method=BatchMethod.ATTENTION))
    if fused_layer.supports(model) and lora_linear.supports(model):
        for pairs in EXTRA_PAIRS.values():
            with fused_layer.enabled(model), patch.object(collator, "MAX_EXTRA_PAIRS", pairs):
                found.append(loss_and_gradients(model, pack(batch), method=BatchMethod.FUSED))
    for loss, gradients in found:
        assert loss == pytest.approx(plain[0], rel=1e-5)
        for name, gradient in plain[1].items():
            assert torch.linalg.norm(gradients[name] - gradient) <= 1e-5 * torch.linalg.norm(gradient) + 1e-7, name


def fit(folder: Path, model: PeftModel, *, resume: bool = False, **train: Any) -> list[float]:
    """Trains for a few steps; returns the logged losses."""
    section = TrainConfig(
        **{
            "max_steps": 6,
            "per_device_train_batch_size": 2,
            "logging_steps": 1,
            "eval_steps": 3,
            "learning_rate": 1e-2,
            "warmup_steps": 0,
            **train,
        }
    )
    scores = iter([0.1, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2])
    data = TrainingData(rows("balanced"), tokenizer(), lambda current: {"macro_f1": next(scores)})
    trainer = LabelTrainer.build(model, data, section, output_dir=str(folder), seed=3)
    trainer.train(resume_from_checkpoint=resume or None)
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


SECTIONS = [LoraSection(r=r, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear") for r in (1, 4, 16)]


def balanced_rows() -> list[TrainingRow]:
    """The rows with balanced class weights."""
    return rows("balanced")


def split(name: str, texts: list[str], labels: list[int]) -> Split:
    """A labelled split of some sentences."""
    pairs = zip(texts, labels, strict=True)
    return Split(name, tuple(Example(text, label, row) for row, (text, label) in enumerate(pairs, 1)), "a file")
