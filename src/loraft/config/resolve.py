"""Resolve preset, file, `--set key=value` and flags to one `Config`, or report all mistakes together.

Later layers win, in this order: preset, file, `--set`, flags. Nothing heavy is imported, so that a mistyped key is
reported at once.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from loraft.config.diagnostics import as_section, mistake, nearest, report, together
from loraft.config.names import flag_of, show
from loraft.config.prompt_section import PromptConfig
from loraft.config.schema import Config
from loraft.config.section import is_folder_alone, text_of
from loraft.config.wording import contradictions, with_words, worded
from loraft.config.yaml_io import parse, read_mapping, yaml_problem
from loraft.errors import ConfigError

PACKAGE = Path(__file__).parents[1]
# Presets and tasks are inside an installed package; in a checkout they are at the top of the repository.
SHIPPED = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parents[1] / "configs"
TASKS = SHIPPED / "tasks"
WORKED_EXAMPLE = TASKS / "app-reviews.yaml"
# The keys of `prompt` that a task file holds.
TASK_KEYS = (
    "labels", "label_words", "label_column", "system", "template", "few_shot_template", "example_template",
    "answer_prefix",
)  # fmt: skip
# Keys whose value belongs to another key's: revision and trust to model, encoding to file, labels and prompt to task.
DEPENDENT_KEYS = {
    ("prompt", "task"): (*TASK_KEYS, "id_columns", "kind", "yes_word", "no_word"),
    ("data", "source"): ("revision", "subset", "encoding", "delimiter", "sheet", "label_names", "extra_train"),
    ("model", "name"): ("revision", "trust_remote_code"),
}


@dataclass(frozen=True)
class Layer:
    """Values that one file or option sets, and its name in messages."""

    origin: str
    values: dict[str, Any]


def resolve(
    *,
    preset: str | None = None,
    config_file: str | Path | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    base: Config | None = None,
) -> Config:
    """The config that a command works with, with every key of `prompt` filled in from its task.

    Args:
        preset: name of a shipped preset; by default the file's, else that of `LORAFT_PRESET`, else quickstart.
        config_file: YAML with any part of the config; a run's `config.yaml` is one.
        overrides: `key=value` each, the value written as in YAML.
        flags: dotted key to value, None where a flag was not given.
        base: a whole config in place of the file, such as a run's.

    Raises:
        ConfigError: a file cannot be read; or keys or values are wrong, and then all of them are in one message.

    Examples:
        >>> import loraft
        >>> config = loraft.resolve(overrides=["lora.r=8"], flags={"quant.method": "nf4"})
        >>> config.lora.r, config.quant.method, config.prompt.labels
        (8, 'nf4', ['negative', 'neutral', 'positive'])
    """
    mistakes: list[str] = []
    config_file = None if config_file is None else Path(config_file)
    file = {} if config_file is None else read_mapping(config_file)
    file = file if base is None else base.model_dump()
    if file.get("output") is not None and is_folder_alone(file["output"]):
        file["output"] = {"folder": file["output"]}
    given = {key: value for key, value in {"preset": preset, **(flags or {})}.items() if value is not None}
    layers = [
        Layer(str(config_file), file),
        Layer("--set", _nest(_parse(overrides, mistakes), mistakes)),
        *(Layer(flag_of(key), _nest({key: value}, mistakes)) for key, value in given.items()),
    ]
    layers.insert(0, _preset_layer(layers, mistakes))
    _drop_dependent_keys(layers)
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merge(merged, layer.values, Config)
    task_layer = _fill_in_task(merged, config_file, mistakes)
    return _validated(merged, [task_layer, *layers], mistakes)


def load_config(path: str | Path) -> Config:
    """The config that `dump_config` wrote; no preset and no environment variable changes it.

    Raises:
        ConfigError: the file is missing, not YAML, not whole, or does not fit this version's config.

    Examples:
        >>> import loraft
        >>> loraft.load_config(f"{run}/config.yaml").lora.r
        1
    """
    return whole_config(read_mapping(Path(path)), path)


def whole_config(values: dict[str, Any], path: str | Path) -> Config:
    """The config of these values, which the file `path` holds; errors as in `load_config`."""
    found = _validated(values, [Layer(str(path), values)], [])
    if missing := [section for section in ("model", "lora", "data", "prompt", "train") if section not in values]:
        raise ConfigError(
            f"{path}: is not a whole config, as a run has one (lacks {', '.join(missing)}); copy the run again, or"
            " train it again with --force"
        )
    return found


def presets() -> dict[str, Path]:
    """Name and file of each shipped preset."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def tasks() -> dict[str, Path]:
    """Name and file of each shipped task."""
    return {path.stem: path for path in sorted(TASKS.glob("*.yaml"))}


