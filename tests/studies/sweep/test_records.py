"""`sweep.json` keeps the keys it always had, and is read back as the records that were written."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.sweeps import POLICY, answered, failed_trial, ranked, result, trial

from loraft.errors import RunError
from loraft.runs.records import SCHEMA_VERSION
from loraft.runs.study_folders import SweepFolder
from loraft.studies.sweep.records import SweepResult

SCORES = ["accuracy", "macro_f1", "macro_precision", "macro_recall", "weighted_f1", "mcc"]
SWEEP = ["kind", "path", "backbone", "quant", "data", "task", "labels", "keys", "alpha_policies", "confidence",
         "trials", "settings", "best_setting", "best", "baselines", "metric", "warnings", "search"]  # fmt: skip
TRIAL = ["name", "run", "settings", "alpha_policy", "status"]
MEASURED = [*SCORES, "intervals", "n", "trainable_parameters", "validation_macro_f1", "seconds", "resumed_from_step",
            "steps", "peak_memory_mib", "joint", "validation_score"]  # fmt: skip
SETTING = ["settings", "alpha_policy", "trials", "seeds", "failed"]
MEANS = [
    *SCORES,
    "validation_macro_f1",
    "trainable_parameters",
    "seconds",
    "peak_memory_mib",
    "versus_best",
    "validation_score",
]


def written(folder: Path, sweep: SweepResult) -> SweepFolder:
    """The folder of a sweep that finished with this result."""
    finished = SweepFolder(folder)
    finished.finish(sweep)
    return finished


def read(folder: SweepFolder) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(folder.results_path.read_text(encoding="utf-8"))
    return content


def test_the_file_carries_the_version_of_its_layout_and_flat_keys(tmp_path: Path) -> None:
    content = read(written(tmp_path, result((1, 2, 4), seeds=(1, 2), failed=("r1-s1", "r4-s1", "r4-s2"))))
    assert content["schema_version"] == SCHEMA_VERSION
    assert list(content) == ["schema_version", *SWEEP]
    failed, finished = content["trials"][:2]
    assert list(failed) == [*TRIAL, "error"]
    assert list(finished) == [*TRIAL, *MEASURED]
    assert [list(row) for row in content["settings"]] == [[*SETTING, *MEANS], [*SETTING, *MEANS], SETTING]
    assert list(content["best_setting"]) == [*SETTING, *MEANS]
    assert list(content["best"]) == [*TRIAL, *MEASURED]
    other = next(row for row in content["settings"][:2] if row["settings"] != content["best_setting"]["settings"])
    assert list(other["versus_best"]) == ["seeds", "n", "b", "c", "p_value", "p_holm", "same"]
    assert list(other["accuracy"]) == ["mean", "sd", "interval"]


@pytest.mark.parametrize(
    "options",
    [
        {"ranks": (1, 2)},
        {"ranks": (1, 2, 4), "seeds": (1, 2), "failed": ("r1-s1", "r4-s1", "r4-s2")},
        {"ranks": (1, 2), "failed": ("r1", "r2")},
    ],
    ids=["one seed", "several seeds, some failed", "all failed"],
)
def test_what_was_written_is_read_back(tmp_path: Path, options: dict[str, Any]) -> None:
    sweep = result(**options)
    assert SweepResult.of(written(tmp_path, sweep)) == sweep


def test_a_list_as_a_value_and_an_unknown_peak_are_read_back(tmp_path: Path) -> None:
    answers = answered([True, False])
    record = trial({"lora.target_modules": ["q_proj"]}, answers, 0.5, peak_memory_mib=None)
    sweep = ranked([record], {record.name: answers})
    assert SweepResult.of(written(tmp_path, sweep)) == sweep


def test_a_file_from_before_the_version_number_is_read(tmp_path: Path) -> None:
    sweep = result((1, 2))
    folder = written(tmp_path, sweep)
    content = read(folder)
    del content["schema_version"]
    for row in (*content["trials"], content["best"]):
        del row["joint"]  # of the first sweeps, in which every trial was trained alone
    folder.results_path.write_text(json.dumps(content), encoding="utf-8")
    assert SweepResult.of(folder) == sweep
    assert not any(record.measured.joint for record in SweepResult.of(folder).trials if record.measured is not None)


def test_a_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path, result((1, 2)))
    content = read(folder) | {"schema_version": SCHEMA_VERSION + 1}
    folder.results_path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RunError) as error:
        SweepResult.of(folder)
    assert str(error.value).startswith(f"{folder.results_path}: ")
    assert f"schema_version {SCHEMA_VERSION + 1}" in str(error.value)
    assert "upgrade loraft" in str(error.value)


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"status": "lost"}, "trials.0.status"),
        ({"seconds": None}, "trials.0.measured.seconds"),
        ({"accuracy": "high"}, "trials.0.measured.scores.accuracy"),
    ],
)
def test_a_damaged_file_is_refused_with_the_place(tmp_path: Path, changed: dict[str, Any], where: str) -> None:
    folder = written(tmp_path, result((1, 2)))
    content = read(folder)
    content["trials"][0] |= changed
    folder.results_path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RunError) as error:
        SweepResult.of(folder)
    assert str(error.value).startswith(f"{folder.results_path}: the value of '{where}' is damaged")


def test_a_sweep_that_is_not_finished_has_no_result(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the sweep is not finished"):
        SweepResult.of(SweepFolder(tmp_path))


def test_the_failed_trials_are_those_without_scores() -> None:
    good, bad = (trial({"lora.r": rank}, answered([True, False]), 0.5) for rank in (1, 2))
    sweep = ranked([good, failed_trial(bad)], {good.name: answered([True, False])})
    assert sweep.failed == [failed_trial(bad)]
    assert failed_trial(bad).to_json() == {"name": "r2", "run": "runs/quét/r2", "settings": {"lora.r": 2},
                                           "alpha_policy": POLICY, "status": "failed",
                                           "error": "RuntimeError: hết bộ nhớ <gpu>\nvà thêm"}  # fmt: skip
    assert good.measured is not None
    assert good.measured.scores["accuracy"] == 0.5
