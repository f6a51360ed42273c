"""What `loraft runs show` and `diff` print: one run in short, and in what two of them differ, from their files."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraft.config.diagnostics import known_keys, value_of
from loraft.config.resolve import load_config
from loraft.delivery.listing import INSIDE, Row, kind_of, rows_of, size_of, work_in
from loraft.errors import RunError
from loraft.models.calibration import NONE, Calibration
from loraft.runs.bundle import config_of
from loraft.runs.environment import Environment
from loraft.runs.folders import RunFolder
from loraft.runs.records import read_object, read_record, record_from
from loraft.runs.run import MANIFEST_FILE, Bundle, Run
from loraft.training.results import RunResult

# Of the config, what tells runs apart most often.
IN_SHORT = (
    "model.name", "model.revision", "quant.method", "data.source", "prompt.task", "lora.r", "lora.lora_alpha",
    "lora.target_modules", "train.learning_rate", "train.num_train_epochs", "train.max_steps",
    "train.per_device_train_batch_size", "train.gradient_accumulation_steps", "train.metric", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class Details:
    """A run or study in short.

    Attributes:
        row: as in the list.
        config: the values of `IN_SHORT` that are recorded; empty where there is no config.
        scores: of a finished run on the test split, as fractions, by their keys: before (None where it was not
            measured) and after the training.
        calibration: of a run's or bundle's probabilities; None without one.
        files: bytes of each file and folder in the directory.
        runs: the rows of the trials or folds in it.
        next: commands, or what to do, in words.
    """

    row: Row
    config: dict[str, Any]
    scores: dict[str, tuple[float | None, float]]
    files: dict[str, int]
    runs: tuple[Row, ...]
    next: tuple[str, ...]
    calibration: Calibration | None = None


@dataclass(frozen=True)
class Difference:
    """One value in which two runs differ; None where a run lacks it. `group` is config, data, version or score."""

    group: str
    key: str
    first: Any
    second: Any


def details(path: Path) -> Details:
    """One run or study in short.

    Raises:
        RunError: the directory holds neither.
    """
    kind, folder = work_in(path)
    parent = kind_of(path.parent)
    study = (f"{path.parent.name}/", INSIDE[parent[0]]) if parent is not None and parent[0] in INSIDE else ()
    row, *runs = rows_of(path, *study)
    config, scores, way, calibration = {}, {}, [folder.way_on], None
    if row.state in ("damaged", "failed"):
        way = [folder.mend]
    elif kind not in ("data", "export") and folder.begun:
        config = _config(folder)
    if row.state == "finished":
        quoted = shlex.quote(str(path))
        way = [f"loraft report {quoted}"]
        if isinstance(folder, Run):
            way = [f"loraft predict --run {quoted} --input FILE", f"loraft eval --run {quoted}"]
            way += [] if isinstance(folder, Bundle) else [f"loraft report {quoted}"]
            way = ["docs/export.md shows its use"] if kind == "export" else way
            scores = _scores(folder)
            calibration = _calibration(folder)
    return Details(
        row=row,
        config={key: config[key] for key in IN_SHORT if key in config},
        scores=scores,
        files={entry.name: size_of(entry) for entry in sorted(path.iterdir())},
        runs=tuple(runs),
        next=tuple(way),
        calibration=calibration,
    )


def differences(first: Path, second: Path) -> list[Difference]:
    """In what two runs differ: keys of the config that both recorded, fingerprints of the data, versions, and scores.

    Raises:
        LoraftError: a directory holds no run or study, or a file is damaged.
    """
    one, other = _facts(first), _facts(second)
    both = {group for group, _ in one} & {group for group, _ in other}  # a bundle has no versions
    return [
        Difference(*key, one.get(key), other.get(key))
        for key in dict.fromkeys((*one, *other))
        if key[0] in both and one.get(key) != other.get(key) and (key[0] != "config" or key in one.keys() & other)
    ]


def _facts(path: Path) -> dict[tuple[str, str], Any]:
    """Everything that is compared, by group and key."""
    kind, folder = work_in(path)
    if kind == "data":
        raise RunError(f"{path}: describes a data set, which has no config; name a run or a study of runs")
    config = _config(folder).items()
    found: dict[tuple[str, str], Any] = {
        ("config", key): value for key, value in config if key not in ("name", "output.folder")
    }
    if not isinstance(folder, Run):
        return found
    manifest = folder.adapter / MANIFEST_FILE
    if manifest.exists():
        content = read_object(manifest, folder.mend)
        data = content.get("data")
        prints = data.get("fingerprints", {}) if isinstance(data, dict) else {}
        found |= {("data", f"{split} rows"): str(value)[:12] for split, value in dict(prints).items()}
    if folder.environment_path.exists():
        made = read_record(folder.environment_path, Environment, folder.mend)
        versions = {"python": made.python, **made.packages, "commit of loraft": made.git_commit}
        found |= {("version", name): version for name, version in versions.items()}
    return found | {("score", key): value for key, (_, value) in _scores(folder).items()}


def _config(folder: RunFolder) -> dict[str, Any]:
    """The values of the config by their keys; of a bundle, which may hold only a part, without the defaults."""
    config = config_of(folder) if isinstance(folder, Run) else load_config(folder.config_path)
    found = {}
    for key in known_keys():
        section, _, name = key.rpartition(".")
        held = value_of(config, section) if section else config
        if not isinstance(folder, Bundle) or name in held.model_fields_set:
            found[key] = value_of(config, key)
    return found


def _calibration(run: Run) -> Calibration | None:
    path = run.adapter / MANIFEST_FILE
    found = read_object(path, run.mend).get("calibration") if path.exists() else None
    one = NONE if found is None else record_from(found, Calibration, path, run.mend)
    return None if one == NONE else one


def _scores(run: Run) -> dict[str, tuple[float | None, float]]:
    if isinstance(run, Bundle) or not run.finished:
        return {}
    result = RunResult.of(run)
    before = {} if result.before is None else result.before.scores
    return {key: (before.get(key), value) for key, value in result.after.scores.items()}
