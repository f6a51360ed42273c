"""Decides which trials of a sweep can be trained together in one pass, and whether that is faster than one by one."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from loraft.config.schema import Config
from loraft.engine.collator import TrainingRow
from loraft.models.adapter import MOVING_INITS
from loraft.studies.sweep.trials import Trial
from loraft.training import trackers
from loraft.training.memory import packed_size

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Up to so many operations (4 a weight and token) a training step on a CPU is mostly overhead; see docs/log.md.
IDLE_STEP = 2.5e10
# Keys of the config that may differ between the trials of one pass: each adapter has its own value.
ADAPTER_KEYS = {
    "lora": ("r", "lora_alpha", "alpha_per_rank", "use_rslora", "init_lora_weights"),
    "train": ("learning_rate",),
}


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


def joint_groups(trials: Sequence[Trial]) -> list[list[Trial]]:
    """The groups of two or more trials that can be trained together, each sorted by rank."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        if why_not_joint(trial.config) is None:
            groups.setdefault(_common(trial.config), []).append(trial)
    return [sorted(group, key=lambda t: t.config.lora.r) for group in groups.values() if len(group) > 1]


def joint_is_faster(base: "PreTrainedModel", rows: Sequence[TrainingRow], batch: int) -> bool:
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


def _common(config: Config) -> str:
    """What the trials of one pass must have in common, as JSON that can be compared."""
    values = config.model_dump(exclude={"output", "name", "fewshot", "sweep", "preset"})
    for section, keys in ADAPTER_KEYS.items():
        values[section] = {key: value for key, value in values[section].items() if key not in keys}
    return json.dumps(values, sort_keys=True)
