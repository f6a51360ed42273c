"""What can be said about every key of the config, read from the schema and the presets: nothing is written twice.

`loraft config --describe`, the defaults and choices in the help pages, and completion are made of it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from loraft.config.diagnostics import known_keys, nearest, value_of
from loraft.config.names import show
from loraft.config.resolve import presets
from loraft.config.schema import Config
from loraft.config.yaml_io import read_mapping
from loraft.errors import ConfigError

KINDS = {"integer": "whole number", "number": "number", "string": "text", "null": "null", "object": "mapping"}


@dataclass(frozen=True)
class Key:
    """A key of the config.

    Attributes:
        key: with dots, such as `lora.r`.
        type: in words, with the bounds of numbers.
        bounds: of the number alone, such as `1 to 4096`; empty for anything else.
        choices: the allowed words; empty where there are others.
        examples: words to complete where others are allowed too.
        default: where neither preset nor task says otherwise.
        presets: the value in each preset that has another.
        description: one line.
    """

    key: str
    type: str
    bounds: str
    choices: tuple[str, ...]
    examples: tuple[str, ...]
    default: Any
    presets: Mapping[str, Any]
    description: str

    @property
    def default_words(self) -> str:
        """The default and those of presets, as YAML has them: `16; preset tutorial: 8`."""
        return "; ".join(
            [written(self.default), *(f"preset {name}: {written(value)}" for name, value in self.presets.items())]
        )

    @property
    def metavar(self) -> str:
        """What stands for its value on a help page."""
        return "|".join(self.choices) or ("NUMBER" if self.bounds else "TEXT")


@cache
def reference() -> dict[str, Key]:
    """Every key of the config with what is known about it, in the config's order."""
    schema, defaults = Config.model_json_schema(), Config()
    shipped = {name: read_mapping(path) for name, path in presets().items()}
    found = {}
    for key in known_keys():
        *sections, leaf = key.split(".")
        inside: Any = schema["properties"]
        for section in sections:
            inside = schema["$defs"][inside[section]["$ref"].rpartition("/")[2]]["properties"]
        own, default = inside[leaf], value_of(defaults, key)
        values = {name: _inside(values, key) for name, values in shipped.items()}
        others = {name: value for name, value in values.items() if value not in (None, default) and key != "preset"}
        kinds = own.get("anyOf", [own])
        bounds = next((bounds for kind in kinds if (bounds := _bounds(kind))), "")
        examples = tuple(own.get("examples", ()))
        found[key] = Key(key, _type(own), bounds, _choices(own), examples, default, others, own.get("description", ""))
    return found


def matching(name: str | None) -> list[Key]:
    """All keys, or the one of this name, or those of the section of this name.

    Raises:
        ConfigError: there is none.
    """
    known = reference()
    found = [one for key, one in known.items() if name is None or key == name or key.startswith(f"{name}.")]
    if not found and name is not None:
        sections = dict.fromkeys(key.partition(".")[0] for key in known)
        hint = nearest(name.lower(), [*known, *sections]) or "`loraft config --describe` lists all"
        raise ConfigError(f"--describe: unknown key or section (got {show(name)}); {hint}")
    return found


def written(value: Any) -> str:
    """A value as `--set` takes it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _inside(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _type(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if choices := _choices(schema):
        return " | ".join(choices)
    if "anyOf" in schema:
        return " or ".join(_type(kind) for kind in schema["anyOf"])
    if schema["type"] == "array":
        return f"list of: {_type(schema['items'])}"
    return " ".join(filter(None, (KINDS[schema["type"]], _bounds(schema))))


def _choices(schema: Mapping[str, Any]) -> tuple[str, ...]:
    return ("true", "false") if schema.get("type") == "boolean" else tuple(schema.get("enum", ()))


def _bounds(schema: Mapping[str, Any]) -> str:
    least, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    most, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if below is not None and schema.get("type") == "integer":
        most, below = below - 1, None
    low = _number(least) or (above is not None and f"above {_number(above)}")
    high = _number(most) or (below is not None and f"below {_number(below)}")
    return " to ".join(bound for bound in (low, high) if bound)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value == int(value) else f"{value:g}"
