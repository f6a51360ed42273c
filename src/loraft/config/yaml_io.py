"""From preset, file, flags and `--set key=value` to one resolved `Config`, or to one report of all mistakes.

Later layers win: preset, file, `--set`, flags. Nothing heavy is imported, so a mistyped key costs no waiting.
"""

from pathlib import Path
from typing import Any

import yaml

from loraft.config.diagnostics import show
from loraft.config.schema import Config
from loraft.errors import ConfigError


def dump_yaml(config: Config) -> str:
    """The whole config as YAML; `load_resolved` gives back an equal one."""
    return yaml.dump(config.model_dump(), Dumper=Dumper, allow_unicode=True, sort_keys=False, width=120)


def read_mapping(path: Path) -> dict[str, Any]:
    """The YAML mapping in a file; an empty file is an empty one.

    Raises:
        ConfigError: no such file, not UTF-8, no YAML, a key twice, or something else than a mapping.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=Loader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a YAML file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is no valid YAML ({yaml_place(error)}); mend that place") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds no mapping (got {show(values)}); write `key: value` lines")
    return values


def yaml_place(error: yaml.YAMLError) -> str:
    """Line, column and problem of a YAML error; its whole text where it names no place."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())


class Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Builds a mapping as upstream does, after looking for repeated keys."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep)


class Dumper(yaml.SafeDumper):
    """SafeDumper that writes text of several lines as a block, so that the prompt in a config can be read."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    lines = text.replace("\n", "")
    # PyYAML cannot read back every rare line break (U+0085) that it writes; in double quotes it escapes them.
    style = '"' if lines and not lines.isprintable() else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Dumper.add_representer(str, _represent_text)
