"""Which run is meant: by its name, the newest, the best trial of a sweep; and what lies in its directory."""

import os
from pathlib import Path
from typing import Any

import pytest

from loraft.config.resolve import resolve
from loraft.errors import RunError
from loraft.runs.atomic_files import write_json, write_text
from loraft.runs.run import Run, WorkerRun, default_name, find_run, newest_finished, run_of


def make_run(output: Path, name: str, finished_at: int | None = None) -> Run:
    run = Run.create(output, name)
    write_text(run.config_path, "seed: 42\n")
    if finished_at is not None:
        run.finish({"accuracy": 0.5})
        os.utime(run.results_path, (finished_at, finished_at))
    return run


def test_newest_finished_goes_by_the_time_of_finishing(tmp_path: Path) -> None:
    make_run(tmp_path, "b", finished_at=2_000)
    make_run(tmp_path, "a", finished_at=3_000)
    make_run(tmp_path, "c")
    assert newest_finished(tmp_path).name == "a"


def test_a_replaced_run_is_no_candidate(tmp_path: Path) -> None:
    make_run(tmp_path, "a", finished_at=3_000)
    Run.create(tmp_path, "a", force=True)
    make_run(tmp_path, "b", finished_at=2_000)
    assert newest_finished(tmp_path).name == "b"


def test_no_finished_run_says_what_to_do_next(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"got none\); loraft train makes one"):
        newest_finished(tmp_path / "runs")
    make_run(tmp_path, "c")
    with pytest.raises(RunError, match=r"got 1 unfinished\); loraft train --resume"):
        newest_finished(tmp_path)


def test_a_run_is_found_by_name_by_path_and_inside_a_sweep(tmp_path: Path) -> None:
    for name in ("r16", "quét/r8"):
        run = make_run(tmp_path / "runs", name)
        assert find_run(name, tmp_path / "runs").path == run.path
        assert find_run(str(run.path), tmp_path / "elsewhere").path == run.path


def test_a_sweep_stands_for_its_best_trial(tmp_path: Path) -> None:
    best = make_run(tmp_path, "quét/r8")
    make_run(tmp_path, "quét/r1")
    (tmp_path / "quét" / "sweep.yaml").touch()
    says = r"quét: the sweep is not finished; loraft sweep --config .*quét/sweep.yaml'? continues it"
    with pytest.raises(RunError, match=says):
        find_run("quét", tmp_path)
    write_json(tmp_path / "quét" / "sweep.json", {"best": {"name": "r8"}})
    assert find_run("quét", tmp_path).path == best.path
    write_json(tmp_path / "quét" / "sweep.json", {"best": None})
    with pytest.raises(RunError, match=r"quét: no trial of the sweep finished; .*sweep\.json holds their errors"):
        find_run("quét", tmp_path)


@pytest.mark.parametrize("best", ["r8", {}, {"name": 8}])
def test_damaged_results_of_a_sweep_are_one_clear_error(tmp_path: Path, best: Any) -> None:
    write_json(tmp_path / "quét" / "sweep.json", {"best": best})
    (tmp_path / "quét" / "sweep.yaml").touch()
    with pytest.raises(RunError, match=r"sweep\.json: best must name a trial .*--force"):
        find_run("quét", tmp_path)


def test_a_mistyped_run_gets_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no such run .*there are no runs yet; loraft train makes one"):
        find_run("r8", tmp_path)
    make_run(tmp_path, "feedback-nf4-r16")
    with pytest.raises(RunError, match="did you mean feedback-nf4-r16"):
        find_run("feedback-nf4-r61", tmp_path)
    with pytest.raises(RunError, match="runs there: feedback-nf4-r16"):
        find_run("xyz", tmp_path)
    make_run(tmp_path / "quét", "r8")
    with pytest.raises(RunError, match="did you mean quét/r8"):
        find_run("r8", tmp_path)


def test_a_folder_without_config_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"not a run directory \(no config\.yaml"):
        Run.open(tmp_path)
    with pytest.raises(RunError, match="no such run"):
        Run.open(tmp_path / "không có")


def test_the_name_tells_apart_what_people_change() -> None:
    config = resolve(overrides=["data.source=dữ/góp-ý", "model.name=của/em", "lora.r=3", "seed=7"])
    assert default_name(config) == "em-góp-ý-sentiment-lora-r3-s7"
    changes = ["data.source=x", "model.name=x", "prompt.task=topic", "quant.method=nf4", "lora.r=5", "seed=1"]
    assert len({default_name(resolve(overrides=[change])) for change in changes}) == len(changes)
    assert default_name(resolve(overrides=["quant.method=nf4"])).split("-")[-3] == "qlora"


def test_a_config_names_its_run(tmp_path: Path) -> None:
    config = resolve(overrides=[f"output={tmp_path}", "name=của em"])
    assert run_of(config).path == tmp_path / "của em"
    unnamed = resolve(overrides=[f"output={tmp_path}"])
    assert run_of(unnamed).path == tmp_path / default_name(unnamed)


def test_the_command_that_continues_a_run_takes_its_path_with_spaces(tmp_path: Path) -> None:
    run = Run(tmp_path / "của em")
    assert run.how_to_resume == f"loraft train --resume --config '{run.config_path}'"


def test_the_files_of_a_run_have_fixed_names(tmp_path: Path) -> None:
    run = Run(tmp_path)
    files = [run.config_path, run.environment_path, run.log_path, run.checkpoints, run.adapter, run.predictions_path,
             run.explanations_path, run.before_path, run.plots, run.report_path, run.results_path]  # fmt: skip
    assert [path.relative_to(tmp_path).as_posix() for path in files] == [
        "config.yaml", "environment.json", "log.jsonl", "checkpoints", "adapter", "predictions.jsonl",
        "explanations.json", "before.json", "plots", "report.html", "metrics.json",
    ]  # fmt: skip


@pytest.mark.parametrize("labels", [None, "tốt", ["tốt", 3]])
def test_labels_come_from_the_results_and_must_be_names(tmp_path: Path, labels: Any) -> None:
    run = make_run(tmp_path, "r16")
    with pytest.raises(RunError, match="not finished"):
        run.read_labels()
    run.finish({"labels": ["xấu", "tốt"]})
    assert run.read_labels() == ("xấu", "tốt")
    run.finish({"labels": labels})
    with pytest.raises(RunError, match=r"metrics\.json: labels must be a list of names .*--force"):
        run.read_labels()


def test_another_process_reads_the_runs_checkpoints_and_writes_elsewhere(tmp_path: Path) -> None:
    run = make_run(tmp_path, "r16")
    worker = WorkerRun(run)
    assert worker.checkpoints == run.checkpoints
    worker.finish({})
    worker.discard()
    assert os.listdir(run.path) == ["config.yaml"]
    assert tmp_path not in worker.path.parents
