"""A sweep's trials are the runs that `train` would make, over one backbone that stays as it is."""

import errno
import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import CONFIGS, backbone
from safetensors.torch import load_file

from loraft.config.resolve import load_config, resolve
from loraft.config.schema import Config, OutputSection
from loraft.data import dataset
from loraft.engine import scorer
from loraft.errors import BackboneError, DataError, NewerFileError, RunError
from loraft.evaluation import evaluate
from loraft.evaluation.predict import predict
from loraft.models.backbone import weights_hash
from loraft.runs.atomic_files import to_json
from loraft.runs.records import SCHEMA_VERSION, as_json, write_record
from loraft.runs.run import Run, newest_finished
from loraft.runs.study_folders import SweepFolder
from loraft.studies import report, run_report
from loraft.studies.sweep import conclusion, local_engine, runner, shared_backbone
from loraft.studies.sweep.grid import expand, parse_grid
from loraft.studies.sweep.records import SweepResult, TrialRecord, TrialScores
from loraft.training import pipeline
from loraft.training.callbacks import ProgressCallback
from loraft.training.pipeline import TrainingInputs
from loraft.training.results import RunResult

pytestmark = pytest.mark.usefixtures("loads")

SMALL = [
    "train.max_steps=4", "train.eval_steps=2", "train.logging_steps=1", "train.learning_rate=1e-2",
    "train.per_device_train_batch_size=4", "data.max_train_rows=24", "data.max_eval_rows=12", "data.max_test_rows=12",
    "eval.bootstrap_samples=100", "lora.lora_dropout=0.1",
]  # fmt: skip


def config(output: Path, *grid: str, overrides: tuple[str, ...] = (), **sweep: Any) -> Config:
    flags = {f"sweep.{key}": value for key, value in {"joint": "off", **sweep}.items()}
    flags |= {"sweep.grid": parse_grid(grid)} if grid else {}
    return resolve(overrides=[*SMALL, f"output={output}", *overrides], flags=flags)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, loads: list[Any]) -> tuple[Config, SweepResult]:
    """A finished sweep over three ranks."""
    loads.clear()
    section = config(tmp_path_factory.mktemp("swept"), ranks=[4, 1, 2])
    result = runner.sweep(section, quiet=True)
    assert len(loads) == 1
    assert weights_hash(loads[0]) == weights_hash(backbone())
    return section, result


def measured(trial: TrialRecord) -> TrialScores:
    """The scores of a trial that must have finished."""
    assert (trial.status, trial.error) == ("finished", None)
    assert trial.measured is not None
    return trial.measured


def best_of(result: SweepResult) -> TrialRecord:
    assert result.best is not None
    return result.best


def tensors(run: str | Path) -> dict[str, torch.Tensor]:
    return dict(load_file(Path(run) / "adapter" / "adapter_model.safetensors"))


def assert_same_run(a: str | Path, b: str | Path) -> None:
    left, right = tensors(a), tensors(b)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert (Path(a) / "predictions.jsonl").read_text("utf-8") == (Path(b) / "predictions.jsonl").read_text("utf-8")


@pytest.mark.parametrize("joint", ["off", "on"])
def test_data_is_read_once_for_all_trials_that_ask_for_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, joint: str
) -> None:
    read: list[str] = []
    load = dataset.load_split

    def counting(section: Any, split: str, **arguments: Any) -> Any:
        read.append(f"{split}, {section.max_train_rows}")
        return load(section, split, **arguments)

    monkeypatch.setattr(dataset, "load_split", counting)
    grid = "data.max_train_rows=20,24"
    result = runner.sweep(config(tmp_path, grid, ranks=[1, 2], joint=joint), quiet=True)
    assert [trial.status for trial in result.trials] == ["finished"] * 4
    assert sorted(read) == [f"{split}, {rows}" for split in ("test", "train", "validation") for rows in (20, 24)]


