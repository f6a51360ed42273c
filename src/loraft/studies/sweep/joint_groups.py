"""Decides which trials of a sweep can be trained together in one pass."""

import json
from collections.abc import Sequence

from loraft.config.schema import Config
from loraft.studies.sweep.trials import Trial
from loraft.training.joint_adapters import why_not_joint

# Keys of the config that may differ between the trials of one pass: each adapter has its own value.
ADAPTER_KEYS = {
    "lora": ("r", "lora_alpha", "alpha_per_rank", "use_rslora", "init_lora_weights"),
    "train": ("learning_rate",),
}


def joint_groups(trials: Sequence[Trial]) -> list[list[Trial]]:
    """The groups of two or more trials that can be trained together, each sorted by rank."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        if why_not_joint(trial.config) is None:
            groups.setdefault(_common(trial.config), []).append(trial)
    return [sorted(group, key=lambda t: t.config.lora.r) for group in groups.values() if len(group) > 1]


def _common(config: Config) -> str:
    """What the trials of one pass must have in common, as JSON that can be compared."""
    values = config.model_dump(exclude={"output", "name", "fewshot", "sweep", "preset"})
    for section, keys in ADAPTER_KEYS.items():
        values[section] = {key: value for key, value in values[section].items() if key not in keys}
    return json.dumps(values, sort_keys=True)
