"""A few real steps of a training, to say how long the whole will take."""

import tempfile
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import TrainerCallback

from loraft.config.schema import MOST_STEPS, Config
from loraft.models.adapter import add_adapter
from loraft.models.backbone import load_backbone
from loraft.models.encoder import Encoder
from loraft.progress import Stage
from loraft.training.dataset import TrainingData
from loraft.training.trainer import LabelTrainer

LEAST_STEPS = 3  # the first one is not counted: it checks the batch and generates code


@dataclass(frozen=True)
class Calibration:
    """How fast the first steps of a training were.

    Attributes:
        steps: that were timed.
        seconds_per_step: their mean.
        tokens_per_second: tokens that went through the model.
        method: how batches went through the model.
    """

    steps: int
    seconds_per_step: float
    tokens_per_second: float
    method: str


class _Clock(TrainerCallback):
    """Notes the time after each step, and ends the training when its time is over."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.times = seconds, [time.perf_counter()]
        self.tokens: list[int] = []
        self.tokens_seen: Any = lambda: 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Reads the clock after the device has done its work."""
        if args.device.type != "cpu":
            torch.accelerator.synchronize()
        self.times.append(time.perf_counter())
        self.tokens.append(self.tokens_seen())
        if len(self.tokens) > LEAST_STEPS and self.times[-1] - self.times[0] >= self.seconds:
            control.should_training_stop = True


def calibrated(config: Config, encoder: Encoder, data: TrainingData, seconds: float) -> Calibration:
    """Trains for so many seconds, in a folder that is removed; nothing is evaluated and no adapter is kept.

    Args:
        config: whose backbone is on this machine.
        encoder: of its tokenizer.
        data: of the training.
        seconds: after which no further step begins, once there are a few.
    """
    base = load_backbone(config.model, config.quant)
    model = add_adapter(base, config.lora, seed=config.seed)
    clock = _Clock(seconds)
    changes = {"eval_steps": MOST_STEPS, "max_steps": MOST_STEPS, "report_to": [], "early_stopping_patience": None}
    with tempfile.TemporaryDirectory() as folder:
        trainer = LabelTrainer.build(
            model,
            replace(data, tokenizer=encoder.tokenizer),
            config.train.model_copy(update=changes),
            output_dir=folder,
            seed=config.seed,
            callbacks=[clock],
        )
        clock.tokens_seen = lambda: trainer.tokens_seen
        with Stage("training a few steps, to tell the time"):
            trainer.train()
    spent, steps = clock.times[-1] - clock.times[1], len(clock.tokens) - 1
    return Calibration(steps, spent / steps, (clock.tokens[-1] - clock.tokens[0]) / spent, trainer.method.value)
