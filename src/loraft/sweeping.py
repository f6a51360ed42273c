"""Which trials a sweep has, what they are called and how much they train: pure, and checked before anything loads.

A trial's config is an ordinary run's: it does not know of the sweep around it, so a sweep that grows keeps its runs.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from loraft.bundled import bundled_backbones
from loraft.config import Config, LoraSection, SweepConfig
from loraft.errors import ConfigError
from loraft.mistakes import known_keys, nearest, report
from loraft.resolving import FOLLOWERS, TASK_KEYS, resolve

DOTS = "..."
MOST_TERMS = 1000  # a longer progression is a typing mistake
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


def expand_integers(text: str, where: str) -> list[int]:
    """The whole numbers in a text, with `...` for the terms of an arithmetic or geometric progression.

    Args:
        text: numbers with commas between; before the dots at least two of them, after them at least one.
        where: the flag or key, for the message.

    Raises:
        ConfigError: with the expansions that were tried.
    """
    items = [item.strip() for item in text.replace("…", DOTS).split(",")]
    wrong = [item for item in items if item != DOTS and not re.fullmatch(r"[+-]?\d+", item)]
    if wrong:
        raise ConfigError(f"{where}: not a whole number (got {wrong[0]!r} in {text!r}); for example 1,2,4,...,128")
    if DOTS in items:
        at = items.index(DOTS)
        if DOTS in items[at + 1 :] or at < 2 or at + 1 == len(items):
            raise ConfigError(
                f"{where}: the dots stand for nothing certain (got {text!r}); give two numbers or more before them, "
                "one or more after, and dots once: 1,2,4,...,128"
            )
        numbers = _progression([int(item) for item in items[:at]], [int(item) for item in items[at + 1 :]], text, where)
    else:
        numbers = [int(item) for item in items]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        raise ConfigError(f"{where}: a number twice (got {twice[0]} in {text!r}); give each once")
    return numbers


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
            mistakes.append(f"--grid: not key=value,value (got {pair!r}); for example --grid train.learning_rate=1e-4,5e-4")
        elif key in grid:
            mistakes.append(f"--grid: the key {key} twice (got {pair!r}); give all its values at once")
        else:
            try:
                values = yaml.safe_load(f"[{text}]")
                values = expand_integers(text, f"--grid {key}") if DOTS in values or "…" in values else values
                # A list as one value stays text until it becomes part of a config.
                grid[key] = [yaml.dump(v, default_flow_style=True).strip() if isinstance(v, list) else v for v in values]
            except ConfigError as error:
                mistakes.append(str(error))
            except yaml.YAMLError:
                mistakes.append(f"--grid {key}: is no list of YAML values (got {text!r}); commas between, quotes around")
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
        trial = _with(config, dict(zip(axes, values, strict=True)))
        settings = {key: _value(trial, key) for key in axes}
        name = "-".join(_word(key, value, axes) for key, value in settings.items())
        trials.append(Trial(name, settings, trial.model_copy(update={"name": f"{folder}/{name}"})))
    return trials


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


def trainable_parameters(lora: LoraSection, backbone: Mapping[str, Any]) -> int | None:
    """How many weights an adapter trains: the sum of r (d_in + d_out) over its layers, and d_out more with DoRA.

    Args:
        lora: rank and target modules.
        backbone: its `config.json`.

    Returns:
        The count; None where the architecture is none of those whose layers are known here, or a target no layer.
    """
    layers = _linear_layers(backbone)
    if layers is None:
        return None
    targets = list(layers) if lora.target_modules == "all-linear" else lora.target_modules
    targets = ["q_proj", "v_proj"] if targets == "default" else targets  # peft's choice for these architectures
    if not set(targets) <= set(layers):
        return None
    per_block = sum(lora.r * sum(layers[name]) + lora.use_dora * layers[name][1] for name in set(targets))
    return int(per_block * backbone["num_hidden_layers"])


def read_backbone_config(name: str) -> dict[str, Any] | None:
    """The `config.json` of a bundled backbone or a local folder, None if it is neither."""
    path = Path(bundled_backbones().get(name, name)).expanduser() / "config.json"
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _linear_layers(backbone: Mapping[str, Any]) -> dict[str, tuple[int, int]] | None:
    """Inputs and outputs of the linear layers of one block, for the architectures that are built like Llama."""
    if backbone.get("model_type") not in ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"):
        return None
    hidden, inner, heads = (backbone[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads"))
    head = backbone.get("head_dim") or hidden // heads
    queries, keys = heads * head, (backbone.get("num_key_value_heads") or heads) * head
    return {
        "q_proj": (hidden, queries), "k_proj": (hidden, keys), "v_proj": (hidden, keys), "o_proj": (queries, hidden),
        "gate_proj": (hidden, inner), "up_proj": (hidden, inner), "down_proj": (inner, hidden),
    }  # fmt: skip


def _progression(head: list[int], tail: list[int], text: str, where: str) -> list[int]:
    a, b, last = head[0], head[1], tail[-1]
    tried = {"arithmetic": _terms(a, last, lambda x: x + (b - a), a != b)}
    tried["geometric"] = _terms(a, last, lambda x: x * Fraction(b, a), a != b and a > 0 and b > 0)
    fitting = {
        kind: terms
        for kind, terms in tried.items()
        if terms[: len(head)] == head and terms[-len(tail) :] == tail and len(terms) >= len(head) + len(tail)
        if all(term.denominator == 1 for term in terms)
    }
    shown = {kind: f"{kind} {_shown(terms)}" for kind, terms in tried.items() if terms}
    if len(fitting) == 2:
        raise ConfigError(
            f"{where}: the dots can be read in two ways (got {text!r}; tried {' or '.join(shown.values())}); give one "
            "more number before the dots"
        )
    if not fitting:
        raise ConfigError(
            f"{where}: no progression leads from the first numbers to the last (got {text!r}; tried "
            f"{' and '.join(shown.values()) or 'none, as the first numbers are equal'}); list the numbers without dots"
        )
    (terms,) = fitting.values()
    return [int(term) for term in terms]


def _terms(first: int, last: int, step: Any, moves: bool) -> list[Fraction]:
    """The progression up to `last`, or to the first term past it, at most MOST_TERMS and one more."""
    terms = [Fraction(first)] if moves else []
    while terms and len(terms) <= MOST_TERMS and terms[-1] != last:
        terms.append(step(terms[-1]))
        if (terms[-1] > last) == (terms[-1] > terms[-2]) and terms[-1] != last:
            break
    return terms


def _shown(terms: Sequence[Fraction]) -> str:
    words = [str(term) if term.denominator == 1 else f"{float(term):g}" for term in terms]
    words = words if len(words) <= 8 else [*words[:4], DOTS, *words[-2:]]
    return ", ".join(words) + (" and on" if len(terms) > MOST_TERMS else "")


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
    where = {RANK: "--ranks", SEED: "--seeds"}.get(key, f"--grid {key}")
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
            trial = _with(config, {key: value})
        except ValidationError as error:
            yield from report(error, Config, lambda _: where)
        except ConfigError as error:
            yield str(error)
        else:
            same = json.dumps(_value(trial, key))
            if same in seen:
                yield f"{where}: one value twice (got {seen[same]!r} and {value!r}); give each once"
            seen[same] = value


def _with(config: Config, settings: Mapping[str, Any]) -> Config:
    """The config with other values for some keys, and without the sweep that asked for them."""
    values = config.model_dump()
    values["sweep"] = SweepConfig().model_dump()
    for (section, leader), followers in FOLLOWERS.items():
        other = settings.get(f"{section}.{leader}", values[section][leader])
        if other != values[section][leader]:  # what was said of one task or source does not hold for another
            values[section] |= {follower: None for follower in followers}
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
    return Config.model_validate(values)


def _value(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _word(key: str, value: Any, keys: Mapping[str, Any]) -> str:
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
    unique = sum(other.split(".")[-1] == leaf for other in keys) == 1
    return f"{leaf if unique else key}={safe}"
