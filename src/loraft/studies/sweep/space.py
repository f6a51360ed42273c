"""The space of a search: from `--search` or `sweep.search` to the range or list of each key, all of it validated.

Read without optuna and torch: a mistake, and `--dry-run`, come back at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor, log10
from typing import Any, Literal

import yaml

from loraft.config.diagnostics import mistake, together, value_of
from loraft.config.kinds import refuse_label_sets
from loraft.config.names import Mistake, show
from loraft.config.schema import Config
from loraft.config.yaml_io import parse
from loraft.errors import ConfigError
from loraft.studies.sweep.grid import SEED, keyed, mistakes_of, parse_values, trial_with

DIGITS = 3  # significant ones of a drawn fraction: what a run's name and its config show
RANGES: dict[str, Literal["log", "uniform"]] = {"log": "log", "uniform": "uniform"}
FORMS = "for example log:1e-5:1e-2, 0:0.1 or 1,2,4,...,128"
# All trials have the same validation rows, labels and way of judging: their scores choose the best.
FIXED = (SEED, "data.", "eval.", "prompt.task", "prompt.kind", "prompt.labels", "prompt.label_column")


@dataclass(frozen=True)
class Axis:
    """The values of one key.

    Attributes:
        key: with dots.
        drawn: from a list; between two ends, uniformly, or uniformly in the logarithm.
        values: of a list all, of numbers in increasing order; of a range both ends.
    """

    key: str
    drawn: Literal["list", "uniform", "log"]
    values: tuple[Any, ...]

    @property
    def in_order(self) -> bool:
        """Whether neighbours in the list resemble each other, as numbers do."""
        return all(_is_number(value) for value in self.values)


def parse_search(pairs: Sequence[str]) -> dict[str, str]:
    """The range or list of each key, as text; `space` reads it.

    Args:
        pairs: texts like `train.learning_rate=log:1e-5:1e-2`.

    Raises:
        ConfigError: with every pair that is none, or whose key was given before.
    """
    return keyed(pairs, "--search", "key=values", "train.learning_rate=log:1e-5:1e-2", lambda text, where: text)


def space(config: Config) -> list[Axis]:
    """What a search draws from; each end of a range and each value of a list makes a valid config.

    Raises:
        ConfigError: with every key and value that cannot be searched; or the search is combined with a grid.
    """
    refuse_label_sets(config, "sweep --search")
    section = config.sweep
    flags = {"--ranks": "ranks" in section.model_fields_set and section.ranks, "--grid": section.grid,
             "--seeds": section.seeds, "--joint on": section.joint == "on"}  # fmt: skip
    for flag in (flag for flag, given in flags.items() if given):
        raise ConfigError(f"--search: a search makes its own trials, one after another (got {flag}, too); leave it out")
    axes, mistakes = [], []
    for key, text in section.search.items():
        where = f"--search {key}"
        try:
            axis = _axis(key, text, where)
        except ConfigError as error:
            mistakes.append(error.args[0])
            continue
        wrong = list(mistakes_of(config, key, axis.values, where, FIXED))
        if not wrong and axis.drawn != "list":
            # As the config takes them: fractions for a learning rate, whole numbers for a rank.
            ends = tuple(value_of(trial_with(config, {key: end}, where).config, key) for end in axis.values)
            axis = replace(axis, values=ends)
            if not all(map(_is_number, ends)):
                hint = "list the values, with commas between them"
                wrong = [Mistake(f"{where}: takes no numbers (got {show(text)})", hint)]
        mistakes += wrong
        axes.append(axis)
    if mistakes:
        raise ConfigError(together(mistakes))
    return axes


def rounded(value: float, low: float, high: float, *, log: bool) -> float:
    """A drawn fraction with `DIGITS` significant digits, of the range where it is no logarithm; never outside of it."""
    size = abs(value) if log else high - low
    decimals = DIGITS - 1 - floor(log10(size)) if size > 0 else 0
    return min(max(round(value, decimals), low), high)


def _axis(key: str, text: str, where: str) -> Axis:
    """The axis as it is written; its values are not validated."""
    items = text.split(",")
    if not any(map(_is_like_a_range, items)):
        values = parse_values(text, where)
        if len(values) == 1:
            raise ConfigError(mistake(where, "a list of one value", text, "", "--set gives a key one value"))
        return Axis(key, "list", tuple(sorted(values) if all(map(_is_number, values)) else values))
    first, *rest = text.split(":")
    drawn = RANGES.get(first.strip())
    ends = [number for part in (rest if drawn else [first, *rest]) if (number := _number(part)) is not None]
    if len(items) > 1 or len(ends) != 2 or len(rest) != (2 if drawn else 1):
        raise ConfigError(mistake(where, "not a range LOW:HIGH of two numbers", text, "", FORMS))
    if ends[0] == ends[1]:
        raise ConfigError(mistake(where, "a range of one value", text, "", "--set gives a key one value"))
    if ends[0] > ends[1]:
        raise ConfigError(mistake(where, "the range ends before it begins", text, "", "write LOW:HIGH"))
    if drawn == "log" and ends[0] <= 0:
        raise ConfigError(mistake(where, "no logarithm at the lower end", text, "", "begin above 0, or leave out log:"))
    return Axis(key, drawn or "uniform", tuple(ends))


def _is_like_a_range(item: str) -> bool:
    """Whether an item of a list is written as a range, with whatever numbers of ends."""
    first, *rest = item.split(":")
    return bool(rest) and (first.strip() in RANGES or all(_number(part) is not None for part in (first, *rest)))


def settings_of(axes: Sequence[Axis], drawn: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the keys, as the config takes them, from what Optuna holds of a trial.

    Args:
        axes: the space.
        drawn: by key: of a range the number, of numbers in order the place in the list, of other lists the value.
    """
    values: dict[str, Any] = {}
    for axis in axes:
        value = drawn[axis.key]
        if axis.drawn == "list":
            value = axis.values[value] if axis.in_order else value
        elif isinstance(value, float):
            value = rounded(value, *axis.values, log=axis.drawn == "log")
        values[axis.key] = value
    return values


def _number(text: str) -> int | float | None:
    try:
        (value,) = parse(f"[{text}]")
    except (ConfigError, yaml.YAMLError, ValueError):  # or not one item
        return None
    return value if _is_number(value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
