"""A search proposes the same trials however often it was interrupted, and only its best trial sees the test rows."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.config.yaml_io import dump_config
from loraft.errors import BackboneError, LoraftError, RunError
from loraft.evaluation import evaluate
from loraft.runs.run import Run, find_run
from loraft.runs.study_folders import SweepFolder
from loraft.studies import report
from loraft.studies.sweep import optuna_study, runner, search, tables
from loraft.studies.sweep.records import SweepResult, TrialRecord
from loraft.studies.sweep.space import parse_search
from loraft.training import on_validation, pipeline
from loraft.training.callbacks import ProgressCallback

optuna = pytest.importorskip("optuna")
pytestmark = pytest.mark.usefixtures("loads")

Searched = tuple[Path, SweepResult, list[str]]
SPACE = ("train.learning_rate=log:1e-4:1e-2", "lora.r=1,2,4")
SMALL = [
    "train.max_steps=4", "train.eval_steps=1", "train.logging_steps=1", "train.per_device_train_batch_size=4",
    "data.max_train_rows=24", "data.max_eval_rows=12", "data.max_test_rows=12", "eval.bootstrap_samples=100",
    "eval.baselines=off",
]  # fmt: skip


def config(output: Path, *space: str, trials: int = 3, overrides: Sequence[str] = ()) -> Config:
    flags = {"sweep.search": parse_search(space or SPACE), "sweep.ranks": [], "sweep.trials": trials}
    return resolve(overrides=[*SMALL, f"output={output}", "name=tìm", "sweep.prune=false", *overrides], flags=flags)


def states(output: Path) -> list[tuple[str, dict[str, Any], float | None]]:
    """What the journal holds of each trial."""
    study = optuna_study.opened(SweepFolder(output / "tìm"), config(output))
    return [(one.state.name, one.params, one.value) for one in study.trials]


def scored(record: TrialRecord) -> tuple[Any, ...]:
    measured = record.measured
    return record.name, record.status, None if measured is None else measured.scores


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, loads: list[Any]) -> Iterator[Searched]:
    """A finished search of three trials: its output folder, its result, and the splits that were judged."""
    output = tmp_path_factory.mktemp("searched")
    judged: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        judge = pipeline.judge
        patch.setattr(pipeline, "judge", lambda *a: judged.append(a[3].name) or judge(*a))
        yield output, runner.sweep(config(output), quiet=True), judged


def test_the_best_on_validation_alone_is_judged_on_test_and_once(
    searched: Searched,
) -> None:
    output, result, judged = searched
    assert judged == ["test", "test"]  # before and after, of the best one
    assert [trial.status for trial in result.trials] == ["finished"] * 3
    assert result.best is not None
    assert result.search is not None
    assert result.search.test is not None
    by_score = {one.name: one.measured.chosen_by for one in result.trials if one.measured is not None}
    assert by_score[result.best.name] == max(by_score.values())
    finished = [path.parent.name for path in (output / "tìm").glob("*/metrics.json")]
    assert finished == [result.best.name]
    with pytest.raises(RunError, match=rf"a search judges its best trial alone on test; {output}/tìm stands for that"):
        evaluate.evaluate(run=next(one.run for one in result.trials if one != result.best), split="test")
    run = find_run("tìm", output)
    again = evaluate.evaluate(run=run.path, split="test")
    assert result.search.test.scores == again.report.scores


def test_validation_scores_are_those_of_the_training(searched: Searched) -> None:
    for trial in searched[1].trials:
        assert trial.measured is not None
        assert trial.measured.scores["macro_f1"] == pytest.approx(trial.measured.validation_macro_f1)
        assert trial.measured.n == 12


def test_trials_are_compared_on_the_validation_rows(searched: Searched) -> None:
    result = searched[1]
    others = [row.measured for row in result.settings if row.measured is not None and row != result.best_setting]
    assert [one.versus_best.n for one in others if one.versus_best is not None] == [12, 12]
    notes = "\n".join(tables.sweep_notes(result))
    assert "trials: 3, of which 3 finished, 0 pruned, 0 failed, 0 proposed again" in notes
    assert "table of the trials: 12 validation rows" in notes
    assert "over 12 rows, which judged no other trial" in notes


def test_the_same_command_again_trains_and_judges_nothing(searched: Searched, loads: list[Any]) -> None:
    output, result, judged = searched
    before = len(judged), len(loads)
    assert runner.sweep(config(output), quiet=True) == result
    assert (len(judged), len(loads)) == before
    page = report.of_sweep(output / "tìm")
    assert any("12 validation rows" in part for part in page.sections[0][1] if isinstance(part, str))


class Killed(BaseException):
    """As if the process had gone: nothing catches it."""


@pytest.mark.integration
def test_a_search_that_was_killed_in_a_trial_and_extended_is_that_of_one_go(
    searched: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = searched[1]
    runner.sweep(config(tmp_path, trials=1), quiet=True)
    on_step_end, steps = ProgressCallback.on_step_end, []

    def killed(self: ProgressCallback, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        steps.append(state.global_step)
        if len(steps) == 3:
            raise Killed
        on_step_end(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ProgressCallback, "on_step_end", killed)
        with pytest.raises(Killed):
            runner.sweep(config(tmp_path), quiet=True)
    journal = SweepFolder(tmp_path / "tìm").journal_path
    journal.write_bytes(journal.read_bytes() + b'{"op_code":')  # and in the middle of a line
    Path(f"{journal}.lock").touch()
    assert [state for state, *_ in states(tmp_path)] == ["COMPLETE", "RUNNING"]
    result = runner.sweep(config(tmp_path), quiet=True)
    assert states(tmp_path) == states(searched[0])
    assert [*map(scored, result.trials)] == [*map(scored, whole.trials)]
    second = result.trials[1].measured
    assert second is not None
    assert second.resumed_from_step == 2


def test_settings_that_come_again_are_not_trained_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    train = search.train_on_validation
    monkeypatch.setattr(
        search, "train_on_validation", lambda run, *a, **k: trained.append(run.name) or train(run, *a, **k)
    )
    result = runner.sweep(config(tmp_path, "lora.r=1,2", trials=6), quiet=True)
    assert sorted(trained) == ["r1", "r2"]
    assert result.search is not None
    assert (result.search.proposed, result.search.repeated) == (6, 4)
    values = {params["lora.r"]: value for _, params, value in states(tmp_path)}
    assert all(value == values[params["lora.r"]] for _, params, value in states(tmp_path))


def test_a_trial_that_fails_or_falls_behind_is_recorded_and_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = on_validation.fit_adapter

    def fails(inputs: Any, trackers: Any, resume: bool, quiet: bool, run: Run, model: Any) -> Any:
        if run.name == "r1":
            raise RuntimeError("hết bộ nhớ")
        return fit(inputs, trackers, resume, quiet, run, model)

    monkeypatch.setattr(on_validation, "fit_adapter", fails)
    monkeypatch.setattr(optuna.trial.Trial, "should_prune", lambda trial: trial.params["lora.r"] == 1)  # rank 2
    given = config(tmp_path, "lora.r=1,2,4", trials=8, overrides=["sweep.prune=true"])
    result = runner.sweep(given, quiet=True)
    by_name = {trial.name: trial for trial in result.trials}
    assert {name: trial.status for name, trial in by_name.items()} == {
        "r1": "failed", "r2": "pruned", "r4": "finished",
    }  # fmt: skip
    assert by_name["r1"].error == "RuntimeError: hết bộ nhớ"
    assert (by_name["r2"].pruned_at, by_name["r2"].error) == (1, None)
    assert [trial.name for trial in result.failed] == ["r1"]
    assert result.best == by_name["r4"]
    before = states(tmp_path)
    # The first of the trials that failed is tried again by the same command, and not told to Optuna.
    assert {state for state, *_ in before} == {"COMPLETE", "PRUNED", "FAIL", "RUNNING"}
    assert not (tmp_path / "tìm" / "r2" / "checkpoints").exists()
    assert SweepResult.of(SweepFolder(tmp_path / "tìm")) == result
    assert "the same command runs failed trials again" in "\n".join(tables.sweep_notes(result))
    monkeypatch.setattr(on_validation, "fit_adapter", fit)
    again = {trial.name: trial for trial in runner.sweep(given, quiet=True).trials}
    assert (again["r1"].status, again["r1"].error) == ("finished", None)
    assert {name: again[name] for name in ("r2", "r4")} == {name: by_name[name] for name in ("r2", "r4")}
    assert [params for _, params, _ in states(tmp_path)] == [params for _, params, _ in before]
    assert not SweepFolder(tmp_path / "tìm").error_path("r1").exists()


def test_a_trial_whose_folder_is_gone_is_trained_again_as_the_message_of_a_damaged_one_says(tmp_path: Path) -> None:
    given, folder = config(tmp_path, trials=2), SweepFolder(tmp_path / "tìm")
    whole = runner.sweep(given, quiet=True)
    assert whole.best is not None
    winner, other = Run(Path(whole.best.run)), next(one for one in whole.trials if one != whole.best)
    winner.validated_path.write_text("{", encoding="utf-8")
    winner.results_path.unlink()
    damaged = {trial.name: trial for trial in runner.sweep(given, quiet=True).trials}
    assert str(damaged[winner.name].error).endswith("delete the folder and run the same command again")
    assert damaged[other.name] == other
    shutil.rmtree(winner.path)
    again = runner.sweep(given, quiet=True)
    assert [*map(scored, again.trials)] == [*map(scored, whole.trials)]
    assert again.best is not None
    assert again.best.name == winner.name
    winner.results_path.write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match="delete the folder and run the same command again"):
        runner.sweep(given, quiet=True)
    # It looked at test when the other one seemed the best; the result says so.
    assert again.search is not None
    assert again.search.looks == 2
    assert "rows, which judged 1 other trial, too" in "\n".join(tables.sweep_notes(again))
    folder.journal_path.unlink()
    for _ in range(2):
        with pytest.raises(RunError, match=r"optuna\.jsonl: is missing or empty, .*--force begins again"):
            runner.sweep(given, quiet=True)


def test_a_trial_that_was_killed_while_it_was_drawn_draws_the_rest_as_in_one_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = config(tmp_path, trials=1)
    monkeypatch.setattr(search, "attempt", lambda *a, **k: search.Failure("nothing is trained here"))
    runner.sweep(given, quiet=True)
    whole, journal = states(tmp_path)[0][1], SweepFolder(tmp_path / "tìm").journal_path
    lines = journal.read_bytes().splitlines(keepends=True)
    second = next(n for n, line in enumerate(lines) if b'"lora.r"' in line)
    journal.write_bytes(b"".join(lines[:second]))
    assert states(tmp_path)[0][1].keys() == {"train.learning_rate"}
    runner.sweep(given, quiet=True)
    assert states(tmp_path)[0][1] == whole


def test_a_trial_that_train_finished_after_its_search_was_killed_counts_with_its_score(
    searched: Searched, tmp_path: Path, loads: list[Any]
) -> None:
    whole = searched[1]
    assert whole.best is not None
    shutil.copytree(searched[0] / "tìm", tmp_path / "tìm")
    folder, winner = SweepFolder(tmp_path / "tìm"), Run(tmp_path / "tìm" / whole.best.name)
    winner.validated_path.unlink()  # as `loraft train --resume` leaves it
    lines = folder.journal_path.read_bytes().splitlines(keepends=True)
    number = [trial.name for trial in whole.trials].index(whole.best.name)
    told = f'"trial_id":{number},"state"'.encode()
    folder.journal_path.write_bytes(b"".join(line for line in lines if told not in line))
    assert states(tmp_path)[number][0] == "RUNNING"
    again = runner.sweep(config(tmp_path), quiet=True)
    assert [*map(scored, again.trials)] == [*map(scored, whole.trials)]
    assert states(tmp_path) == states(searched[0])


@pytest.mark.parametrize("space", [("lora.r=1,2,8", SPACE[0]), ("lora.r=1,2,4", "train.learning_rate=log:1e-4:1e-1"),
                                   ("lora.lora_alpha=8,16,32", SPACE[0])])  # fmt: skip
def test_a_space_that_was_changed_in_the_saved_config_is_refused(
    searched: Searched, tmp_path: Path, space: Sequence[str]
) -> None:
    shutil.copytree(searched[0] / "tìm", tmp_path / "tìm")
    SweepFolder(tmp_path / "tìm").config_path.write_text(dump_config(config(tmp_path, *space)), encoding="utf-8")
    with pytest.raises(RunError, match=r"optuna\.jsonl: trial 1 is of another space than sweep\.search; --force"):
        runner.sweep(config(tmp_path, *space), quiet=True)


@pytest.mark.integration
def test_a_pruned_trial_whose_process_was_killed_before_it_was_told_stays_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = config(tmp_path, "lora.r=1,2", trials=1, overrides=["sweep.prune=true"])

    def killed(*args: Any, **kwargs: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(optuna.trial.Trial, "should_prune", lambda trial: True)
        patch.setattr(on_validation.shutil, "rmtree", killed)
        with pytest.raises(Killed):
            runner.sweep(given, quiet=True)
    result = runner.sweep(given, quiet=True)
    assert [(trial.status, trial.pruned_at) for trial in result.trials] == [("pruned", 1)]
    assert result.best is None
    assert "trials: 1, of which 0 finished, 1 pruned" in "\n".join(tables.sweep_notes(result))


@pytest.mark.parametrize(("metric", "sign"), [("macro_f1", 1), ("mean_absolute_error", -1)])
def test_of_the_trials_that_came_so_far_the_better_half_goes_on(
    metric: str, sign: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optuna_study.Metric, "of", lambda config: type("", (), {"key": metric}))
    (tmp_path / "tìm").mkdir()
    study = optuna_study.opened(SweepFolder(tmp_path / "tìm"), config(tmp_path))

    def ends_after(*scores: float) -> int | None:
        trial = study.ask()
        for percent, score in zip((10, 25, 40, 50), scores, strict=False):
            trial.report(sign * score, percent)
            if trial.should_prune():
                return percent
        return None

    assert ends_after(0.1, 0.5, 0.1, 0.7) is None
    assert ends_after(0.9, 0.4) == 25
    assert ends_after(0.0, 0.8, 0.8, 0.6) == 50
    assert ends_after(0.0, 0.6, 0.0, 0.8) is None


@pytest.mark.integration
def test_another_space_in_the_folder_is_refused_and_force_begins_again(searched: Searched, tmp_path: Path) -> None:
    output = searched[0]
    with pytest.raises(RunError, match=r"another config:\n  sweep.search: (.|\n)*--force begins again"):
        runner.sweep(config(output, "lora.r=1,2,4"), quiet=True)
    runner.sweep(config(tmp_path, "lora.r=1,2", trials=1), quiet=True)
    again = runner.sweep(config(tmp_path, "lora.r=2,4", trials=1), quiet=True, force=True)
    assert len(states(tmp_path)) == len(again.trials) == 1


def test_a_backbone_that_cannot_be_loaded_is_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*sections: Any) -> Any:
        raise BackboneError("không có: no such backbone")

    monkeypatch.setattr("loraft.studies.sweep.shared_backbone.load_backbone", missing)
    with pytest.raises(BackboneError, match="no such backbone"):
        runner.sweep(config(tmp_path), quiet=True)
    assert states(tmp_path) == []


def test_a_name_of_no_backbone_in_the_space_is_no_trial(tmp_path: Path) -> None:
    names = f"model.name={resolve().model.name},không/có"
    with pytest.raises(BackboneError, match="không/có"):
        runner.sweep(config(tmp_path, names), quiet=True)
    assert states(tmp_path) == []


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(LoraftError, match=r"sweep --search: needs optuna .*pip install 'loraft\[search\]'"):
        runner.sweep(config(tmp_path), quiet=True)
    assert [*tmp_path.iterdir()] == []


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "tìm")
    folder.path.mkdir()
    folder.journal_path.write_text('{"op_code":\n{}\n', encoding="utf-8")
    with pytest.raises(RunError, match=r"optuna.jsonl: cannot be read .*--force begins again"):
        optuna_study.opened(folder, config(tmp_path))


def test_a_journal_is_replaced_only_where_a_killed_process_left_half_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tìm").mkdir()
    assert states(tmp_path) == []
    journal = SweepFolder(tmp_path / "tìm").journal_path
    whole = journal.read_bytes()

    def full(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert states(tmp_path) == []
    journal.write_bytes(whole + b'{"op_code":')
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            states(tmp_path)
    assert journal.read_bytes() == whole + b'{"op_code":'
    assert states(tmp_path) == []
    assert journal.read_bytes().startswith(whole)
    assert b'{"op_code":\n' not in journal.read_bytes()
    assert not journal.read_bytes().endswith(b'{"op_code":')
