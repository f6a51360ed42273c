"""Which trials a sweep has, what they are called and how much they train: pure, and checked before anything loads.

A trial's config is an ordinary run's: it does not know of the sweep around it, so a sweep that grows keeps its runs.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from loraft.config.diagnostics import known_keys, nearest, report
from loraft.config.resolve import FOLLOWERS, TASK_KEYS, load_resolved, resolve
from loraft.config.schema import Config, SweepConfig
from loraft.errors import ConfigError, RunError
from loraft.runs.run import Run
from loraft.studies.sweep.parameter_count import trainable_parameters
from loraft.studies.sweep.progression import DOTS, expand_integers

NOT_SWEPT = ("preset", "output", "name", "sweep.", "fewshot.")
RANK, SEED = "lora.r", "seed"


@dataclass(frozen=True)
class Trial:
    """One run of a sweep: its name inside the sweep, the swept keys with their values, and the config of the run."""

    name: str
    settings: dict[str, Any]
    config: Config


def expand_ranks(text: str) -> list[int]:
    """The ranks in a text like `1,2,4,...,128`: the dots are literal and stand for a progression.

    Raises:
        ConfigError: no whole numbers from 1, one of them twice, or dots that can be read in no or in two ways.
    """
    ranks = expand_integers(text, "--ranks")
    if min(ranks) < 1:
        raise ConfigError(f"--ranks: a rank is at least 1 (got {min(ranks)}); for example 1,2,4,...,128")
    return ranks


def parse_grid(pairs: Sequence[str]) -> dict[str, list[Any]]:
    """The values of each key in texts like `train.learning_rate=1e-4,5e-4`, written as in YAML.

    Raises:
        ConfigError: with every pair that cannot be read.
    """
    grid: dict[str, list[Any]] = {}
    mistakes: list[str] = []
    for pair in pairs:
        key, equals, text = (part.strip() for part in pair.partition("="))
        if not equals or not key or not text:
            mistakes.append(
                f"--grid: not key=value,value (got {pair!r}); for example --grid train.learning_rate=1e-4,5e-4"
            )
        elif key in grid:
            mistakes.append(f"--grid: the key {key} twice (got {pair!r}); give all its values at once")
        else:
            try:
                values = yaml.safe_load(f"[{text}]")
                values = expand_integers(text, f"--grid {key}") if DOTS in values or "…" in values else values
                # A list as one value stays text until it becomes part of a config.
                grid[key] = [
                    yaml.dump(v, default_flow_style=True).strip() if isinstance(v, list) else v for v in values
                ]
            except ConfigError as error:
                mistakes.append(str(error))
            except yaml.YAMLError:
                mistakes.append(
                    f"--grid {key}: is no list of YAML values (got {text!r}); commas between, quotes around"
                )
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return grid


def expand(config: Config) -> list[Trial]:
    """The trials of `config.sweep`, every combination of ranks, grid and seeds, each with a valid config of its own.

    Without ranks of its own in the config, a grid replaces the default ranks.

    Raises:
        ConfigError: with every key and value that cannot be swept.
    """
    axes = _axes(config)
    mistakes = [line for key, values in axes.items() for line in _mistakes_of(config, key, values)]
    if mistakes:
        raise ConfigError("\n".join(dict.fromkeys(mistakes)))
    folder = sweep_name(config)
    trials = []
    for values in product(*axes.values()):
        trial = _with(config, dict(zip(axes, values, strict=True)), "--grid")
        settings = {key: _value(trial, key) for key in axes}
        name = "-".join(_word(key, value) for key, value in settings.items())
        trials.append(Trial(name, settings, trial.model_copy(update={"name": f"{folder}/{name}"})))
    return trials


def is_finished(trial: Trial) -> bool:
    """Whether the trial's run is there and finished.

    Raises:
        RunError: it was begun with another config.
        ConfigError: its config cannot be read.
    """
    run = run_of(trial)
    if not run.config_path.is_file():
        return False
    now, then = (_flat(config) for config in (trial.config, load_resolved(run.config_path)))
    changed = [f"  {key}: {then.get(key)} then, {now[key]} now" for key in now if now[key] != then.get(key)]
    if changed:
        raise RunError(
            f"{run.path}: was begun with another config:\n" + "\n".join(changed) + "\n"
            "--force runs it again, --set name=NAME makes another sweep"
        )
    return run.finished


def plan(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """What a sweep would run: of each trial name, settings, alpha policy, trainable parameters and status.

    The parameters are None where `trainable_parameters` cannot tell.
    """
    return [
        {
            "name": trial.name,
            "settings": trial.settings,
            "alpha_policy": trial.config.lora.alpha_policy,
            "trainable_parameters": trainable_parameters(trial.config),
            "status": _status(trial),
        }
        for trial in trials
    ]


def _status(trial: Trial) -> str:
    try:
        return "finished" if is_finished(trial) else "begun" if run_of(trial).config_path.is_file() else "new"
    except ConfigError:
        return "damaged"


def run_of(trial: Trial) -> Run:
    """The trial's run directory, whether it is there or not."""
    return Run(Path(trial.config.output) / str(trial.config.name))


