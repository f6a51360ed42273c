"""Check before resuming that the config is the one that the work was begun with."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from loraft.config.diagnostics import known_keys
from loraft.config.resolve import load_config
from loraft.config.schema import Config
from loraft.errors import RunError

# Keys that do not change the results of a run: where values came from and where results go, and sections of studies.
OUTPUT_KEYS = ("preset", "output.", "name")
STUDY_SECTIONS = ("sweep.", "fewshot.")


def check_same_config(path: Path, config: Config, *, free: Collection[str], hint: str) -> None:
    """Raises an error if work was begun with another config than the present one.

    Args:
        path: file of the config that the work was begun with.
        config: the present config.
        free: keys that may differ; a key that ends in a dot stands for all keys of that section.
        hint: what the user can do, for the message.

    Raises:
        RunError: some keys differ; the message has one line for each.
        ConfigError: the file cannot be read.
    """
    begun = load_config(path)
    sections = tuple(key for key in free if key.endswith("."))
    keys = [key for key in known_keys() if key not in free and not key.startswith(sections)]
    changed = [
        f"  {key}: {old} then, {new} now" for key in keys if (old := _value(begun, key)) != (new := _value(config, key))
    ]
    if changed:
        raise RunError(f"{path.parent}: was begun with another config:\n" + "\n".join(changed) + f"\n{hint}")


def _value(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value
