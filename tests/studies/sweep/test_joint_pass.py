"""A sweep in one pass makes the runs that one adapter after the other makes, and goes on where it was interrupted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import backbone, tokenizer
from safetensors.torch import load_file

from loraft.config.resolve import resolve
from loraft.config.schema import Config, TrainConfig
from loraft.evaluation import evaluate
from loraft.evaluation.predict import predict
from loraft.models.backbone import weights_hash
from loraft.runs.records import write_record
from loraft.runs.run import Run
from loraft.runs.study_folders import JointPass, SweepFolder
from loraft.studies.sweep import joint_pass, runner
from loraft.studies.sweep.grid import expand, parse_grid
from loraft.studies.sweep.records import SweepResult, TrialRecord, TrialScores
from loraft.studies.sweep.shared_backbone import SharedBackbone
from loraft.studies.sweep.trials import Trial
from loraft.training import callbacks, joint_adapters, pipeline, trainer
from loraft.training.dataset import TrainingData
from loraft.training.joint_trainer import JointTrainer
from loraft.training.learning_rate import learning_rate
from loraft.training.results import JointShare, ParameterCounts, RunResult, TrainReport
from loraft.training.whole_checkpoints import write_hashes

pytestmark = pytest.mark.usefixtures("loads")

SMALL = [
    "train.max_steps=6", "train.eval_steps=2", "train.logging_steps=1", "train.learning_rate=1e-2",
    "train.per_device_train_batch_size=4", "data.max_train_rows=24", "data.max_eval_rows=12", "data.max_test_rows=12",
    "eval.bootstrap_samples=100", "lora.lora_dropout=0",
]  # fmt: skip


def config(output: Path, *grid: str, overrides: tuple[str, ...] = (), **sweep: Any) -> Config:
    flags = {f"sweep.{key}": value for key, value in {"ranks": [4, 1, 2], "joint": "on", **sweep}.items()}
    flags |= {"sweep.grid": parse_grid(grid)} if grid else {}
    return resolve(overrides=[*SMALL, f"output={output}", *overrides], flags=flags)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, loads: list[Any]) -> SweepResult:
    """The sweep, one adapter after the other."""
    return runner.sweep(config(tmp_path_factory.mktemp("alone"), joint="off"), quiet=True)


def measured(trial: TrialRecord) -> TrialScores:
    """The scores of a trial that must have finished."""
    assert (trial.status, trial.error) == ("finished", None)
    assert trial.measured is not None
    return trial.measured


def trained(trial: TrialRecord) -> TrainReport:
    """The report of the training in the trial's run."""
    return RunResult.of(Run(Path(trial.run))).train


