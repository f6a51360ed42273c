"""From the `sweep` section of a config, or the flags `--ranks` and `--grid`, to the list of trials.

All keys and values are validated here, before data or a model is loaded.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from loraft.config.diagnostics import known_keys, mistake, nearest, report, together, value_of
from loraft.config.kinds import refuse_label_sets
from loraft.config.names import Mistake, shortened, show
from loraft.config.resolve import DEPENDENT_KEYS, resolve
from loraft.config.schema import Config
from loraft.config.study_sections import SweepConfig
from loraft.config.trackers import refuse_missing_trackers
from loraft.config.yaml_io import Dumper, parse
from loraft.errors import ConfigError
from loraft.studies.sweep.progression import DOTS, expand_integers
from loraft.studies.sweep.trials import NOT_SWEPT, Trial

MOST_TRIALS = 10_000
RANK, SEED = "lora.r", "seed"


def expand_ranks(text: str) -> list[int]:
    """The ranks in a text like `1,2,4,...,128`, where the dots are typed as they are here and stand for a progression.

    Raises:
        ConfigError: an item is no whole number, or less than 1, or given twice; or no progression fits the dots, or
            two do.
    """
    ranks = expand_integers(text, "--ranks")
    if min(ranks) < 1:
        raise ConfigError(f"--ranks: a rank is at least 1 (got {min(ranks)}); for example 1,2,4,...,128")
    return ranks


def parse_grid(pairs: Sequence[str]) -> dict[str, list[Any]]:
    """The values of each key, in order.

    Args:
        pairs: texts like `train.learning_rate=1e-4,5e-4`, with the values written as in YAML.

    Raises:
        ConfigError: with every pair that cannot be read.
    """
    grid: dict[str, list[Any]] = {}
    mistakes: list[str] = []
    for pair in pairs:
        key, equals, text = (part.strip() for part in pair.partition("="))
        if not equals or not key or not text:
            hint = "for example --grid train.learning_rate=1e-4,5e-4"
            mistakes.append(mistake("--grid", "not of the form key=value,value", pair, "", hint))
        elif key in grid:
            what = f"the key {key} is given twice"
            mistakes.append(mistake("--grid", what, pair, "", "give all its values at once"))
        else:
            try:
                values = parse(f"[{text}]")
                values = expand_integers(text, f"--grid {key}") if DOTS in values or "…" in values else values
                # A value that is itself a list is kept as YAML text; `_with` parses it into the config.
                grid[key] = [
                    yaml.dump(v, Dumper=Dumper, default_flow_style=True).strip() if isinstance(v, list) else v
                    for v in values
                ]
            except ConfigError as error:
                mistakes.append(str(error))
            except yaml.YAMLError:
                hint = "put commas between the values and quotes around text"
                mistakes.append(mistake(f"--grid {key}", "not a list of YAML values", text, "", hint))
    if mistakes:
        raise ConfigError(together(mistakes))
    return grid


def expand(config: Config) -> list[Trial]:
    """The trials of `config.sweep`: one for every combination of ranks, grid values and seeds.

    Each has a valid config of its own. If the config has a grid but sets no ranks, the default ranks are not swept.

    Raises:
        ConfigError: with every key and value that cannot be swept; or a row has any number of labels.
    """
    refuse_label_sets(config, "sweep")
    axes = _axes(config)
    trials_in_all = prod(len(values) for values in axes.values())
    if trials_in_all > MOST_TRIALS:
        raise ConfigError(f"sweep: too many trials (got {trials_in_all:,}); at most {MOST_TRIALS:,}")
    mistakes = [line for key, values in axes.items() for line in _mistakes_of(config, key, values)]
    if mistakes:
        raise ConfigError(together(mistakes))
    folder = sweep_name(config)
    trials = []
    for values in product(*axes.values()):
        trial = _with(config, dict(zip(axes, values, strict=True)), "--grid")
        settings = {key: value_of(trial, key) for key in axes}
        name = shortened("-".join(_word(key, value) for key, value in settings.items()))
        refuse_missing_trackers(trial)
        trials.append(Trial(name, settings, trial.model_copy(update={"name": f"{folder}/{name}"})))
    return trials


def sweep_name(config: Config) -> str:
    """The name of the sweep's folder inside `output`: `name` if it is set, else made from the values not swept."""
    if config.name is not None:
        return config.name
    parts = {
        "model.name": Path(config.model.label).name,
        "data.source": Path(config.data.source).name,
        "prompt.task": Path(config.prompt.task).stem,
        "quant.method": "qlora" if config.quant.method == "nf4" else "lora",
    }
    return shortened("-".join(["sweep", *(part for key, part in parts.items() if key not in config.sweep.grid)]))


