"""From preset, file, flags and `--set key=value` to one resolved `Config`, or to one report of all mistakes.

Later layers win: preset, file, `--set`, flags. Nothing heavy is imported, so a mistyped key costs no waiting.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from loraft.config.diagnostics import as_section, mistake, nearest, report, show
from loraft.config.schema import Config, PromptConfig
from loraft.config.yaml_io import Loader, read_mapping, yaml_place
from loraft.errors import ConfigError

PACKAGE = Path(__file__).parents[1]
# The presets and tasks: inside an installed package or, in a checkout, at the top of the repository.
SHIPPED = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parents[1] / "configs"
TASKS = SHIPPED / "tasks"
WORKED_EXAMPLE = "configs/tasks/app-reviews.yaml"
# The keys of `prompt` that a task file holds.
TASK_KEYS = (
    "labels", "label_words", "label_column", "system", "template", "few_shot_template", "example_template",
    "answer_prefix",
)  # fmt: skip
# A revision belongs to the hub name beside it, labels and prompts to the task beside them.
FOLLOWERS = {
    ("prompt", "task"): TASK_KEYS,
    ("data", "source"): ("revision",),
    ("model", "name"): ("revision",),
}


@dataclass(frozen=True)
class Layer:
    """Values from one place, and how that place is called in a message."""

    origin: str
    values: dict[str, Any]


def resolve(
    *,
    preset: str | None = None,
    config_file: Path | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """The config that a command works with, every key of `prompt` filled in.

    Args:
        preset: name of a shipped preset; without one, what the file says, then `LORAFT_PRESET`, then quickstart.
        config_file: YAML with any part of the config; a run's `config.yaml` is one.
        overrides: `key=value` each, the value written as in YAML.
        flags: dotted key to value, None where a flag was not given.

    Raises:
        ConfigError: a file cannot be read; or anything is wrong with keys or values, all of it in one message.
    """
    mistakes: list[str] = []
    file = {} if config_file is None else read_mapping(config_file)
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    layers = [
        Layer(str(config_file), file),
        Layer("--set", _nest(_parse(overrides, mistakes), mistakes)),
        Layer("the command line", _nest({"preset": preset} if preset is not None else {}, mistakes)),
        Layer("the command line", _nest(given, mistakes)),
    ]
    layers.insert(0, _preset_layer(layers, mistakes))
    _drop_orphans(layers)
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merge(merged, layer.values, Config)
    task_layer = _fill_in_task(merged, config_file, mistakes)
    return _validated(merged, [task_layer, *layers], mistakes)


def load_resolved(path: Path) -> Config:
    """The config that `dump_yaml` wrote, untouched by presets and environment.

    Raises:
        ConfigError: the file is missing, is no YAML or does not fit this version's config.
    """
    values = read_mapping(path)
    return _validated(values, [Layer(str(path), values)], [])


def presets() -> dict[str, Path]:
    """The shipped presets, name to file."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def task_names() -> list[str]:
    """Names of the shipped tasks."""
    return sorted(path.stem for path in TASKS.glob("*.yaml"))


def _preset_layer(layers: Sequence[Layer], mistakes: list[str]) -> Layer:
    name, origin = os.environ.get("LORAFT_PRESET") or "quickstart", "LORAFT_PRESET"
    for layer in layers:
        if layer.values.get("preset") is not None:
            name, origin = layer.values.pop("preset"), layer.origin
    known = presets()
    if name in known:
        return Layer(f"preset {name}", {**read_mapping(known[name]), "preset": name})
    hint = f"{nearest(str(name), list(known))} allowed: {', '.join(known)}".strip()
    mistakes.append(mistake("preset", "unknown preset", name, origin, hint))
    return Layer("", {})


