"""A device that runs out of memory, played by a trainer that raises as torch does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import tokenizer
from helpers.training import balanced_rows, with_adapter
from peft import PeftModel

from loraft.config.schema import TrainConfig
from loraft.errors import BackboneError, Note
from loraft.training.dataset import TrainingData
from loraft.training.out_of_memory import train_halving
from loraft.training.trainer import LabelTrainer

OUT = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has no more")
STEPS = 4


def trained(folder: Path, *, dropout: float = 0.0, **train: Any) -> tuple[LabelTrainer, PeftModel]:
    model = with_adapter(lora_dropout=dropout)
    given = {"max_steps": STEPS, "per_device_train_batch_size": 4, "logging_steps": 1, "warmup_steps": 0}
    section = TrainConfig(**{**given, "learning_rate": 1e-2, "eval_steps": 2, "shared_prefix": "off", **train})
    data = TrainingData(balanced_rows(), tokenizer(), lambda current: {"macro_f1": 0.5})

    def build(at_most: int | None) -> LabelTrainer:
        one = replace(data, at_most=at_most)
        return LabelTrainer.build(model, one, section, output_dir=str(folder), seed=3)

    return train_halving(build, model, folder, None), model


def losses(trainer: LabelTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("fails_at", [0, 2])
def test_out_of_memory_goes_on_with_half_the_rows_at_a_time_and_the_rows_of_a_step_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    dropout = 0.0 if fails_at else 0.1  # its draws must be the same ones again, from the start
    halves = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    expected, weights = trained(tmp_path / "a", dropout=dropout, **halves)
    step = LabelTrainer.training_step

    def short_of_memory(self: LabelTrainer, model: Any, inputs: Any, items: Any = None) -> torch.Tensor:
        if len(inputs["input_ids"]) > 2 and self.state.global_step >= fails_at:
            raise OUT
        return step(self, model, inputs, items)

    monkeypatch.setattr(LabelTrainer, "training_step", short_of_memory)
    with pytest.warns(Note, match=r"out of memory with 4 rows at a time \(CUDA out of memory\); going on with 2"):
        found, model = trained(tmp_path / "b", dropout=dropout)
    assert (found.args.per_device_train_batch_size, found.args.gradient_accumulation_steps) == (2, 2)
    assert found.state.global_step == STEPS
    assert losses(found) == pytest.approx(losses(expected), rel=1e-5)
    for one, other in zip(model.parameters(), weights.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=0 if fails_at == 0 else 1e-4)


def test_where_not_even_one_row_fits_the_message_says_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def out(self: LabelTrainer, *args: Any, **kwargs: Any) -> None:
        tried.append(self.args.per_device_train_batch_size)
        raise OUT

    monkeypatch.setattr(LabelTrainer, "train", out)
    with pytest.warns(Note), pytest.raises(BackboneError, match=r"does not hold a single row .*quant\.method=nf4"):
        trained(tmp_path)
    assert tried == [4, 2, 1]
