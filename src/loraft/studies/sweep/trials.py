"""One trial of a sweep: its name, its values of the swept keys, its config, its run directory, and whether it is done.

A trial's config contains nothing of the sweep. The same trial of a larger sweep therefore has the same config, and its
finished run is used again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraft.config.schema import Config
from loraft.errors import ConfigError
from loraft.runs.resume import OUTPUT_KEYS, STUDY_SECTIONS, check_same_config, of_its_version
from loraft.runs.run import Run
from loraft.studies.sweep.parameter_count import trainable_parameters

NOT_SWEPT = (*OUTPUT_KEYS, *STUDY_SECTIONS)  # keys, and prefixes of keys, that do not change the result of a run


@dataclass(frozen=True)
class Trial:
    """One run of a sweep: its name inside the sweep, the swept keys with their values, and the config of the run."""

    name: str
    settings: dict[str, Any]
    config: Config


@dataclass(frozen=True)
class PlannedTrial:
    """A trial in the list that `--dry-run` prints.

    Attributes:
        name, settings: as in `Trial`.
        alpha_policy: how the scale of the update follows the rank, in words.
        trainable_parameters: None where they are not known.
        status: new, begun, finished, or damaged (its config cannot be read).
    """

    name: str
    settings: dict[str, Any]
    alpha_policy: str
    trainable_parameters: int | None
    status: str


def run_of(trial: Trial) -> Run:
    """The run directory of the trial; it may not exist yet."""
    return Run(Path(trial.config.output.folder) / str(trial.config.name))


def is_finished(trial: Trial) -> bool:
    """Whether the trial's run exists and is finished.

    Raises:
        RunError: it was begun with another config.
        ConfigError: its config cannot be read.
    """
    run = run_of(trial)
    if not run.begun:
        return False
    hint = "--force runs it again, --set name=NAME makes another sweep"
    own = of_its_version(trial.config, run.config_path)
    check_same_config(run.config_path, own, free=NOT_SWEPT, hint=hint)
    return run.finished


def plan(trials: Sequence[Trial], *, force: bool = False) -> list[PlannedTrial]:
    """What a sweep would run; parameter counts are None where `parameter_count.trainable_parameters` finds none.

    Args:
        trials: of the sweep.
        force: all are trained from the beginning, whatever is there.

    Raises:
        RunError: a trial was begun with another config.
    """
    return [
        PlannedTrial(
            name=trial.name,
            settings=trial.settings,
            alpha_policy=trial.config.lora.alpha_policy,
            trainable_parameters=trainable_parameters(trial.config),
            status="new" if force else _status(trial),
        )
        for trial in trials
    ]


def _status(trial: Trial) -> str:
    try:
        return "finished" if is_finished(trial) else "begun" if run_of(trial).begun else "new"
    except ConfigError:
        return "damaged"