def passes_of(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many adapters each pass that is begun from now on has."""
    seen: list[int] = []
    train = JointTrainer.train

    def counted(self: JointTrainer, *args: Any, **kwargs: Any) -> Any:
        seen.append(len(self.adapters or ()))
        return train(self, *args, **kwargs)

    monkeypatch.setattr(JointTrainer, "train", counted)
    return seen


def assert_like(result: SweepResult, alone: SweepResult) -> None:
    for made, expected in zip(result.trials, alone.trials, strict=True):
        scores, expected_scores = measured(made), measured(expected)
        assert made.name == expected.name
        assert scores.scores == pytest.approx(expected_scores.scores)
        assert scores.validation_macro_f1 == pytest.approx(expected_scores.validation_macro_f1)
        assert scores.trainable_parameters == expected_scores.trainable_parameters
        assert (scores.steps, scores.joint) == (expected_scores.steps, trained(made).joint is not None)
        assert trained(made).parameters == trained(expected).parameters
        assert trained(made).best_step == trained(expected).best_step
        assert trained(made).alpha_policy == trained(expected).alpha_policy
        own, other = (
            load_file(Path(trial.run) / "adapter" / "adapter_model.safetensors") for trial in (made, expected)
        )
        assert own.keys() == other.keys()
        for name, weight in other.items():
            assert torch.linalg.norm(own[name] - weight) <= 1e-4 * torch.linalg.norm(weight), name
        rows = [Run(Path(trial.run)).read_log() for trial in (made, expected)]
        assert {key for row in rows[0] for key in row} == {key for row in rows[1] for key in row}
        losses = [[row["loss"] for row in log if "loss" in row] for log in rows]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_one_pass_makes_the_runs_that_one_after_the_other_makes(
    tmp_path: Path, alone: SweepResult, loads: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads.clear()
    seen = passes_of(monkeypatch)
    told: list[str] = []
    result = runner.sweep(config(tmp_path), quiet=True, tell=told.append)
    assert seen == [3]
    assert told[0] == "training 3 adapters in one pass: r1, r2, r4"
    assert_like(result, alone)
    assert len(loads) == 1
    assert weights_hash(loads[0]) == weights_hash(backbone())
    assert list(Path(result.path).glob("joint-*")) == []
    assert result.best is not None
    report = trained(result.best)
    assert report.joint is not None
    assert report.joint.adapters == 3
    assert all(measured(trial).joint for trial in result.trials)
    assert report.joint.seconds == pytest.approx(3 * report.seconds, abs=0.2)
    assert list(predict([], run=Path(result.best.run))) == []


def test_memory_decides_how_many_train_at_once(
    tmp_path: Path, alone: SweepResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = passes_of(monkeypatch)
    counted: list[int] = []
    monkeypatch.setattr(
        joint_pass, "most_adapters", lambda m, r, b, weights, packed: counted.extend(weights) or min(2, len(weights))
    )
    assert_like(runner.sweep(config(tmp_path), quiet=True), alone)
    assert seen == [2, 1]
    assert counted == [measured(alone.trials[i]).trainable_parameters for i in (1, 2, 0, 0)]  # ranks 1, 2, 4; then 4


def test_an_interrupted_pass_goes_on(tmp_path: Path, alone: SweepResult, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(JointTrainer):
        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            super().log(logs, start_time)
            if self.state.global_step == 5:
                raise KeyboardInterrupt

    monkeypatch.setattr(callbacks, "SECONDS_APART", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(joint_pass, "JointTrainer", Stop)
        with pytest.raises(KeyboardInterrupt):
            runner.sweep(config(tmp_path), quiet=True)
    seen: list[str | None] = []
    train = JointTrainer.train

    def watched(self: JointTrainer, *args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["resume_from_checkpoint"])
        return train(self, *args, **kwargs)

    monkeypatch.setattr(JointTrainer, "train", watched)
    result = runner.sweep(config(tmp_path), quiet=True)
    assert [Path(path or "").name for path in seen] == ["checkpoint-4"]
    for made, expected in zip(result.trials, alone.trials, strict=True):
        scores, expected_scores = measured(made), measured(expected)
        assert scores.scores == pytest.approx(expected_scores.scores)
        assert scores.validation_macro_f1 == pytest.approx(expected_scores.validation_macro_f1)
        assert scores.resumed_from_step == 4


def test_a_pass_that_is_over_is_not_trained_again(
    tmp_path: Path, alone: SweepResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = evaluate.judge
    calls = []

    def stopped(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 4:  # the backbone, the first and the second trial; in the third
            raise KeyboardInterrupt
        return judge(*args)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "judge", stopped)
        with pytest.raises(KeyboardInterrupt):
            runner.sweep(config(tmp_path), quiet=True)
    seen = passes_of(monkeypatch)
    assert_like(runner.sweep(config(tmp_path), quiet=True), alone)
    assert seen == []


def test_a_pass_that_was_interrupted_after_its_last_step_is_not_trained_again(
    tmp_path: Path, alone: SweepResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(folder: Path) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(callbacks, "SECONDS_APART", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(joint_pass, "read_best", stopped)  # the first thing after the training
        with pytest.raises(KeyboardInterrupt):
            runner.sweep(config(tmp_path), quiet=True)
    assert not list(tmp_path.glob("*/joint-*/joint.json"))
    seen = passes_of(monkeypatch)
    assert_like(runner.sweep(config(tmp_path), quiet=True), alone)
    assert seen == []


REPORT = TrainReport(
    seconds=1.0, resumed_from_step=None, steps=6, best_step=6, validation_macro_f1=0.5, tokens_computed=99, truncated=0,
    shared_prefix=True, peak_memory_mib=None, parameters=ParameterCounts(1, 2), alpha_policy="fixed, alpha 32",
    joint=JointShare("default", 2, 2.0),
)  # fmt: skip


def begun_pass(folder: SweepFolder, trials: Sequence[Trial]) -> JointPass:
    """The folder of a pass of these trials that was interrupted."""
    joint = folder.joint_pass("begun")
    write_record(joint.config_path, {trial.name: joint_pass._fingerprint(trial) for trial in trials})
    weights = joint.best / "default"
    weights.mkdir(parents=True)
    (weights / "adapter_config.json").touch()
    write_hashes(weights)
    return joint


def test_only_what_was_trained_with_the_same_config_is_taken_from_a_finished_pass(tmp_path: Path) -> None:
    r1, r2, r4 = expand(config(tmp_path, ranks=[1, 2, 4]))
    folder = SweepFolder(tmp_path)
    joint = begun_pass(folder, [r1, r2])
    assert joint_pass.trained_in_pass(folder, r1) is None  # it is not finished
    joint.finish({"r1": REPORT})
    assert joint_pass.trained_in_pass(folder, r1) is not None
    assert joint_pass.trained_in_pass(folder, r2) is None  # it diverged
    assert joint_pass.trained_in_pass(folder, r4) is None  # it was not in the pass
    (longer,) = expand(config(tmp_path, ranks=[1], overrides=("train.max_steps=7",)))
    assert joint_pass.trained_in_pass(folder, longer) is None
    (elsewhere,) = expand(config(tmp_path / "b", ranks=[1]))
    assert joint_pass.trained_in_pass(folder, elsewhere) is not None  # where the run lies changes no result
    (joint.best / "default" / "adapter_config.json").unlink()
    with pytest.warns(UserWarning, match=r"default: adapter_config.json is missing; r1 is trained again"):
        assert joint_pass.trained_in_pass(folder, r1) is None


@pytest.mark.parametrize(
    ("interrupted", "overrides", "passes"),
    [
        ([], (), [["r1", "r2"], ["r4", "r8"]]),
        (["r2", "r4"], (), [["r2", "r4"], ["r1", "r8"]]),
        (["r2", "r16"], (), [["r1", "r2"], ["r4", "r8"]]),  # r16 is not asked for any more
        (["r2", "r4"], ("train.max_steps=7",), [["r1", "r2"], ["r4", "r8"]]),  # begun with another config
    ],
)
def test_an_interrupted_pass_comes_first_and_memory_divides_the_rest(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interrupted: list[str],
    overrides: tuple[str, ...],
    passes: list[list[str]],
) -> None:
    made: list[list[str]] = []
    folder, ranks = SweepFolder(tmp_path), [1, 2, 4, 8, 16]
    monkeypatch.setattr(joint_pass, "most_adapters", lambda model, rows, batch, weights, packed: 2)

    def one_pass(trials: Sequence[Trial], *given: Any, **options: Any) -> None:
        made.append([trial.name for trial in trials])
        for joint in folder.joint_passes():
            joint.finish({})

    monkeypatch.setattr(joint_pass, "_one_pass", one_pass)
    begun = expand(config(tmp_path, ranks=ranks, overrides=overrides))
    if interrupted:
        begun_pass(folder, [trial for trial in begun if trial.name in interrupted])
    data = TrainingData([], tokenizer(), lambda model: {})
    joint_pass.train_jointly(expand(config(tmp_path, ranks=ranks))[:4], folder, backbone(), data)
    assert made == passes


def test_the_last_trial_of_a_group_is_no_pass(tmp_path: Path) -> None:
    told: list[str] = []
    trials = expand(config(tmp_path, ranks=[1, 2, 4]))
    begun_pass(SweepFolder(tmp_path), trials[:2]).finish({trial.name: REPORT for trial in trials[:2]})
    joint_pass.train_joint_passes(trials, SweepFolder(tmp_path), SharedBackbone(told.append), forced=True)
    assert told == []


def test_an_adapter_that_diverges_does_not_take_the_others_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = passes_of(monkeypatch)
    told: list[str] = []

    def rate(train: TrainConfig, model: Any) -> float:  # no config has one that makes every training diverge
        return 1e30 if train.learning_rate == 1e6 else learning_rate(train, model)

    for module in (joint_pass, trainer):
        monkeypatch.setattr(module, "learning_rate", rate)
    section = config(tmp_path, "train.learning_rate=1e-2,1000000,null", ranks=[1])
    result = runner.sweep(section, quiet=True, tell=told.append)
    assert seen == [3]
    assert [trial.status for trial in result.trials] == ["finished", "failed", "finished"]
    assert "diverged" in str(result.trials[1].error)
    joint = [trained(trial).joint for trial in result.trials[::2]]
    assert [share.adapters for share in joint if share is not None] == [3, 3]
    assert [trained(trial).learning_rate for trial in result.trials[::2]] == [1e-2, 2e-3]  # null: by the size


def test_an_adapter_that_diverges_after_its_best_step_is_trained_alone(
    tmp_path: Path, alone: SweepResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Diverging(JointTrainer):
        def train(self, *args: Any, **kwargs: Any) -> Any:
            done = super().train(*args, **kwargs)
            self.diverged.add(self.joint.names[0])  # of r1, the smallest rank
            return done

    monkeypatch.setattr(joint_pass, "JointTrainer", Diverging)
    result = runner.sweep(config(tmp_path), quiet=True)
    assert [trial.name for trial in result.trials if not measured(trial).joint] == ["r1"]
    assert_like(result, alone)


def test_a_pass_that_fails_leaves_its_trials_to_be_trained_alone(
    tmp_path: Path, alone: SweepResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(JointTrainer, "train", full)
    told: list[str] = []
    assert_like(runner.sweep(config(tmp_path), quiet=True, tell=told.append), alone)
    assert "joint training failed (RuntimeError: out of memory); training the adapters one by one" in told


def test_what_cannot_be_trained_together_is_trained_by_itself_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = passes_of(monkeypatch)
    told: list[str] = []
    section = config(tmp_path, "lora.use_dora=true,false", ranks=[1, 2])
    result = runner.sweep(section, quiet=True, tell=told.append)
    assert seen == [2]
    assert [trial.status for trial in result.trials] == ["finished"] * 4
    assert sum("is trained alone: DoRA" in line for line in told) == 2


def test_auto_asks_how_much_a_step_leaves_idle_and_says_what_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = passes_of(monkeypatch)
    told: list[str] = []
    runner.sweep(config(tmp_path / "a", joint="auto", ranks=[1, 2]), quiet=True, tell=told.append)
    assert seen == [2]
    assert told[0] == "training 2 adapters in one pass: r1, r2"
    monkeypatch.setattr(joint_adapters, "IDLE_STEP", 1)
    runner.sweep(config(tmp_path / "b", joint="auto", ranks=[1, 2]), quiet=True, tell=told.append)
    assert seen == [2]
    assert any("--joint on" in line for line in told)
