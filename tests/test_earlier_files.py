"""Files that version 0.1.0 wrote before its records had a version number: runs, sweeps, studies and data still load.

`fixtures/first_layout` was written at commit 2b89e4a by train, sweep, fewshot and data on a few bundled rows, with
`model.dtype=fp32` so that every machine can load it. `<kind>.md` is what `loraft report --markdown` printed of it.
"""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from loraft.config.resolve import load_config
from loraft.config.schema import OutputSection
from loraft.evaluation.choosing import TABLE_SCORES
from loraft.evaluation.evaluate import evaluate
from loraft.evaluation.predict import predict
from loraft.runs.predictions import read_rows
from loraft.runs.run import Run, find_run
from loraft.studies import report
from loraft.studies.compare.compare import compare
from loraft.studies.fewshot import study
from loraft.studies.sweep import local_engine, runner
from loraft.training.results import RunResult

FIXTURES = Path(__file__).parent / "fixtures" / "first_layout"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the folder `runs` as it was left."""
    return Path(shutil.copytree(FIXTURES, tmp_path / "runs"))


def tables(markdown: str) -> list[list[str]]:
    """The cells of all table rows in a Markdown text."""
    return [[cell.strip() for cell in line.split("|")] for line in markdown.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("kind", ["run", "sweep", "fewshot", "data"])
def test_the_report_has_the_tables_that_it_had(old: Path, kind: str) -> None:
    printed = (FIXTURES / f"{kind}.md").read_text(encoding="utf-8")
    expected = tables(printed.replace("| best step |", "| kept step |"))  # renamed since
    assert len(expected) > 3
    assert tables(report.markdown(old / kind)) == expected
    assert report.write_page(old / kind).is_file()


def test_a_run_answers_as_it_did(old: Path) -> None:
    run = Run.open(old / "run")
    found = evaluate(run=run.path)
    assert [row.predicted for row in found.rows] == [row.predicted for row in read_rows(run)]
    then = RunResult.of(run).after
    assert {score: found.report.scores[score] for score in then.scores} == pytest.approx(then.scores)
    assert found.report.log_loss == pytest.approx(then.log_loss, abs=1e-4)  # rounding differs between processors
    (one,) = predict("thầy dạy dễ hiểu", run=run.path)
    assert one.label == "positive"


@pytest.mark.parametrize("written", ["run/config.yaml", "sweep/sweep.yaml", "fewshot/fewshot.yaml"])
def test_text_that_looks_like_a_number_was_not_always_quoted(old: Path, written: str) -> None:
    values = load_config(old / written).model_dump()
    values["data"]["label_column"] = "0o7"
    values["prompt"] |= {"labels": ["08", "1e3"], "label_words": ["08", "1e3"], "date_string": "09"}
    (old / written).write_text(yaml.safe_dump(values), encoding="utf-8")  # PyYAML's rules, as earlier versions
    assert "label_column: 0o7\n" in (old / written).read_text(encoding="utf-8")
    assert load_config(old / written).model_dump() == values


def test_runs_of_then_can_be_compared(old: Path) -> None:
    found = compare([old / "run", old / "sweep" / "r2"])
    assert found.n == 24
    assert found.first.scores["accuracy"] == pytest.approx(0.75)  # of run.md


def test_a_finished_sweep_goes_on_without_training_anything(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_engine, "run_training", lambda *given, **named: pytest.fail("a trial was trained"))
    config = load_config(old / "sweep" / "sweep.yaml").model_copy(update={"output": OutputSection(folder=str(old))})
    result = runner.sweep(config, quiet=True)
    then = json.loads((FIXTURES / "sweep" / "sweep.json").read_text(encoding="utf-8"))
    assert [trial.status for trial in result.trials] == ["finished", "finished"]
    assert load_config(old / "sweep" / "sweep.yaml").data.calibration_share == 0  # and new trials have the same rows
    assert result.best is not None
    assert result.best.name == then["best"]["name"] == find_run("sweep", old).name


def test_a_few_shot_study_is_resumed_with_the_measurements_that_it_has(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loads in ("build", "load_run"):
        monkeypatch.setattr(study, loads, lambda *given: pytest.fail("a model was loaded"))
    config = load_config(old / "fewshot" / "fewshot.yaml").model_copy(update={"output": OutputSection(folder=str(old))})
    result = study.fewshot(config, run=old / "run", resume=True, quiet=True)
    then = json.loads((FIXTURES / "fewshot" / "fewshot.json").read_text(encoding="utf-8"))
    assert [row.name for row in result.rows] == [row["name"] for row in then["rows"]]
    assert [row.scores["macro_f1"].mean for row in result.rows] == [row["macro_f1"]["mean"] for row in then["rows"]]


def test_a_sweep_of_then_is_ranked_by_the_scores_that_its_runs_have(old: Path) -> None:
    config = load_config(old / "sweep" / "sweep.yaml").model_copy(update={"output": OutputSection(folder=str(old))})
    result = runner.sweep(config, quiet=True)
    assert result.best_setting is not None
    assert result.best_setting.measured is not None
    assert set(result.best_setting.measured.scores) == set(TABLE_SCORES)  # MCC was added since
