"""Measures the speed of a training by its first steps."""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback

from loraft.config.schema import MOST_STEPS, Config
from loraft.data.dataset import Split
from loraft.models.adapter import add_adapter, remove_adapter
from loraft.models.encoder import Encoder
from loraft.training.dataset import prepare
from loraft.training.out_of_memory import train_halving
from loraft.training.trainer import LabelTrainer

SECONDS, FEWEST = 5.0, 2  # measured after the first step: so long, and so many steps if they take longer


@dataclass(frozen=True)
class StepSpeed:
    """The speed of a training on this machine, over its first steps.

    Attributes:
        device: on which it ran.
        method: how batches go through the model: a value of `engine.loss.BatchMethod`.
        measured: steps that were measured; not the first one, which checks the method and warms up.
        steps: of the whole training.
        step_seconds: of one step.
        rows: a second.
        tokens: computed a second; a prompt that a batch shares counts once.
        seconds: of all steps, without evaluations.
    """

    device: str
    method: str
    measured: int
    steps: int
    step_seconds: float
    rows: float
    tokens: float
    seconds: float


class _Clock(TrainerCallback):
    """Notes the time and the tokens seen at the end of every step, and ends the training after some seconds."""

    def __init__(self, seconds: float) -> None:
        self.limit = seconds
        self.trainer: Any = None
        self.marks: list[tuple[float, int]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if args.device.type == "cuda":  # it computes while the CPU goes on
            torch.cuda.synchronize(args.device)
        self.marks.append((time.perf_counter(), self.trainer.tokens_seen))
        if len(self.marks) > FEWEST and self.marks[-1][0] - self.marks[0][0] >= self.limit:
            control.should_training_stop = True


def measure_steps(
    config: Config, encoder: Encoder, base: PreTrainedModel, splits: Mapping[str, Split], *, seconds: float = SECONDS
) -> StepSpeed | None:
    """Trains the first steps with a fresh adapter and returns their speed; None for a training of one step.

    Nothing is evaluated, tracked or kept.

    Args:
        config: of the training.
        encoder, base: as `models.load.build` gives them; the backbone is bare again afterwards.
        splits: train and validation.
        seconds: to measure for.

    Raises:
        BackboneError: the memory does not hold a single row, or the loss is not finite.
    """
    section = config.train.model_copy(update={"eval_steps": MOST_STEPS, "report_to": []})
    data = prepare(config, encoder, splits["train"], splits["validation"])
    model = add_adapter(base, config.lora, seed=config.seed)
    clock = _Clock(seconds)
    try:
        with tempfile.TemporaryDirectory(prefix="loraft-") as folder:

            def build(at_most: int | None = None) -> LabelTrainer:
                clock.marks.clear()
                fitted = replace(data, at_most=at_most)
                trainer = LabelTrainer.build(
                    model, fitted, section, output_dir=folder, seed=config.seed, callbacks=[clock]
                )
                clock.trainer = trainer
                return trainer

            trainer = train_halving(build, model, Path(folder), None)
    finally:
        remove_adapter(model)
    (begun, before), (ended, after) = clock.marks[0], clock.marks[-1]
    if len(clock.marks) == 1:
        return None
    each, steps = (ended - begun) / (len(clock.marks) - 1), trainer.state.max_steps
    window = trainer.args.per_device_train_batch_size * trainer.args.gradient_accumulation_steps
    return StepSpeed(
        device=str(model.device),
        method=trainer.method.value,
        measured=len(clock.marks) - 1,
        steps=steps,
        step_seconds=each,
        rows=min(window, len(data.rows)) / each,
        tokens=(after - before) / (ended - begun),
        seconds=each * steps,
    )
