"""Checks before resuming: that config and rows are those that the work was begun with, and where the work lies now."""

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from loraft.bundled import bundled_data
from loraft.config.diagnostics import known_keys, value_of
from loraft.config.resolve import load_config
from loraft.config.schema import Config
from loraft.errors import RunError
from loraft.runs.folders import RunFolder
from loraft.runs.records import read_object

# Keys that do not change the results of a run: where values came from and where results go, and sections of studies.
OUTPUT_KEYS = ("preset", "output.", "name", "train.report_to")
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
    begun = of_its_version(load_config(path), path)
    sections = tuple(key for key in free if key.endswith("."))
    keys = [key for key in known_keys() if key not in free and not key.startswith(sections)]
    changed = [
        f"  {key}: {old} then, {new} now"
        for key in keys
        if _place(key, old := value_of(begun, key)) != _place(key, new := value_of(config, key))
    ]
    if changed:
        raise RunError(f"{path.parent}: was begun with another config:\n" + "\n".join(changed) + f"\n{hint}")


def _place(key: str, value: Any) -> Any:
    """The value, and the folder or file itself where the data's source is one, however its path is spelled."""
    path = os.path.expanduser(value) if key == "data.source" and value not in bundled_data() else None
    return os.path.realpath(path) if path and os.path.exists(path) else value


def check_same_rows(path: Path, now: Mapping[str, str], *, hint: str) -> None:
    """Raises an error if work was begun with other rows than the present ones.

    Args:
        path: file of the fingerprints that the work was begun with; earlier versions did not write it.
        now: the fingerprint of each split.
        hint: what the user can do, for the message.

    Raises:
        RunError: some splits differ, or the file is damaged.
    """
    then = read_object(path, hint) if path.exists() else now
    changed = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    if changed:
        raise RunError(f"{path.parent}: was begun with other rows (got another {' and '.join(changed)} split); {hint}")


def of_its_version(config: Config, path: Path) -> Config:
    """The config for going on with work whose config is in a file; no rows are set aside if earlier ones were not.

    A version without the key let all validation rows choose the checkpoint, so that none can be set aside any more.
    """
    if not path.exists() or config.data.calibration_share is not None or config.data.fold is not None:
        return config
    if "calibration_share" in load_config(path).data.model_fields_set:
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"calibration_share": 0.0})})


def refuse_cut_off(file: Path | None, kind: type[RunFolder]) -> None:
    """Raises an error if a config file lies in a directory of work and is empty or not whole, as work wrote it.

    Defaults would take the place of what it lacks.

    Raises:
        ConfigError: it is so.
    """
    if file is not None and file.name == kind.config_file and kind(file.parent).recognised:
        load_config(file)


def where_it_lies(
    config: Config, file: Path | None, kind: type[RunFolder], usual: Callable[[Config], Path]
) -> dict[str, str]:
    """The keys `output` and `name` of a config file's directory, where that was renamed, moved or copied.

    The file still has the output and the name of before, and work that goes on with it would go on elsewhere.

    Args:
        config: the config that a command resolved.
        file: given with `--config`.
        kind: of the directories that the command works in.
        usual: the directory where the work of a config goes.

    Returns:
        No keys where the file is not the config of such a directory, where the directory is the one that the config
        names, and where the command line names another output or name than the file.
    """
    if file is None or file.name != kind.config_file or not kind(file.parent).recognised:
        return {}
    saved, folder = load_config(file), Path(os.path.abspath(file.parent))
    named_otherwise = (saved.output, saved.name) != (config.output, config.name)
    if named_otherwise or os.path.realpath(usual(saved)) == os.path.realpath(folder):
        return {}
    depth = 1 if saved.name is None else len(Path(saved.name).parts)  # a trial's name has that of its sweep before it
    output = folder.parents[min(depth, len(folder.parents)) - 1]
    if not file.is_absolute() and output.is_relative_to(Path.cwd()):
        return {"output": str(output.relative_to(Path.cwd())), "name": folder.relative_to(output).as_posix()}
    return {"output": str(output), "name": folder.relative_to(output).as_posix()}
