"""Results of a run: written with their version, read as they were, refused where they are damaged."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.folders import run_result

from loraft.errors import RunError
from loraft.runs.records import SCHEMA_VERSION
from loraft.runs.run import Run
from loraft.training.results import JointShare, RunResult


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with results."""
    made = Run(tmp_path / "của em")
    made.finish(run_result(made)[0])
    return made


def edit(run: Run, **changes: Any) -> None:
    content = json.loads(run.results_path.read_text(encoding="utf-8"))
    run.results_path.write_text(json.dumps({**content, **changes}), encoding="utf-8")


def test_results_are_read_as_they_were_written(run: Run) -> None:
    result, _ = run_result(run)
    assert RunResult.of(run) == result
    joint = replace(result, before=None, train=replace(result.train, joint=JointShare("adapter2", 3, 61.5)))
    run.finish(joint)
    assert RunResult.of(run) == joint != result


def test_the_file_names_its_version_first(run: Run) -> None:
    content = json.loads(run.results_path.read_text(encoding="utf-8"))
    assert next(iter(content.items())) == ("schema_version", SCHEMA_VERSION)
    assert content["after"]["macro_f1"] == RunResult.of(run).after.macro_f1
    assert content["train"]["parameters"] == {"trainable": 1234567, "all": 9876543}


def test_results_of_a_later_version_are_refused_with_what_to_do(run: Run) -> None:
    edit(run, schema_version=SCHEMA_VERSION + 1)
    with pytest.raises(RunError, match=r"của em/metrics\.json: was written by a later .*; upgrade loraft"):
        RunResult.of(run)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"backbone": None}, "backbone"),
        ({"train": {}}, r"train\.seconds"),
        ({"after": {"accuracy": "nhiều"}}, r"after\."),
    ],
)
def test_damaged_results_are_one_error_that_names_the_key(run: Run, changes: dict[str, Any], where: str) -> None:
    edit(run, **changes)
    with pytest.raises(RunError, match=rf"metrics\.json: the (key|value of) .*{where}.*--force"):
        RunResult.of(run)


def test_a_missing_key_is_an_error_too(run: Run) -> None:
    content = json.loads(run.results_path.read_text(encoding="utf-8"))
    del content["labels"]
    run.results_path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RunError, match=r"metrics\.json: the key .labels. is missing"):
        RunResult.of(run)


def test_an_unfinished_run_has_no_results(run: Run) -> None:
    run.results_path.unlink()
    with pytest.raises(RunError, match="not finished"):
        RunResult.of(run)