def _axes(config: Config) -> dict[str, list[Any]]:
    """The swept keys with their values, in the order of a trial's name: rank, grid, seed."""
    sweep = config.sweep
    ranks = [] if sweep.grid and "ranks" not in sweep.model_fields_set else sweep.ranks
    axes: dict[str, list[Any]] = {RANK: list(ranks)} if ranks else {}
    doubled = [key for key in (RANK, SEED) if key in sweep.grid and (key != RANK or ranks)]
    if doubled:
        raise ConfigError(f"--grid: this key has a flag of its own (got {doubled[0]}); use --ranks or --seeds instead")
    axes |= {key: list(values) for key, values in sweep.grid.items()}
    axes |= {SEED: list(sweep.seeds)} if sweep.seeds else {}
    if not axes:
        raise ConfigError("sweep: nothing to sweep (got no ranks, grid or seeds); for example --ranks 1,2,4,...,128")
    return axes


def _mistakes_of(config: Config, key: str, values: Sequence[Any]) -> Iterator[str]:
    """A message for each thing that is wrong with a key and its values; each value is tried alone."""
    where = f"--grid {key}" if key in config.sweep.grid else {RANK: "--ranks", SEED: "--seeds"}[key]
    # Runs that are chosen by different metrics have no common score to choose the best by.
    known = [name for name in known_keys() if not name.startswith((*NOT_SWEPT, "train.metric"))]
    if key not in known:
        what = "cannot be swept" if key in known_keys() else "unknown key"
        yield mistake("--grid", what, key, "", nearest(key, known) or "`loraft config` shows the keys")
        return
    if not values:
        yield Mistake(f"{where}: no value (got an empty list)", "give one or more")
    seen: dict[str, Any] = {}
    for value in values:
        try:
            trial = _with(config, {key: value}, where)
        except ConfigError as error:
            yield error.args[0]  # with its hint, where it is one mistake
        else:
            same = json.dumps(value_of(trial, key))
            if same in seen:
                what = f"{where}: the same value twice (got {show(seen[same])} and {show(value)})"
                yield Mistake(what, "give each once")
            seen[same] = value


def _with(config: Config, settings: Mapping[str, Any], where: str) -> Config:
    """The config of a trial: `config` with the values in `settings`, and with the default `sweep` section.

    Args:
        config: of the sweep.
        settings: dotted keys with their values.
        where: the flag, for the message.
    """
    values = config.model_dump()
    values["sweep"] = SweepConfig().model_dump()
    # Labels and prompts belong to a task, a revision belongs to a data source or a model. Where one of these three is
    # replaced, the values that belonged to the old one are reset; a new task brings its own.
    for (section, leader), followers in DEPENDENT_KEYS.items():
        other = settings.get(f"{section}.{leader}", values[section][leader])
        if other != values[section][leader]:
            for follower in followers:
                values[section].pop(follower, None)
            if (section, leader) == ("prompt", "task"):
                prompt = resolve(flags={"prompt.task": other}).prompt.model_dump()
                values["prompt"] |= {follower: prompt[follower] for follower in followers}
    for key, value in settings.items():
        inside = values
        *sections, leaf = key.split(".")
        for section in sections:
            inside = inside[section]
        is_list = isinstance(value, str) and value.startswith("[")
        try:
            inside[leaf] = parse(value) if is_list else value
        except yaml.YAMLError:
            raise ConfigError(f"{where}: not a list of YAML values (got {show(value)}); close its brackets") from None
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(together(report(error, Config, lambda _: where))) from None


def _word(key: str, value: Any) -> str:
    """The part of a trial's name for one key and value, in characters that every file system allows."""
    if isinstance(value, float):
        text = f"{value:g}" if float(f"{value:g}") == value else repr(value)
    else:
        text = "null" if value is None else "+".join(value) if isinstance(value, list) else str(value)
    safe = re.sub(r"[^\w.+-]", "_", text)[:40]
    if safe != text:  # different texts may look the same now; the hash keeps their folders apart
        safe += f"-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
    if key in (RANK, SEED):
        return f"{'r' if key == RANK else 's'}{safe}"
    leaf = key.split(".")[-1]
    unique = sum(other.split(".")[-1] == leaf for other in known_keys()) == 1
    return f"{leaf if unique else key}={safe}"