def task_names() -> list[str]:
    """Names of the shipped tasks."""
    return list(tasks())


def _preset_layer(layers: Sequence[Layer], mistakes: list[str]) -> Layer:
    name, origin = os.environ.get("LORAFT_PRESET") or "quickstart", "LORAFT_PRESET"
    for layer in layers:
        if layer.values.get("preset") is not None:
            name, origin = layer.values.pop("preset"), layer.origin
    known = presets()
    if isinstance(name, str) and name in known:
        return Layer(f"preset {name}", {**read_mapping(known[name]), "preset": name})
    hint = f"{nearest(str(name), list(known))} allowed: {', '.join(known)}".strip()
    mistakes.append(mistake("preset", "unknown preset", name, origin, hint, is_key=True))
    return Layer("", {})


def _parse(overrides: Sequence[str], mistakes: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for override in overrides:
        key, equals, given = (part.strip(" \n") for part in override.partition("="))
        # A delimiter of CSV files by itself is text, although YAML would read a comment or the beginning of a block.
        text = json.dumps(given) if given in ("#", "|", "\t") else given.strip()
        if not equals or not all(key.split(".")):
            hint = "for example --set train.learning_rate=1e-4"
            mistakes.append(mistake("--set", "not key=value", override, "", hint))
            continue
        try:
            values[key] = parse(text)
        except yaml.YAMLError as error:
            hint = "put the value in quotes" if isinstance(error, yaml.MarkedYAMLError) else "remove it"
            mistakes.append(f"{key}: not valid YAML (got {show(text)}, from --set: {yaml_problem(error)}); {hint}")
    return values


def _nest(dotted: Mapping[str, Any], mistakes: list[str]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in dotted.items():
        inside: Any = nested
        key = "output.folder" if key == "output" and is_folder_alone(value) else key
        *sections, leaf = key.split(".")
        for section in sections:
            inside = inside.setdefault(section, {}) if isinstance(inside, dict) else inside
        if isinstance(inside, dict):
            inside[leaf] = value
        else:
            what = "its section is set to a value as well"
            mistakes.append(mistake(key, what, inside, "", "set one of the two"))
    return nested


def _merge(base: Any, over: dict[str, Any], model: type[BaseModel]) -> Any:
    # Sections merge key by key; everything else, such as the mapping `sweep.grid`, is replaced as a whole.
    if base is not None and not isinstance(base, dict):
        return base  # a value where a section belongs is kept, so that validation reports it
    merged = dict(base or {})
    for key, value in over.items():
        info = model.model_fields.get(key)
        kind = as_section(info.annotation) if info is not None else None
        if kind is not None and (isinstance(value, dict) or value is None):
            merged[key] = _merge(merged.get(key), value or {}, kind)
        else:
            merged[key] = value
    return merged


def _drop_dependent_keys(layers: Sequence[Layer]) -> None:
    # Where a later layer sets another task, source or model, an earlier layer's values for the keys that depend on its
    # own would silently be wrong: they are removed.
    for (section, key), dependent in DEPENDENT_KEYS.items():
        blocks = [block for layer in layers if isinstance(block := layer.values.get(section), dict) and key in block]
        for block in blocks:
            if block[key] != blocks[-1][key]:
                for name in dependent:
                    block.pop(name, None)


def _fill_in_task(merged: dict[str, Any], config_file: Path | None, mistakes: list[str]) -> Layer:
    """Fills the keys of `prompt` that no layer sets with the task's values, and returns these as a layer."""
    prompt = merged.get("prompt")
    task = text_of(prompt.get("task")) if isinstance(prompt, dict) else None
    given = {key for key in TASK_KEYS if isinstance(prompt, dict) and prompt.get(key) is not None}
    # Wrong types are reported by the validation.
    if not isinstance(prompt, dict) or not isinstance(task, str):
        return Layer("", {})
    own: dict[str, Any] = {}
    if given != set(TASK_KEYS):  # a complete prompt needs no task file, which may have moved since
        try:
            own = _task_values(task, config_file)
        except ConfigError as error:
            mistakes.append(str(error))
            return Layer("", {})
    if own and "labels" in given:
        # The task's words belong to the task's labels; other labels are their own words.
        own["label_words"] = _texts(prompt["labels"]) or None
        own["id_columns"] = None  # the user says what the ids mean
    if prompt.get("kind") == "multilabel" and own.get("kind") != "multilabel":
        own = _reworded(own, prompt)
    prompt.update({key: value for key, value in own.items() if prompt.get(key) is None})
    words = _texts(prompt["label_words"])
    for key in ("template", "few_shot_template"):
        if isinstance(prompt[key], str):
            prompt[key] = with_words(prompt[key], words)
    if not own:
        return Layer("", {})

    # With other labels or words, the task's template must still name every word that the model may answer.
    unnamed = [word for word in words if not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", str(prompt["template"]))]
    if given & {"labels", "label_words"} and "template" not in given and unnamed:
        mistakes.append(
            f"prompt.template: the prompt of task {task} does not name every label word (got {unnamed[0]!r}); set"
            f" prompt.template and prompt.few_shot_template too, or write a task file like {WORKED_EXAMPLE}"
        )
    mistakes += contradictions(prompt)
    return Layer(f"task {task}", {"prompt": own})


def _texts(words: Any) -> list[str]:
    """A list of texts; empty where the validation will report something else."""
    texts = [text_of(word) for word in words] if isinstance(words, list) else []
    return texts if all(isinstance(text, str) for text in texts) else []


def _reworded(own: dict[str, Any], prompt: Mapping[str, Any]) -> dict[str, Any]:
    """A task that asks for one label, as one that asks about each label: its texts are worded anew."""
    kept = {key: own.get(key) for key in ("labels", "label_words", "label_column", "id_columns", "system")}
    given = {key: text_of(prompt.get(key)) for key in ("kind", "labels", "label_words", "yes_word", "no_word")}
    values = kept | {key: value for key, value in given.items() if value is not None}
    for key in ("labels", "label_words"):
        values[key] = _texts(values[key]) or values[key]
    texts = all(isinstance(values[key], str) for key in ("yes_word", "no_word") if key in values)
    return worded(values) if texts and _texts(values["label_words"] or values["labels"]) else own


def _task_values(task: str, config_file: Path | None) -> dict[str, Any]:
    """The keys of `prompt` that a shipped task sets, or a file in the working folder or beside `config_file`."""
    folders = [Path(), *([config_file.parent] if config_file is not None else [])]
    candidates = [TASKS / f"{task}.yaml"] if task in task_names() else [folder / task for folder in folders]
    path = next((candidate for candidate in candidates if os.path.isfile(candidate)), None)
    if path is None:
        there = next((candidate for candidate in candidates if os.path.exists(candidate)), None)
        if there is not None and task.strip():
            hint = f"a task is a YAML file like {WORKED_EXAMPLE}"
            raise ConfigError(mistake("prompt.task", "exists, but is no file", task, "", hint))
        names = ", ".join(task_names())
        hint = f"{nearest(task, task_names())} allowed: {names}, or a YAML file like {WORKED_EXAMPLE}".strip()
        raise ConfigError(mistake("prompt.task", "no such task and no such file", task, "", hint))
    values = read_mapping(path)
    values.setdefault("label_column", path.stem)
    problems = [] if values.get("labels") is not None else [f"{path}: labels: missing; see {WORKED_EXAMPLE}"]
    try:
        checked = PromptConfig.model_validate(values)
        values = checked.model_dump(exclude_unset=True)
    except ValidationError as error:
        problems += [line.within(path) for line in report(error, PromptConfig, lambda key: "")]
    if problems:
        raise ConfigError(together(problems))
    return worded(values)


def _validated(values: dict[str, Any], layers: Sequence[Layer], mistakes: Sequence[str]) -> Config:
    """The config of these values; raises all mistakes together, the given ones first."""

    def origin(key: str) -> str:
        origins = [layer.origin for layer in layers if _holds(layer.values, key)]
        return origins[-1] if origins else ""

    lines = list(mistakes)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        told = {line.partition(": ")[0] for line in mistakes}
        lines += [line for line in report(error, Config, origin) if line.partition(": ")[0] not in told]
        prompt = values.get("prompt")
        if isinstance(prompt, dict) and prompt.get("labels") == prompt.get("label_words"):  # by default; told once
            lines = [line for line in lines if not line.startswith("prompt.label_words")]
    if lines:
        raise ConfigError(together(lines))
    return config


def _holds(values: Any, key: str) -> bool:
    """Whether nested values set a dotted key, which may end in a list index."""
    first, dot, rest = key.partition("[")[0].partition(".")
    if not isinstance(values, dict) or (key not in values and first not in values):
        return False
    return key in values or not dot or _holds(values[first], rest)
