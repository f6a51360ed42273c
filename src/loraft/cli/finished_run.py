"""Which finished run a command works with, and what may be changed about it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loraft.errors import ConfigError

if TYPE_CHECKING:
    from loraft.config.schema import Config

CHANGEABLE = ("data.", "eval.", "model.device", "model.dtype", "model.cache_dir", "seed", "output")


def finished_run(
    name: str | None, output: str | None, sets: Sequence[str], flags: dict[str, str | None]
) -> "tuple[Path, Config]":
    """The run that is meant, the newest without a name, and its config with the changes that a finished run allows.

    Raises:
        ConfigError: a change that its training fixed.
        RunError: there is no such run.
    """
    from loraft.config.resolve import load_config, resolve
    from loraft.runs.run import find_run, newest_finished

    refuse_fixed([f"--set {item}" for item in sets if not item.strip().startswith(CHANGEABLE)])
    folder = Path(output or "runs")
    run = newest_finished(folder) if name is None else find_run(name, folder)
    if not sets and not any(flags.values()):
        return run.path, load_config(run.config_path)
    return run.path, resolve(config_file=run.config_path, overrides=sets, flags=flags)


def refuse_fixed(fixed: Sequence[str]) -> None:
    """Refuses flags that the training of a run has fixed.

    Raises:
        ConfigError: if any are given.
    """
    if fixed:
        raise ConfigError(
            f"{', '.join(fixed)}: fixed by the run, which was trained with its own; leave it out, or judge a bare "
            "backbone with loraft eval --zero-shot"
        )
