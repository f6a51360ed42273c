"""A loss that is not finite: which step and which rows the message names."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import tokenizer
from helpers.training import balanced_rows, with_adapter

from loraft.config.schema import TrainConfig
from loraft.errors import BackboneError
from loraft.training.dataset import TrainingData
from loraft.training.finite_loss import FiniteLoss
from loraft.training.trainer import LabelTrainer

NUMBERS = [11, 12, 13, 14, 15, 16]


def watched(losses: list[float], batches: int = 1, steps: int = 10, ahead: int = 2) -> FiniteLoss:
    """After these losses of batches of two rows, with some batches collated ahead."""
    found = FiniteLoss(batches, steps, torch.device("cpu"))
    for number in range(len(losses) + ahead):
        found.collated([2 * number % 6, (2 * number + 1) % 6])
    for loss in losses:
        found.trained(torch.tensor(loss))
    return found


@pytest.mark.parametrize(
    ("losses", "batches", "step", "rows"),
    [
        ([0.5, math.nan, math.nan], 1, 39, "13, 14"),
        ([0.5, 0.5, math.inf], 1, 40, "15, 16"),
        ([0.5, 0.5, 0.5, math.nan], 2, 40, "11, 12"),
        ([0.5, math.nan, 0.5, math.nan], 2, 39, "13, 14"),
    ],
)
def test_the_first_step_and_its_rows_are_named(losses: list[float], batches: int, step: int, rows: str) -> None:
    with pytest.raises(BackboneError, match=rf"not finite at step {step} on rows {rows} of .*\(now 0\.001\)"):
        watched(losses, batches).check(math.nan, 40, 0.001, NUMBERS)


def test_finite_losses_pass_and_every_log_begins_anew() -> None:
    watch = watched([0.5] * 3, ahead=1)
    watch.check(0.5, 3, 0.001, NUMBERS)
    watch.collated([0, 1])
    watch.trained(torch.tensor(math.nan))
    with pytest.raises(BackboneError, match="at step 4 on rows 11, 12 of"):
        watch.check(math.nan, 4, 0.001, NUMBERS)


@pytest.mark.parametrize("static", [False, True])
def test_a_training_whose_loss_is_not_finite_ends_with_its_step_and_rows(
    tmp_path: Path, static: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if static:
        monkeypatch.setattr("loraft.training.batch_method.STATIC_DEVICES", {"cpu"})
    rows = balanced_rows()
    rows[2] = replace(rows[2], weight=math.nan)
    section = TrainConfig(max_steps=6, per_device_train_batch_size=2, logging_steps=6, warmup_steps=0)
    data = TrainingData(rows, tokenizer(), lambda current: {"macro_f1": 0.5}, numbers=NUMBERS)
    trained: list[list[int]] = []
    collate = LabelTrainer._collate

    def kept(self: LabelTrainer, items: list[dict[str, Any]]) -> Any:
        trained.append(sorted(item["row"] for item in items))
        return collate(self, items)

    monkeypatch.setattr(LabelTrainer, "_collate", kept)
    trainer = LabelTrainer.build(with_adapter(), data, section, output_dir=str(tmp_path), seed=3)
    with pytest.raises(BackboneError) as raised:
        trainer.train()
    step = next(number for number, batch in enumerate(trained, 1) if 2 in batch)
    batch = ", ".join(str(NUMBERS[row]) for row in trained[step - 1])
    assert f"not finite at step {step} on rows {batch} of data.train_split" in str(raised.value)