def test_each_trial_is_the_run_that_train_makes_of_its_config(
    swept: tuple[Config, SweepResult], tmp_path: Path
) -> None:
    for trial in swept[1].trials:
        alone = load_config(Path(trial.run) / "config.yaml").model_copy(
            update={"output": OutputSection(folder=str(tmp_path))}
        )
        assert_same_run(pipeline.train(alone, quiet=True).run, trial.run)


def test_the_record_of_a_trial_holds_what_its_run_measured(swept: tuple[Config, SweepResult]) -> None:
    for trial, rank in zip(swept[1].trials, (4, 1, 2), strict=True):
        after, scores = RunResult.of(Run.open(Path(trial.run))).after, measured(trial)
        assert (trial.name, trial.settings, trial.status) == (f"r{rank}", {"lora.r": rank}, "finished")
        assert (scores.scores, scores.intervals, scores.n) == (after.scores, after.intervals, 12)
        assert scores.trainable_parameters == rank * tiny_parameters()
        best = max(row["eval_macro_f1"] for row in Run(Path(trial.run)).read_log() if "eval_macro_f1" in row)
        assert scores.validation_macro_f1 == best
        assert scores.peak_memory_mib is not None
        assert scores.peak_memory_mib > 0
        assert (scores.resumed_from_step, scores.steps, scores.joint) == (None, 4, False)
    assert swept[1].best is not None
    of_best = RunResult.of(Run.open(Path(swept[1].best.run))).baselines
    assert of_best is not None
    assert swept[1].baselines == of_best


def tiny_parameters() -> int:
    """Of all linear layers, a unit of rank: d_in + d_out of two blocks of 32, 16 for keys and values, 48 inside."""
    return 2 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48))


