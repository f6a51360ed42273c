"""What a trainer must know of the adapters that train together, which can, and whether that is faster."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from loraft.config.schema import Config
from loraft.engine.collator import TrainingRow
from loraft.models.adapter import MOVING_INITS
from loraft.training import trackers
from loraft.training.memory import packed_size

# Up to so many operations (4 a weight and token) a training step on a CPU is mostly overhead; see docs/log.md.
IDLE_STEP = 2.5e10


@dataclass(frozen=True)
class JointAdapters:
    """The adapters of a joint training.

    Attributes:
        names: of the adapters in peft, the smaller ranks first.
        learning_rates: of each.
        best: folder in which each adapter's best weights are kept, with `best.json`.
        report: takes the number of an adapter and one line of its log.
    """

    names: Sequence[str]
    learning_rates: Sequence[float]
    best: Path
    report: Callable[[int, dict[str, Any]], None]


def why_not_joint(config: Config) -> str | None:
    """The reason why a trial has to be trained alone; None if it can be trained together with others."""
    if config.lora.use_dora:
        return "DoRA"
    if config.lora.modules_to_save:
        return "lora.modules_to_save trains whole modules"
    if config.lora.target_parameters:
        return "lora.target_parameters adapts experts"
    if config.lora.init_lora_weights in MOVING_INITS:
        return f"{config.lora.init_lora_weights} moves weights out of the backbone"
    if config.train.early_stopping_patience is not None:
        return "early stopping"
    if other := [name for name in config.train.report_to if name not in trackers.KINDS]:
        return f"{other[0]} follows one training"
    return None


def joint_is_faster(base: PreTrainedModel, rows: Sequence[TrainingRow], batch: int) -> bool:
    """Whether joint training is expected to be faster than training the adapters one by one.

    It is where the steps of a single adapter leave the device idle most of the time: on every accelerator, and on a CPU
    where a step is so small that its overhead is most of it.

    Args:
        base: the bare backbone.
        rows: the training rows.
        batch: rows a step of each adapter.
    """
    if base.device.type != "cpu":
        return True
    tokens, _ = packed_size(rows, batch)
    return bool(4 * base.num_parameters() * tokens <= IDLE_STEP)
