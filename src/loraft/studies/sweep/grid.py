"""From the `sweep` section of a config, or the flags `--ranks` and `--grid`, to the list of trials.

All keys and values are validated here, before data or a model is loaded.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, TypeVar

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
Value = TypeVar("Value")


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
    return keyed(pairs, "--grid", "key=value,value", "train.learning_rate=1e-4,5e-4", parse_values)


def keyed(
    pairs: Sequence[str], flag: str, form: str, example: str, read: Callable[[str, str], Value]
) -> dict[str, Value]:
    """What `read` makes of the text behind each key and of the flag with the key, in order.

    Args:
        pairs: texts of the `form`.
        flag: that they were given with, for messages.
        form: for messages, as `example`.
        example: of a pair.
        read: raises ConfigError or YAMLError for a text that it does not take.

    Raises:
        ConfigError: with every pair that cannot be read.
    """
    found: dict[str, Value] = {}
    mistakes: list[str] = []
    for pair in pairs:
        key, equals, text = (part.strip() for part in pair.partition("="))
        if not equals or not key or not text:
            mistakes.append(mistake(flag, f"not of the form {form}", pair, "", f"for example {flag} {example}"))
        elif key in found:
            what = f"the key {key} is given twice"
            mistakes.append(mistake(flag, what, pair, "", "give all its values at once"))
        else:
            try:
                found[key] = read(text, f"{flag} {key}")
            except ConfigError as error:
                mistakes.append(error.args[0])
    if mistakes:
        raise ConfigError(together(mistakes))
    return found


def parse_values(text: str, where: str) -> list[Any]:
    """The values in a text like `1e-4,5e-4`, written as in YAML; of whole numbers the dots stand for a progression.

    Raises:
        ConfigError: it is no list of YAML values, or no progression fits the dots.
    """
    try:
        values = parse(f"[{text}]")
    except yaml.YAMLError:
        hint = "put commas between the values and quotes around text"
        raise ConfigError(mistake(where, "not a list of YAML values", text, "", hint)) from None
    if DOTS in values or "…" in values:
        return [*expand_integers(text, where)]
    # A value that is itself a list is kept as YAML text; `_with` parses it into the config.
    return [yaml.dump(v, Dumper=Dumper, default_flow_style=True).strip() if isinstance(v, list) else v for v in values]


def expand(config: Config) -> list[Trial]:
    """The trials of `config.sweep`: one for every combination of ranks, grid values and seeds.

    Each has a valid config of its own. If the config has a grid but sets no ranks, the default ranks are not swept.

    Raises:
        ConfigError: with every key and value that cannot be swept; or a row has any number of labels; or a search
            proposes the trials, so that nobody can list them.
    """
    refuse_label_sets(config, "sweep")
    if config.sweep.search:
        got = ", ".join(config.sweep.search)
        raise ConfigError(f"--search: its trials cannot be listed beforehand (got {got}); list them with --grid")
    axes = _axes(config)
    trials_in_all = prod(len(values) for values in axes.values())
    if trials_in_all > MOST_TRIALS:
        raise ConfigError(f"sweep: too many trials (got {trials_in_all:,}); at most {MOST_TRIALS:,}")
    flags = {RANK: "--ranks", SEED: "--seeds"} | {key: f"--grid {key}" for key in config.sweep.grid}
    mistakes = [line for key, values in axes.items() for line in mistakes_of(config, key, values, flags[key])]
    if mistakes:
        raise ConfigError(together(mistakes))
    return [trial_with(config, dict(zip(axes, values, strict=True)), "--grid") for values in product(*axes.values())]


def refuse_script(config: Config) -> None:
    """Raises ConfigError where a script for SLURM cannot run the trials."""
    if config.sweep.search or config.sweep.engine != "local":
        other = "a search" if config.sweep.search else f"--engine {config.sweep.engine}"
        raise ConfigError(
            f"--emit slurm: the script runs each trial by itself, and all are known before (got {other} too); give one"
            " of them"
        )


def trial_with(config: Config, values: Mapping[str, Any], where: str) -> Trial:
    """The trial of a sweep with these values of the swept keys, by dotted key.

    Args:
        config: of the sweep.
        values: of the swept keys, in the order of the trial's name.
        where: the flag, for the message.

    Raises:
        ConfigError: the values do not go together.
    """
    trial = _with(config, values, where)
    settings = {key: value_of(trial, key) for key in values}
    name = shortened("-".join(_word(key, value) for key, value in settings.items()))
    refuse_missing_trackers(trial)
    return Trial(name, settings, trial.model_copy(update={"name": f"{sweep_name(config)}/{name}"}))


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
    kind, swept = ("search", config.sweep.search) if config.sweep.search else ("sweep", config.sweep.grid)
    return shortened("-".join([kind, *(part for key, part in parts.items() if key not in swept)]))


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


def mistakes_of(
    config: Config, key: str, values: Sequence[Any], where: str, fixed: Sequence[str] = ()
) -> Iterator[str]:
    """A message for each thing that is wrong with a key and its values; each value is tried alone.

    Args:
        config: of the sweep.
        key: that is swept.
        values: of the key; of a range both ends.
        where: the flag and the key.
        fixed: more keys, and prefixes of keys, that cannot be swept.
    """
    # Runs that are chosen by different metrics have no common score to choose the best by.
    known = [name for name in known_keys() if not name.startswith((*NOT_SWEPT, "train.metric", *fixed))]
    if key not in known:
        flag, what = where.partition(" ")[0], "unknown key"
        hint = nearest(key, known) or "`loraft config` shows the keys"
        if key in (*known_keys(), "output"):  # as --set takes it, too
            what = "cannot be searched" if flag == "--search" else "cannot be swept"
            hint = f"{_why_not(key)}; --set {key}=VALUE sets it for all trials"
        yield mistake(flag, what, key, "", hint)
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


def _why_not(key: str) -> str:
    if key == SEED:
        return "the best seed on validation is the luckiest one"
    if key.startswith((*NOT_SWEPT, "output")):
        return "no trial learns anything else by it"
    return "the trials would be judged on other rows or in another way, and not be comparable"


def _with(config: Config, settings: Mapping[str, Any], where: str) -> Config:
    """The config of a trial: the sweep's with the values of the dotted keys, and with the default `sweep` section."""
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