def _parse(overrides: Sequence[str], mistakes: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = (part.strip() for part in override.partition("="))
        if not equals or not key:
            mistakes.append(f"--set: not key=value (got {override!r}); for example --set train.learning_rate=1e-4")
            continue
        try:
            values[key] = yaml.load(text, Loader=Loader)
        except yaml.YAMLError as error:
            mistakes.append(
                f"{key}: is no valid YAML (got {text!r}, from --set: {yaml_place(error)}); put it in quotes"
            )
    return values


def _nest(dotted: Mapping[str, Any], mistakes: list[str]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in dotted.items():
        inside: Any = nested
        *sections, leaf = key.split(".")
        for section in sections:
            inside = inside.setdefault(section, {}) if isinstance(inside, dict) else inside
        if isinstance(inside, dict):
            inside[leaf] = value
        else:
            mistakes.append(f"{key}: its section is given as a value as well (got {show(inside)}); give one of the two")
    return nested


def _merge(base: Any, over: dict[str, Any], model: type[BaseModel]) -> Any:
    # Sections merge key by key; everything else, also the mapping of a sweep's grid, is replaced whole.
    if base is not None and not isinstance(base, dict):
        return base  # a value in the place of a section stays, so that validation reports it
    merged = dict(base or {})
    for key, value in over.items():
        info = model.model_fields.get(key)
        kind = as_section(info.annotation) if info is not None else None
        if kind is not None and (isinstance(value, dict) or value is None):
            merged[key] = _merge(merged.get(key), value or {}, kind)
        else:
            merged[key] = value
    return merged


def _drop_orphans(layers: Sequence[Layer]) -> None:
    # Where a later layer names another task or source, what an earlier one said about its own would silently be wrong.
    for (section, leader), followers in FOLLOWERS.items():
        blocks = [block for layer in layers if isinstance(block := layer.values.get(section), dict) and leader in block]
        for block in blocks:
            if block[leader] != blocks[-1][leader]:
                for follower in followers:
                    block.pop(follower, None)


def _fill_in_task(merged: dict[str, Any], config_file: Path | None, mistakes: list[str]) -> Layer:
    """Puts what the task says into the keys of `prompt` that nothing else sets; returns it as a layer."""
    prompt = merged.get("prompt")
    task = prompt.get("task") if isinstance(prompt, dict) else None
    given = {key for key in TASK_KEYS if isinstance(prompt, dict) and prompt.get(key) is not None}
    # Complete, a config stands for itself, also when its task file has moved since; wrong types are reported later.
    if not isinstance(prompt, dict) or not isinstance(task, str) or given == set(TASK_KEYS):
        return Layer("", {})
    try:
        own = _task_values(task, config_file)
    except ConfigError as error:
        mistakes.append(str(error))
        return Layer("", {})
    if "labels" in given:
        own["label_words"] = prompt["labels"] if _is_text(prompt["labels"]) else None  # not those of the task's labels
    prompt.update({key: value for key, value in own.items() if prompt.get(key) is None})

    words = prompt["label_words"] if _is_text(prompt["label_words"]) else []
    unnamed = [word for word in words if not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", str(prompt["template"]))]
    if given & {"labels", "label_words"} and "template" not in given and unnamed:
        mistakes.append(
            f"prompt.template: task {task}'s prompt does not offer the answer (got {unnamed[0]!r}); set prompt.template"
            f" and prompt.few_shot_template too, or write a task file like {WORKED_EXAMPLE}"
        )
    return Layer(f"task {task}", {"prompt": own})


def _is_text(words: Any) -> bool:
    return isinstance(words, list) and all(isinstance(word, str) for word in words)


def _task_values(task: str, config_file: Path | None) -> dict[str, Any]:
    folders = [Path(), *([config_file.parent] if config_file is not None else [])]
    candidates = [TASKS / f"{task}.yaml"] if task in task_names() else [folder / task for folder in folders]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        names = ", ".join(task_names())
        hint = f"{nearest(task, task_names())} allowed: {names}, or a YAML file like {WORKED_EXAMPLE}".strip()
        raise ConfigError(mistake("prompt.task", "no such task and no such file", task, "", hint))
    values = read_mapping(path)
    values.setdefault("label_column", path.stem)
    missing = [key for key in TASK_KEYS if values.get(key) is None and key != "label_words"]
    problems = [f"{path}: {key}: missing; see {WORKED_EXAMPLE}" for key in missing]
    try:
        PromptConfig.model_validate(values)
    except ValidationError as error:
        problems += [f"{path}: {line}" for line in report(error, PromptConfig, lambda key: "")]
    if problems:
        raise ConfigError("\n".join(problems))
    if values.get("label_words") is None:
        values["label_words"] = values["labels"]
    return values


def _validated(values: dict[str, Any], layers: Sequence[Layer], mistakes: Sequence[str]) -> Config:
    def origin(key: str) -> str:
        places = [layer.origin for layer in layers if _holds(layer.values, key)]
        return places[-1] if places else ""

    lines = list(mistakes)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        lines += report(error, Config, origin)
    if lines:
        raise ConfigError("\n".join(lines))
    return config


def _holds(values: Any, key: str) -> bool:
    first, dot, rest = key.partition("[")[0].partition(".")
    if not isinstance(values, dict) or (key not in values and first not in values):
        return False
    return key in values or not dot or _holds(values[first], rest)
