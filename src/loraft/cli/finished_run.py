"""Which finished run or adapter a command works with, and what may be changed about it."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loraft.cli.console import warnings_said
from loraft.cli.options import ConfigFlags
from loraft.errors import ConfigError

if TYPE_CHECKING:
    from loraft.config.schema import Config

CHANGEABLE = (
    "data.",
    "eval.",
    "model.device",
    "model.dtype",
    "model.cache_dir",
    "model.trust_remote_code",
    "seed",
    "output",
)


def run_or_adapter(
    run: str | None, adapter: Path | None, given: ConfigFlags, flags: dict[str, str | None]
) -> "tuple[Path | None, Config]":
    """The finished run that is meant, None where there is an adapter instead, and the config.

    Raises:
        ConfigError: flags for a backbone or task are given with a run, whose training fixed them.
        BackboneError, RunError: as in `made_elsewhere` and `finished_run`.
    """
    sets = given.sets or ()
    if adapter is not None:
        return None, made_elsewhere(adapter, sets, flags, preset=given.preset, config_file=given.config)
    refuse_fixed(given.given("preset", "config", "model", "task", "quant"))
    return finished_run(run, given.output, sets, flags)


def finished_run(
    name: str | None, output: str | None, sets: Sequence[str], flags: dict[str, str | None]
) -> "tuple[Path, Config]":
    """The run that is meant, the newest without a name, and its config with the changes that a finished run allows.

    Raises:
        ConfigError: a change that its training fixed.
        RunError: there is no such run.
    """
    from loraft.config.resolve import resolve
    from loraft.runs.bundle import config_of
    from loraft.runs.run import find_run, newest_finished

    refuse_fixed([f"--set {item}" for item in sets if not item.strip().startswith(CHANGEABLE)])
    folder = Path(output or "runs")
    with warnings_said():
        run = newest_finished(folder) if name is None else find_run(name, folder)
    own = config_of(run)  # also tells what is wrong in its file, before other flags are laid over it
    if not sets and not any(flags.values()):
        return run.path, own
    return run.path, resolve(base=own, overrides=sets, flags=flags)


def config_to_go_on(name: str, output: str | None) -> "Config":
    """The config of a training that goes on from a finished run: the run's own, for a run of another name.

    Its folder is that of all runs, since the run itself may be a trial of a sweep, or lie in the hub's cache. The name
    counts the rounds: the run's own is the first. One on the hub is named by its repository, and kept at its commit.

    Raises:
        RunError: there is no such run, or it is damaged.
    """
    from loraft.models.source import located, recorded
    from loraft.runs.bundle import config_of
    from loraft.runs.from_hub import HUB, short_name
    from loraft.runs.run import find_run

    run = find_run(name, Path(output or "runs"))
    own = located(run.adapter, config_of(run))
    start = os.path.realpath(run.path)
    if name.startswith(HUB):  # the folder in the cache has the name of the commit
        start = f"{name.partition('@')[0]}@{run.path.name}"
    name = short_name(start)
    stem, _, number = name.rpartition("-round")
    if not (stem and number.isdecimal()):
        stem, number = name, "1"
    changes = {
        "name": f"{stem}-round{int(number) + 1}",
        "output": own.output.model_copy(update={"folder": output or "runs"}),
        "train": own.train.model_copy(update={"from_run": start}),
        # The adapter belongs to the weights as they were rounded then, which `auto` may not do here.
        "model": own.model.model_copy(update={"dtype": recorded(run.adapter).get("dtype") or own.model.dtype}),
    }
    return own.model_copy(update=changes)


def refuse_beside_from(given: Mapping[str, object]) -> None:
    """Refuses flags that do not go with --from.

    Raises:
        ConfigError: if any are given.
    """
    flags = [flag for flag, value in given.items() if value is not None]
    if flags:
        raise ConfigError(
            f"--from and {', '.join(flags)}: the run's config is gone on with, for one adapter (got both); change keys"
            " with --set, or leave --from out"
        )


def made_elsewhere(
    adapter: Path,
    sets: Sequence[str],
    flags: dict[str, str | None],
    *,
    preset: str | None = None,
    config_file: Path | None = None,
) -> "Config":
    """The config for an adapter by itself; its backbone is the one that a flag names, else the adapter's own.

    Raises:
        BackboneError: the folder has no LoRA adapter, or neither it nor a flag names a backbone.
    """
    from loraft.config.resolve import resolve
    from loraft.errors import BackboneError
    from loraft.models.source import located, recorded
    from loraft.runs.peft_folder import CONFIG_FILE, read_peft_folder

    found = read_peft_folder(adapter)
    own: list[str] = []
    if flags.get("model.name") is None and not any(item.strip().startswith("model.name") for item in sets):
        if found.backbone is None:
            raise BackboneError(
                f"{adapter}: {CONFIG_FILE} names no backbone (got no base_model_name_or_path); use --model"
            )
        revision = found.revision or recorded(adapter).get("revision")  # peft does not write a run's
        own = [f"model.name={json.dumps(found.backbone)}", f"model.revision={json.dumps(revision)}"]
    config = resolve(preset=preset, config_file=config_file, overrides=[*own, *sets], flags=flags)
    return located(adapter, config) if own else config


def refuse_several(given: Mapping[str, object]) -> None:
    """Refuses more than one of flags that exclude each other.

    Raises:
        ConfigError: if more are given.
    """
    flags = [flag for flag, value in given.items() if value]
    if len(flags) > 1:
        raise ConfigError(
            f"{' and '.join(flags)}: each says what to load (got {len(flags)}); give one of them (a run's backbone: "
            "loraft eval --zero-shot --config RUN/config.yaml)"
        )


def refuse_fixed(
    fixed: Sequence[str],
    way: str = "loraft eval also takes a bare backbone, --zero-shot, or an adapter made elsewhere, --adapter",
) -> None:
    """Refuses flags that the training of a run has fixed.

    Args:
        fixed: the flags.
        way: what else can be done.

    Raises:
        ConfigError: if any are given.
    """
    if fixed:
        raise ConfigError(f"{', '.join(fixed)}: fixed by the run, which was trained with its own; leave it out ({way})")