def sweep_name(config: Config) -> str:
    """The sweep's folder inside `output`: `name` if it is set, else made from what is not swept."""
    if config.name is not None:
        return config.name
    parts = {
        "model.name": Path(config.model.name).name,
        "data.source": Path(config.data.source).name,
        "prompt.task": Path(config.prompt.task).stem,
        "quant.method": "qlora" if config.quant.method == "nf4" else "lora",
    }
    return "-".join(["sweep", *(part for key, part in parts.items() if key not in config.sweep.grid)])


def _axes(config: Config) -> dict[str, list[Any]]:
    sweep = config.sweep
    ranks = [] if sweep.grid and "ranks" not in sweep.model_fields_set else sweep.ranks
    axes: dict[str, list[Any]] = {RANK: list(ranks)} if ranks else {}
    doubled = [key for key in (RANK, SEED) if key in sweep.grid and (key != RANK or ranks)]
    if doubled:
        raise ConfigError(f"--grid: has a flag of its own (got {doubled[0]}); give it with --ranks or --seeds alone")
    axes |= {key: list(values) for key, values in sweep.grid.items()}
    axes |= {SEED: list(sweep.seeds)} if sweep.seeds else {}
    if not axes:
        raise ConfigError("sweep: nothing to sweep (got no ranks, grid or seeds); for example --ranks 1,2,4,...,128")
    return axes


def _mistakes_of(config: Config, key: str, values: Sequence[Any]) -> Iterator[str]:
    """What is wrong with a key and its values, each tried alone."""
    where = f"--grid {key}" if key in config.sweep.grid else {RANK: "--ranks", SEED: "--seeds"}[key]
    known = [name for name in known_keys() if not name.startswith(NOT_SWEPT)]
    if key not in known:
        what = "cannot be swept" if key in known_keys() else "unknown key"
        yield f"--grid: {what} (got {key!r}); {nearest(key, known) or 'loraft config shows the keys'}"
        return
    if not values:
        yield f"{where}: no value (got an empty list); give one or more"
    seen: dict[str, Any] = {}
    for value in values:
        try:
            trial = _with(config, {key: value}, where)
        except ConfigError as error:
            yield str(error)
        else:
            same = json.dumps(_value(trial, key))
            if same in seen:
                yield f"{where}: one value twice (got {seen[same]!r} and {value!r}); give each once"
            seen[same] = value


def _with(config: Config, settings: Mapping[str, Any], where: str) -> Config:
    """The config with other values for some keys, and without the sweep that asked for them."""
    values = config.model_dump()
    values["sweep"] = SweepConfig().model_dump()
    for (section, leader), followers in FOLLOWERS.items():
        other = settings.get(f"{section}.{leader}", values[section][leader])
        if other != values[section][leader]:  # what was said of one task or source does not hold for another
            values[section] |= dict.fromkeys(followers)
            if (section, leader) == ("prompt", "task"):
                prompt = resolve(flags={"prompt.task": other}).prompt.model_dump()
                values["prompt"] |= {follower: prompt[follower] for follower in TASK_KEYS}
    for key, value in settings.items():
        inside = values
        *sections, leaf = key.split(".")
        for section in sections:
            inside = inside[section]
        is_list = isinstance(value, str) and value.startswith("[")
        inside[leaf] = yaml.safe_load(value) if is_list else value
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(report(error, Config, lambda _: where))) from None


def _flat(config: Config) -> dict[str, Any]:
    """Dotted keys and values of what decides a run's result: not where it lies or where its values came from."""
    keys = [key for key in known_keys() if not key.startswith(NOT_SWEPT)]
    return {key: _value(config, key) for key in keys}


def _value(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _word(key: str, value: Any) -> str:
    """The part of a trial's name that says the value of one key, fit for a folder on every system."""
    if isinstance(value, float):
        text = f"{value:g}" if float(f"{value:g}") == value else repr(value)
    else:
        text = "+".join(value) if isinstance(value, list) else str(value)
    safe = re.sub(r"[^\w.+-]", "_", text)[:40]
    if safe != text:  # two values must not share a folder
        safe += f"-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
    if key in (RANK, SEED):
        return f"{'r' if key == RANK else 's'}{safe}"
    leaf = key.split(".")[-1]
    unique = sum(other.split(".")[-1] == leaf for other in known_keys()) == 1
    return f"{leaf if unique else key}={safe}"