def test_the_results_name_the_best_and_pair_the_others_with_it(swept: tuple[Config, SweepResult]) -> None:
    result = swept[1]
    best = best_of(result)
    assert measured(best).validation_macro_f1 == max(measured(trial).validation_macro_f1 for trial in result.trials)
    assert result.best_setting is not None
    assert result.best_setting.settings == best.settings
    for row in result.settings:
        assert row.measured is not None
        assert (row.measured.versus_best is None) == (row.settings == best.settings)
    assert result.alpha_policies == ("fixed, alpha 32",)
    assert [row.settings["lora.r"] for row in result.settings] == [4, 1, 2]
    assert (Path(result.path) / "plots" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert list(predict([], run=Path(best.run))) == []


def test_the_warnings_about_the_best_trial_are_those_of_the_sweep(swept: tuple[Config, SweepResult]) -> None:
    section, result = swept
    best = best_of(result)
    told = [f"{best.name}: {one}" for one in RunResult.of(Run(Path(best.run))).warnings]
    with pytest.warns(UserWarning, match=f"{best.name}: fewer than") as given:
        assert list(runner.sweep(section, quiet=True).warnings) == told
    assert [str(one.message) for one in given] == told
    assert dict(report.document(Path(result.path)).sections)["Warnings"] == told


def test_the_file_of_the_results_is_the_result_and_is_read_back_as_it(swept: tuple[Config, SweepResult]) -> None:
    result = swept[1]
    content = json.loads((Path(result.path) / "sweep.json").read_text(encoding="utf-8"))
    assert content == {"schema_version": SCHEMA_VERSION, **json.loads(to_json(as_json(result)))}
    assert SweepResult.of(SweepFolder(Path(result.path))) == result


def test_the_best_trial_has_its_figures_and_the_others_get_theirs_with_a_report(
    swept: tuple[Config, SweepResult],
) -> None:
    best = Path(best_of(swept[1]).run)
    drawn = {Path(trial.run) for trial in swept[1].trials if (Path(trial.run) / "plots").is_dir()}
    assert drawn == {best}
    other = next(Path(trial.run) for trial in swept[1].trials if Path(trial.run) != best)
    run_report.of_run(other)
    assert {path.name for path in (other / "plots").iterdir()} == {path.name for path in (best / "plots").iterdir()}
    shutil.rmtree(other / "plots")


def test_the_sweep_itself_is_no_run(swept: tuple[Config, SweepResult]) -> None:
    with pytest.raises(RunError, match="no finished run"):
        newest_finished(Path(swept[0].output.folder))


def no_space(*given: object, **flags: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_finished_trials_are_kept_and_more_ranks_train_only_those(
    swept: tuple[Config, SweepResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def counted(run: Run, inputs: TrainingInputs, **kwargs: Any) -> RunResult:
        trained.append(str(inputs.config.name))
        return pipeline.run_training(run, inputs, **kwargs)

    monkeypatch.setattr(local_engine, "run_training", counted)
    section, first = swept
    told: list[str] = []
    assert runner.sweep(section, quiet=True, tell=told.append) == first
    assert trained == []
    assert told == ["3 of 3 trials are finished already"]
    results = SweepFolder(Path(first.path)).results_path
    for asked in (section, section.model_copy(update={"sweep": section.sweep.model_copy(update={"ranks": [1, 9]})})):
        with monkeypatch.context() as full:
            full.setattr(runner, "keep_environment", no_space)
            with pytest.raises(OSError, match="No space"):
                runner.sweep(asked, quiet=True)
        assert results.is_file()
    more = section.model_copy(update={"sweep": section.sweep.model_copy(update={"ranks": [1, 2, 3, 4]})})
    result = runner.sweep(more, quiet=True)
    assert trained == ["sweep-loraft-vi-tiny-feedback-sentiment-lora/r3"]
    assert [trial.name for trial in result.trials] == ["r1", "r2", "r3", "r4"]
    runner.sweep(section, quiet=True)


def test_force_trains_finished_trials_again_from_their_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []

    def watched(run: Run, inputs: TrainingInputs, *, resume: bool, **kwargs: Any) -> RunResult:
        asked.append((run.name, resume))
        return pipeline.run_training(run, inputs, resume=resume, **kwargs)

    monkeypatch.setattr(local_engine, "run_training", watched)
    monkeypatch.setattr(runner, "draw_run_figures", lambda *given: None)
    section = config(tmp_path, ranks=[1])
    first = tensors(runner.sweep(section, quiet=True).trials[0].run)
    again = tensors(runner.sweep(section, force=True, quiet=True).trials[0].run)
    assert asked == [("r1", True), ("r1", False)]
    assert all(torch.equal(again[name], weight) for name, weight in first.items())


def test_joint_passes_are_kept_until_all_trials_are_runs_or_force_deletes_them(
    swept: tuple[Config, SweepResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    section, result = swept
    more = section.model_copy(update={"sweep": section.sweep.model_copy(update={"ranks": [64]})})
    joint = SweepFolder(Path(result.path)).joint_pass("1234")
    with monkeypatch.context() as patch:
        patch.setattr(local_engine, "run_training", stopping([]))
        write_record(joint.config_path, {"r64": "0"})
        runner.sweep(more, quiet=True)
        assert joint.path.is_dir()
        runner.sweep(more, force=True, quiet=True)
        assert not joint.path.exists()
    write_record(joint.config_path, {})
    runner.sweep(section, quiet=True)  # all of its trials are finished
    assert not joint.path.exists()


def test_a_run_without_a_validation_score_cannot_be_ranked(swept: tuple[Config, SweepResult]) -> None:
    result = RunResult.of(Run(Path(swept[1].trials[0].run)))
    with pytest.raises(RunError, match="validation_macro_f1"):
        conclusion.measured(result.after, replace(result.train, validation_macro_f1=None))


def test_another_config_under_the_same_name_is_refused_before_anything_runs(
    swept: tuple[Config, SweepResult],
) -> None:
    section, result = swept
    with pytest.raises(RunError, match=r"seed: 42 then, 43 now[\s\S]*--force"):
        runner.sweep(section.model_copy(update={"seed": 43}), quiet=True)
    assert (Path(result.path) / "sweep.json").exists()


def test_trials_of_other_rows_are_not_compared(swept: tuple[Config, SweepResult]) -> None:
    section, result = swept
    rows = Run(Path(result.trials[0].run)).rows_path
    kept = rows.read_text(encoding="utf-8")
    more = section.model_copy(update={"sweep": section.sweep.model_copy(update={"ranks": [1, 2, 4, 8]})})
    rows.write_text(kept.replace('"test": "', '"test": "0'), encoding="utf-8")
    with pytest.raises(RunError, match=r"was begun with other rows \(got another test split\)[\s\S]*--force"):
        runner.sweep(more, quiet=True)
    rows.write_text(kept, encoding="utf-8")


def test_the_file_of_a_sweep_makes_the_same_trials_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_engine, "run_training", stopping([]))
    for section in (config(tmp_path, "train.optim=adamw_torch,sgd"), config(tmp_path / "b", ranks=[1, 2])):
        result = runner.sweep(section, quiet=True)
        again = resolve(config_file=Path(result.path) / "sweep.yaml")
        assert [trial.config for trial in expand(again)] == [trial.config for trial in expand(section)]


def failing(which: Callable[[str], bool]) -> Callable[..., RunResult]:
    """`run_training` that fails for the trials of those names, in the middle of the last evaluation."""
    judge = evaluate.judge

    def broken(run: Run, inputs: TrainingInputs, **kwargs: Any) -> RunResult:
        def judge_and_fail(model: Any, *args: Any) -> Any:
            if which(str(inputs.config.name)) and hasattr(model, "peft_config"):
                raise RuntimeError("hết bộ nhớ")
            return judge(model, *args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline, "judge", judge_and_fail)
            return pipeline.run_training(run, inputs, **kwargs)

    return broken


def stopping(asked: list[str]) -> Callable[..., RunResult]:
    """`run_training` that fails at once; it puts the trial's name into the list."""

    def stopped(run: Run, inputs: TrainingInputs, **kwargs: Any) -> RunResult:
        asked.append(run.name)
        raise RuntimeError

    return stopped


def test_a_failing_trial_is_recorded_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: list[Any], swept: tuple[Config, SweepResult]
) -> None:
    loads.clear()
    told: list[str] = []
    section = config(tmp_path, ranks=[4, 1, 2])
    with monkeypatch.context() as patch:
        patch.setattr(local_engine, "run_training", failing(lambda name: name.endswith("r1")))
        result = runner.sweep(section, quiet=True, tell=told.append)
    assert [trial.status for trial in result.trials] == ["finished", "failed", "finished"]
    failed = result.trials[1]
    assert failed.error == "RuntimeError: hết bộ nhớ"
    assert "r1 failed: RuntimeError: hết bộ nhớ" in told
    error = Path(failed.run).parent / "errors" / f"{failed.name}.txt"
    assert error.read_text(encoding="utf-8").endswith("RuntimeError: hết bộ nhớ\n")
    assert len(loads) == 1  # the failed trial left the backbone bare

    result = runner.sweep(section, quiet=True)
    assert [trial.status for trial in result.trials] == ["finished"] * 3
    assert not error.exists()
    for one, other in zip(result.trials, swept[1].trials, strict=True):
        assert_same_run(one.run, other.run)


@pytest.mark.parametrize(
    ("file", "content"),
    [("metrics.json", "{"), ("metrics.json", "{}"), ("predictions.jsonl", "{}\n"), ("predictions.jsonl", None),
     ("config.yaml", "lora: [")],
)  # fmt: skip
def test_a_damaged_trial_is_recorded_as_failed_and_the_others_are_compared(
    swept: tuple[Config, SweepResult], monkeypatch: pytest.MonkeyPatch, file: str, content: str | None
) -> None:
    section, first = swept
    monkeypatch.setattr(runner, "draw_run_figures", lambda *given: None)
    run = Path(first.trials[1].run)
    whole = (run / file).read_bytes()
    (run / file).unlink()
    if content is not None:
        (run / file).write_text(content, encoding="utf-8")
    try:
        result = runner.sweep(section, quiet=True)
        damaged_file = json.loads((Path(result.path) / "sweep.json").read_text(encoding="utf-8"))
    finally:
        (run / file).write_bytes(whole)
    assert [trial.status for trial in result.trials] == ["finished", "failed", "finished"]
    assert str(result.trials[1].error).startswith(f"{run}: the run is damaged (")
    assert [row.seeds for row in result.settings] == [1, 0, 1]
    assert damaged_file == {"schema_version": SCHEMA_VERSION, **json.loads(to_json(as_json(result)))}
    assert runner.sweep(section, quiet=True) == first


def test_a_run_of_a_later_version_is_refused_before_anything_runs(swept: tuple[Config, SweepResult]) -> None:
    section, first = swept
    path = Run(Path(first.trials[1].run)).results_path
    whole = path.read_text(encoding="utf-8")
    path.write_text(json.dumps(json.loads(whole) | {"schema_version": SCHEMA_VERSION + 1}), encoding="utf-8")
    try:
        with pytest.raises(NewerFileError, match="upgrade loraft"):
            runner.sweep(section, quiet=True)
    finally:
        path.write_text(whole, encoding="utf-8")
    assert SweepResult.of(SweepFolder(Path(first.path))) == first  # the results are still there


def test_a_figure_that_cannot_be_drawn_costs_nothing_else(
    swept: tuple[Config, SweepResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    section, first = swept
    told: list[str] = []
    monkeypatch.setattr("loraft.studies.sweep.figures.sweep_curve", lambda *given: 1 / 0)
    assert runner.sweep(section, quiet=True, tell=told.append) == first
    assert (Path(first.path) / "sweep.json").is_file()
    assert any("figure cannot be drawn" in line for line in told)
    assert not (Path(first.path) / "plots" / "sweep.png").exists()  # nor is an older one left


def test_if_all_trials_fail_there_is_no_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_engine, "run_training", stopping([]))
    result = runner.sweep(config(tmp_path, ranks=[1, 2]), quiet=True)
    assert result.best is None
    assert {trial.status for trial in result.trials} == {"failed"}


def test_a_backbone_that_cannot_be_loaded_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def load(*sections: Any) -> Any:
        tries.append(1)
        raise BackboneError("model.name: không có")

    monkeypatch.setattr("loraft.studies.sweep.shared_backbone.load_backbone", load)
    result = runner.sweep(config(tmp_path, ranks=[1, 2, 3]), quiet=True)
    assert [trial.error for trial in result.trials] == ["model.name: không có"] * 3
    assert len(tries) == 1


def test_parameters_are_counted_on_the_backbone_of_each_trial(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("llama", "gpt_neox")]
    for folder in folders:
        CONFIGS[folder.name].save_pretrained(folder)
    trials = expand(config(tmp_path, f"model.name={','.join(map(str, folders))}", overrides=("lora.r=1",)))
    told: list[str] = []
    # d_in + d_out of gpt_neox's linear layers in each of two blocks: 32 to 96, 32 to 32, 32 to 48, 48 to 32.
    gpt_neox = 2 * (128 + 64 + 80 + 80)
    assert runner.count_parameters(trials, told.append) == [tiny_parameters(), gpt_neox]
    assert told == []


def test_data_that_cannot_be_read_is_told_before_anything_runs(tmp_path: Path, loads: list[Any]) -> None:
    loads.clear()
    with pytest.raises(DataError):
        runner.sweep(config(tmp_path, ranks=[1], overrides=(f"data.source={tmp_path}/none",)), quiet=True)
    assert loads == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_sweep_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "ghi-chu").mkdir()
    (tmp_path / "ghi-chu" / "note.txt").write_text("của tôi", encoding="utf-8")
    with pytest.raises(RunError, match="not of a sweep; choose another"):
        runner.sweep(config(tmp_path, ranks=[1], overrides=("name=ghi-chu",)), quiet=True)
    assert [path.name for path in (tmp_path / "ghi-chu").iterdir()] == ["note.txt"]


def test_a_trial_that_changes_the_backbone_makes_the_next_one_load_it_anew(tmp_path: Path, loads: list[Any]) -> None:
    loads.clear()
    told: list[str] = []
    grid = "lora.init_lora_weights=pissa,default"  # pissa takes the largest directions out of the weights
    result = runner.sweep(config(tmp_path / "a", grid, overrides=("lora.r=2",)), quiet=True, tell=told.append)
    assert result.failed == []  # for pissa that is no failure
    assert len(loads) == 2
    assert any("loaded again" in line for line in told)
    (trial,) = [trial for trial in result.trials if trial.settings["lora.init_lora_weights"] == "default"]
    alone = load_config(Path(trial.run) / "config.yaml").model_copy(
        update={"output": OutputSection(folder=str(tmp_path / "b"))}
    )
    assert_same_run(pipeline.train(alone, quiet=True).run, trial.run)


def test_a_trial_whose_training_changed_the_backbone_failed_and_is_trained_anew(
    tmp_path: Path, loads: list[Any], monkeypatch: pytest.MonkeyPatch, swept: tuple[Config, SweepResult]
) -> None:
    loads.clear()

    def careless(run: Run, inputs: TrainingInputs, **kwargs: Any) -> RunResult:
        result = pipeline.run_training(run, inputs, **kwargs)
        if run.name == "r4":
            with torch.no_grad():
                next(loads[-1].parameters())[0, 0] += 1e-3
        return result

    section = config(tmp_path, ranks=[4, 1])
    with monkeypatch.context() as patch:
        patch.setattr(local_engine, "run_training", careless)
        result = runner.sweep(section, quiet=True)
    assert [trial.status for trial in result.trials] == ["failed", "finished"]
    assert "changed weights of the frozen backbone" in str(result.trials[0].error)
    assert len(loads) == 2
    assert_same_run(result.trials[1].run, swept[1].trials[1].run)
    assert not Run(Path(result.trials[0].run)).finished  # so predict does not take it
    again = runner.sweep(section, quiet=True).trials[0]
    assert measured(again).resumed_from_step is None
    assert_same_run(again.run, swept[1].trials[0].run)


def test_a_backbone_that_cannot_be_checked_is_loaded_again(
    tmp_path: Path, loads: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads.clear()
    hashed, broken = weights_hash, []

    def once(base: Any) -> str:
        if any(tmp_path.glob("*/r4/metrics.json")) and not broken:
            broken.append(base)
            raise RuntimeError("CUDA error")
        return hashed(base)

    monkeypatch.setattr(shared_backbone, "weights_hash", once)
    told: list[str] = []
    result = runner.sweep(config(tmp_path, ranks=[4, 1]), quiet=True, tell=told.append)
    assert [trial.status for trial in result.trials] == ["failed", "finished"]
    assert any("cannot be checked (RuntimeError: CUDA error)" in line for line in told)
    assert len(loads) == 2


def test_trials_of_one_backbone_follow_each_other(
    tmp_path: Path, loads: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads.clear()
    order: list[str] = []
    monkeypatch.setattr(local_engine, "run_training", stopping(order))
    runner.sweep(config(tmp_path, "model.dtype=fp32,auto", "train.optim=sgd,adamw_torch"), quiet=True)
    assert len(loads) == 2
    assert [name.split("-")[0] for name in order] in (["dtype=auto"] * 2 + ["dtype=fp32"] * 2,)


def test_the_backbone_is_judged_once_for_all_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[bool] = []
    judge = evaluate.judge
    monkeypatch.setattr(
        pipeline, "judge", lambda model, *args: judged.append(hasattr(model, "peft_config")) or judge(model, *args)
    )
    result = runner.sweep(config(tmp_path, ranks=[1, 2]), quiet=True)
    assert judged == [False, True, True]
    before = [json.loads((Path(trial.run) / "before.json").read_text("utf-8")) for trial in result.trials]
    assert before[0] == before[1]


@pytest.mark.parametrize("step", [3, 4])
def test_an_interrupted_sweep_loses_no_step_and_ends_like_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swept: tuple[Config, SweepResult], step: int
) -> None:
    section = config(tmp_path, ranks=[4, 1])
    on_step_end, finished = ProgressCallback.on_step_end, []

    def interrupting(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        on_step_end(self, args, state, control, **kwargs)
        finished.append(state.global_step)
        if len(finished) == 4 + step:  # in the second trial
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ProgressCallback, "on_step_end", interrupting)
    with pytest.raises(KeyboardInterrupt):
        runner.sweep(section, quiet=True)
    folder = next(tmp_path.iterdir())
    assert not (folder / "sweep.json").exists()
    trial = folder / "r1"
    assert (trial / "checkpoints" / f"checkpoint-{step}").is_dir()
    finished[:] = [0] * 100

    result = runner.sweep(section, quiet=True)
    assert finished[100:] == list(range(step + 1, 5))
    assert measured(result.trials[1]).resumed_from_step == step
    for one, other in zip(result.trials, swept[1].trials, strict=False):
        assert_same_run(one.run, other.run)
        assert measured(one).validation_macro_f1 == measured(other).validation_macro_f1
        assert measured(one).steps == 4


def test_early_stopping_is_not_undone_by_an_interruption_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = (
        "train.max_steps=20",
        "train.eval_steps=1",
        "train.early_stopping_patience=1",
        "train.learning_rate=1e-9",
    )
    section = config(tmp_path, ranks=[1], overrides=stopping)
    with monkeypatch.context() as patch:
        patch.setattr(local_engine, "run_training", failing(lambda name: True))
        assert runner.sweep(section, quiet=True).trials[0].status == "failed"
    scores = measured(runner.sweep(section, quiet=True).trials[0])
    assert scores.resumed_from_step == scores.steps == 2


def test_a_killed_process_goes_on_from_its_last_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swept: tuple[Config, SweepResult]
) -> None:
    section = config(tmp_path, ranks=[4])
    score, calls = scorer.score, 0

    def killed(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:  # the backbone's test rows, the validation rows at step 2, and then at step 4
            raise SystemExit(9)
        return score(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(scorer, "score", killed)
        with pytest.raises(SystemExit):
            runner.sweep(section, quiet=True)
    trial = next(tmp_path.iterdir()) / "r4"
    (trial / "checkpoints" / "checkpoint-4").mkdir()  # what a kill in the middle of saving leaves
    result = runner.sweep(section, quiet=True)
    assert measured(result.trials[0]).resumed_from_step == 2
    assert_same_run(result.trials[0].run, swept[1].trials[0].run)


def test_seeds_are_trials_of_their_own(tmp_path: Path) -> None:
    result = runner.sweep(config(tmp_path, ranks=[2], seeds=[1, 2]), quiet=True)
    one, two = result.trials
    assert [trial.name for trial in (one, two)] == ["r2-s1", "r2-s2"]
    assert any(not torch.equal(a, b) for a, b in zip(tensors(one.run).values(), tensors(two.run).values(), strict=True))
    (row,) = result.settings
    assert row.seeds == 2
    assert row.measured is not None
    assert row.measured.versus_best is None
    first, second = measured(one), measured(two)
    assert measured(best_of(result)).validation_macro_f1 == max(first.validation_macro_f1, second.validation_macro_f1)
    mean = (first.scores["macro_f1"] + second.scores["macro_f1"]) / 2
    assert row.measured.scores["macro_f1"].mean == pytest.approx(mean)
