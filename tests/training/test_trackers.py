"""What TensorBoard, W&B, MLflow and trackio get of a run: its name, its config, the numbers of its log; no sentence."""

import json
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from helpers.config import config
from helpers.tiny import backbone
from huggingface_hub import constants
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from loraft.config.diagnostics import known_keys
from loraft.config.schema import Config
from loraft.data.dataset import training_splits
from loraft.errors import LoraftError
from loraft.models.load import build_encoder
from loraft.runs.run import Run, run_of
from loraft.studies.sweep.runner import sweep
from loraft.training.pipeline import TrainingInputs, run_training, start_run
from loraft.training.trackers import KINDS, Trackers

OTHERS = ("wandb", "mlflow", "trackio")
LINE = {"step": 1, "loss": 0.5, "learning_rate": 0.1}


class Fakes:
    """Stand in for the three packages; each keeps its calls, and prints, as the real ones do."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any]] = []
        self.broken = ""  # name of a call that fails
        self.modules = {name: ModuleType(name) for name in OTHERS}
        wandb, mlflow, trackio = (vars(module) for module in self.modules.values())
        methods = {one: self.call("wandb", one) for one in ("log", "finish", "define_metric")}
        wandb["init"] = self.call("wandb", "init", SimpleNamespace(**methods))
        for one in ("init", "log", "finish"):
            trackio[one] = self.call("trackio", one)
        opened = SimpleNamespace(info=SimpleNamespace(run_id="m1"))
        for one in ("set_experiment", "log_params", "log_metrics", "end_run", "active_run"):
            mlflow[one] = self.call("mlflow", one)
        mlflow["start_run"] = self.call("mlflow", "start_run", opened)

    def call(self, module: str, name: str, result: Any = None) -> Any:
        def called(*given: Any, **named: Any) -> Any:
            print(f"* {module} {name}")
            if self.broken == f"{module}.{name}":
                raise ConnectionError("no route to host\nsecond line")
            self.calls.append((module, name, (*given, named) if given else named))
            return result

        return called

    def of(self, module: str, name: str) -> list[Any]:
        return [given for one, called, given in self.calls if (one, called) == (module, name)]


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    made = Fakes()
    for name, module in made.modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("WANDB_PROJECT", "WANDB_MODE", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    return made


def tracked(output: Path, *overrides: str, names: str = "wandb, mlflow, trackio") -> tuple[Run, Config]:
    section = config(output, f"train.report_to=[{names}]", "name=quét/r8", *overrides)
    run_of(section).path.mkdir(parents=True, exist_ok=True)
    return run_of(section), section


def scalars(run: Run) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads: steps and values of each name."""
    read = EventAccumulator(str(run.path / "tensorboard"))
    read.Reload()
    return {tag: [(one.step, round(one.value, 6)) for one in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def test_tensorboard_reads_back_the_log_of_a_training_and_no_sentence(tmp_path: Path) -> None:
    _, section = tracked(tmp_path, "output.texts=false", "data.max_test_rows=8", names="tensorboard")
    splits = training_splits(section)
    inputs = TrainingInputs(section, splits, build_encoder(section), backbone())
    result = run_training(start_run(section, force=False, resume=False), inputs, quiet=True, figures=False)
    run = Run(Path(result.run))
    found, log = scalars(run), run.read_log()
    assert [step for step, _ in found["train/loss"]] == [1, 2, 3, 4]
    for key in ("loss", "learning_rate"):
        assert found[f"train/{key}"] == [(row["step"], pytest.approx(row[key], abs=1e-5)) for row in log if key in row]
    validation = [(row["step"], row["eval_macro_f1"]) for row in log if "eval_macro_f1" in row]
    assert found["eval/macro_f1"] == [(step, pytest.approx(value, abs=1e-5)) for step, value in validation]
    assert found["test/accuracy"] == [(4, pytest.approx(result.after.accuracy, abs=1e-5))]
    written = b"".join(path.read_bytes() for path in (run.path / "tensorboard").iterdir())
    assert "name: quét/r8".encode() in written
    for split in splits.values():
        assert not any(example.text.encode() in written for example in split.examples)
    assert not list(run.checkpoints.rglob("*tfevents*"))


def test_a_resumed_run_replaces_the_steps_that_a_killed_process_had_logged(tmp_path: Path) -> None:
    run, section = tracked(tmp_path, names="tensorboard")
    for first, last in ((1, 4), (3, 5)):
        with Trackers(run, section) as trackers:
            trackers.open()
            for step in range(first, last + 1):
                trackers.log({"step": step, "loss": first})
    assert scalars(run)["train/loss"] == [(1, 1), (2, 1), (3, 3), (4, 3), (5, 3)]
    with Trackers(run, section) as trackers:  # resumed after the last step: only the test split was left
        trackers.open()
        trackers.log({"step": 5, "test_accuracy": 0.5})
    assert len(scalars(run)["train/loss"]) == 5


def test_each_tracker_gets_name_config_and_numbers_and_is_closed(
    tmp_path: Path, fakes: Fakes, capsys: pytest.CaptureFixture[str]
) -> None:
    run, section = tracked(tmp_path, "lora.r=8")
    with Trackers(run, section) as trackers:
        trackers.open()
        trackers.log({**LINE, "eval_macro_f1": 0.25, "eval_micro_f1": None})
    (wandb,), (trackio,), (started,) = fakes.of("wandb", "init"), fakes.of("trackio", "init"), fakes.of(
        "mlflow", "start_run"
    )  # fmt: skip
    for one in (wandb, trackio):
        assert (one["project"], one["name"], one["group"], one["resume"]) == ("loraft", "quét/r8", "quét", "allow")
        assert one["config"]["lora.r"] == 8
    assert wandb["settings"] == {"console": "off", "disable_git": False}
    assert (wandb["dir"], wandb["mode"]) == (str(run.path), "offline")  # HF_HUB_OFFLINE is set in all tests
    assert fakes.of("mlflow", "set_experiment") == [("loraft", {})]
    assert started == {"run_id": None, "run_name": "quét/r8", "nested": False}
    params = {key: value for given, _ in fakes.of("mlflow", "log_params") for key, value in given.items()}
    assert params["lora.r"] == "8"
    assert all(len(value) <= 500 for value in params.values())
    numbers = {"train/loss": 0.5, "train/learning_rate": 0.1, "eval/macro_f1": 0.25}
    assert fakes.of("wandb", "log") == [({**numbers, "train/global_step": 1}, {})]
    assert fakes.of("mlflow", "log_metrics") == fakes.of("trackio", "log") == [(numbers, {"step": 1})]
    assert fakes.of("wandb", "finish") == [{"exit_code": 0}]
    assert fakes.of("mlflow", "end_run") == [("FINISHED", {})]
    assert fakes.of("trackio", "finish") == [{}]
    assert capsys.readouterr().out == ""


def test_variables_of_the_trackers_name_other_places(
    tmp_path: Path, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "khác")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "khác")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with Trackers(*tracked(tmp_path, "output.texts=false")) as trackers:
        trackers.open()
    assert (fakes.of("wandb", "init")[0]["project"], fakes.of("wandb", "init")[0]["mode"]) == ("khác", None)
    assert fakes.of("wandb", "init")[0]["settings"]["disable_git"]
    assert fakes.of("mlflow", "set_experiment") == [("khác", {})]


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_after_an_error_they_are_closed_as_failed_and_a_resumed_run_goes_on_there(
    error: BaseException, tmp_path: Path, fakes: Fakes
) -> None:
    run, section = tracked(tmp_path)
    for ended in (error, None):
        with suppress(RuntimeError, KeyboardInterrupt), Trackers(run, section) as trackers:
            trackers.open()
            if ended is not None:
                raise ended
    first, second = fakes.of("wandb", "init")
    assert first["id"] == second["id"] == json.loads((run.path / "trackers.json").read_text())["wandb"]
    assert [one["run_id"] for one in fakes.of("mlflow", "start_run")] == [None, "m1"]
    sent = [key for given, _ in fakes.of("mlflow", "log_params") for key in given]
    assert len(sent) == len(set(sent)) == len(known_keys())  # once: MLflow refuses to change them
    assert fakes.of("wandb", "finish") == [{"exit_code": 1}, {"exit_code": 0}]
    assert fakes.of("mlflow", "end_run") == [("FAILED", {}), ("FINISHED", {})]
    assert len(fakes.of("trackio", "finish")) == 2


def test_one_that_cannot_be_opened_ends_the_run_and_the_others_are_closed(tmp_path: Path, fakes: Fakes) -> None:
    fakes.broken = "mlflow.set_experiment"
    says = r"train.report_to: cannot be opened \(got 'mlflow': ConnectionError: no route to host\); .*leave it out"
    with pytest.raises(LoraftError, match=says), Trackers(*tracked(tmp_path)) as trackers:
        trackers.open()
    assert fakes.of("wandb", "finish") == [{"exit_code": 1}]


@pytest.mark.parametrize("broken", ["wandb.log", "mlflow.end_run", "trackio.finish"])
def test_one_that_fails_later_costs_a_warning_and_not_the_training(broken: str, tmp_path: Path, fakes: Fakes) -> None:
    fakes.broken = broken
    name = broken.partition(".")[0]

    def tracked_run() -> None:
        with Trackers(*tracked(tmp_path)) as trackers:
            trackers.open()
            trackers.log(LINE)
            trackers.log({**LINE, "step": 2})

    with pytest.warns(UserWarning, match=f"{name} failed .*goes on without it") as told:
        tracked_run()
    assert len(told) == 1
    assert len(fakes.of("mlflow", "log_metrics")) == 2


def test_other_processes_and_runs_without_trackers_open_none(
    tmp_path: Path, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, section = tracked(tmp_path)
    with Trackers(run, config(tmp_path)) as trackers:
        trackers.open()
        trackers.log(LINE)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    Trackers(run, section).open()
    assert fakes.calls == []
    assert not list(run.path.iterdir())


def test_each_trial_of_a_joint_training_has_a_run_of_its_own_with_its_own_losses(
    tmp_path: Path, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loraft.studies.sweep.shared_backbone.load_backbone", lambda *sections: backbone())
    for drawn in ("figures.sweep_curve", "draw_run_figures"):
        monkeypatch.setattr(f"loraft.studies.sweep.runner.{drawn}", lambda *given: None)
    few = [f"data.max_{split}_rows=8" for split in ("train", "eval", "test")]
    joint = ["sweep.ranks=[1, 2]", "sweep.joint='on'", "train.max_steps=2", "eval.baselines=off"]
    section = config(tmp_path, "train.report_to=[wandb]", "name=quét", *few, *joint)
    result = sweep(section, quiet=True)
    assert [trial.measured is not None and trial.measured.joint for trial in result.trials] == [True, True]
    assert [one["name"] for one in fakes.of("wandb", "init")] == ["quét/r1", "quét/r2"]
    assert [called for _, called, _ in fakes.calls if called in ("init", "finish")] == ["init", "finish"] * 2
    sent = [given["train/grad_norm"] for given, _ in fakes.of("wandb", "log") if "train/grad_norm" in given]
    logs = [Run(tmp_path / "quét" / name).read_log() for name in ("r1", "r2")]
    assert sent == [row["grad_norm"] for log in logs for row in log if "grad_norm" in row]
    assert logs[0] != logs[1]


def test_every_kind_is_a_tracker_of_the_config() -> None:
    assert set(KINDS) == {"tensorboard", *OTHERS}
