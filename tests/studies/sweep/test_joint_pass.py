"""A sweep in one pass makes the runs that one adapter after the other makes, and goes on where it was interrupted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import backbone
from helpers.training import balanced_rows as rows
from safetensors.torch import load_file

from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.evaluation import evaluate
from loraft.evaluation.predict import predict
from loraft.models.backbone import weights_hash
from loraft.runs.run import Run
from loraft.studies.sweep import joint_pass, runner
from loraft.studies.sweep.grid import expand, parse_grid
from loraft.training import pipeline
from loraft.training.joint_trainer import JointTrainer
from loraft.training.memory import packed_size

SMALL = [
    "train.max_steps=6", "train.eval_steps=2", "train.logging_steps=1", "train.learning_rate=1e-2",
    "train.per_device_train_batch_size=4", "data.max_train_rows=24", "data.max_eval_rows=12", "data.max_test_rows=12",
    "eval.bootstrap_samples=100", "lora.lora_dropout=0",
]  # fmt: skip


def config(output: Path, *grid: str, overrides: tuple[str, ...] = (), **sweep: Any) -> Config:
    flags = {f"sweep.{key}": value for key, value in {"ranks": [4, 1, 2], "joint": "on", **sweep}.items()}
    flags |= {"sweep.grid": parse_grid(grid)} if grid else {}
    return resolve(overrides=[*SMALL, f"output={output}", *overrides], flags=flags)


@pytest.fixture(scope="module", autouse=True)
def loads() -> Iterator[list[Any]]:
    """Puts a tiny random backbone in the place of the bundled one; lists those that were loaded."""
    loaded: list[Any] = []

    def load(*sections: Any) -> Any:
        loaded.append(backbone())
        return loaded[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("loraft.studies.sweep.shared_backbone.load_backbone", load)
        patch.setattr("loraft.models.load.load_backbone", load)
        yield loaded


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The sweep, one adapter after the other."""
    return runner.sweep(config(tmp_path_factory.mktemp("alone"), joint="off"), quiet=True)


def passes_of(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many adapters each pass that is begun from now on has."""
    seen: list[int] = []
    train = JointTrainer.train

    def counted(self: JointTrainer, *args: Any, **kwargs: Any) -> Any:
        seen.append(len(self.adapters or ()))
        return train(self, *args, **kwargs)

    monkeypatch.setattr(JointTrainer, "train", counted)
    return seen


def assert_like(result: dict[str, Any], alone: dict[str, Any]) -> None:
    for made, expected in zip(result["trials"], alone["trials"], strict=True):
        assert made["status"] == "finished"
        assert made["name"] == expected["name"]
        for key in ("macro_f1", "validation_macro_f1", "trainable_parameters", "steps"):
            assert made[key] == pytest.approx(expected[key]), key
        own, other = (
            load_file(Path(trial["run"]) / "adapter" / "adapter_model.safetensors") for trial in (made, expected)
        )
        assert own.keys() == other.keys()
        for name, weight in other.items():
            assert torch.linalg.norm(own[name] - weight) <= 1e-4 * torch.linalg.norm(weight), name
        rows = [Run(Path(trial["run"])).read_log() for trial in (made, expected)]
        losses = [[row["loss"] for row in log if "loss" in row] for log in rows]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_one_pass_makes_the_runs_that_one_after_the_other_makes(
    tmp_path: Path, alone: dict[str, Any], loads: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads.clear()
    seen = passes_of(monkeypatch)
    told: list[str] = []
    result = runner.sweep(config(tmp_path), quiet=True, tell=told.append)
    assert seen == [3]
    assert told[0] == "3 adapters in one pass: r1, r2, r4"
    assert_like(result, alone)
    assert len(loads) == 1
    assert weights_hash(loads[0]) == weights_hash(backbone())
    assert list(Path(result["path"]).glob("joint-*")) == []
    train = Run(Path(result["best"]["run"])).read_metrics()["train"]
    assert train["joint"]["adapters"] == 3
    assert train["joint"]["seconds"] == pytest.approx(3 * train["seconds"], abs=0.2)
    assert list(predict([], run=Path(result["best"]["run"]))) == []


def test_memory_decides_how_many_train_at_once(
    tmp_path: Path, alone: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = passes_of(monkeypatch)
    monkeypatch.setattr(joint_pass, "most_adapters", lambda model, rows, batch, weights, packed: min(2, len(weights)))
    assert_like(runner.sweep(config(tmp_path), quiet=True), alone)
    assert seen == [2, 1]


def test_an_interrupted_pass_goes_on(tmp_path: Path, alone: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(JointTrainer):
        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            super().log(logs, start_time)
            if self.state.global_step == 5:
                raise KeyboardInterrupt

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
    for made, expected in zip(result["trials"], alone["trials"], strict=True):
        assert made["macro_f1"] == pytest.approx(expected["macro_f1"])
        assert made["validation_macro_f1"] == pytest.approx(expected["validation_macro_f1"])
        assert made["resumed_from_step"] == 4


def test_a_pass_that_is_over_is_not_trained_again(
    tmp_path: Path, alone: dict[str, Any], monkeypatch: pytest.MonkeyPatch
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


def test_an_adapter_that_diverges_does_not_take_the_others_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = passes_of(monkeypatch)
    told: list[str] = []
    section = config(tmp_path, "train.learning_rate=1e-2,1e30,2e-2", ranks=[1])
    result = runner.sweep(section, quiet=True, tell=told.append)
    assert seen == [3]
    assert [trial["status"] for trial in result["trials"]] == ["finished", "failed", "finished"]
    assert "diverged" in result["trials"][1]["error"]
    joint = [Run(Path(trial["run"])).read_metrics()["train"]["joint"] for trial in result["trials"][::2]]
    assert [made["adapters"] for made in joint] == [3, 3]


def test_a_pass_that_fails_leaves_its_trials_to_be_trained_alone(
    tmp_path: Path, alone: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(JointTrainer, "train", full)
    told: list[str] = []
    assert_like(runner.sweep(config(tmp_path), quiet=True, tell=told.append), alone)
    assert "the pass failed (RuntimeError: out of memory); one adapter after the other" in told


def test_what_cannot_be_trained_together_is_trained_by_itself_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = passes_of(monkeypatch)
    told: list[str] = []
    section = config(tmp_path, "lora.use_dora=true,false", ranks=[1, 2])
    result = runner.sweep(section, quiet=True, tell=told.append)
    assert seen == [2]
    assert [trial["status"] for trial in result["trials"]] == ["finished"] * 4
    assert sum("is trained by itself: DoRA" in line for line in told) == 2


def test_groups_share_everything_but_what_an_adapter_has_of_its_own(tmp_path: Path) -> None:
    def groups(*grid: str, **sweep: Any) -> list[list[str]]:
        return [[t.name for t in group] for group in joint_pass.passes(expand(config(tmp_path, *grid, **sweep)))]

    assert groups() == [["r1", "r2", "r4"]]
    assert groups(seeds=[1, 2], ranks=[2, 1]) == [["r1-s1", "r2-s1"], ["r1-s2", "r2-s2"]]
    assert len(groups("train.learning_rate=1e-3,2e-3", ranks=[1])[0]) == 2
    assert groups("train.max_steps=3,4", ranks=[1]) == []
    assert groups("lora.target_modules=all-linear,default", ranks=[1]) == []
    assert groups("train.early_stopping_patience=1,2", ranks=[1, 2]) == []


def test_auto_asks_how_much_a_step_leaves_idle_and_says_what_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = passes_of(monkeypatch)
    told: list[str] = []
    runner.sweep(config(tmp_path / "a", joint="auto", ranks=[1, 2]), quiet=True, tell=told.append)
    assert seen == [2]
    assert told[0] == "2 adapters in one pass: r1, r2"
    monkeypatch.setattr(joint_pass, "IDLE_STEP", 1)
    runner.sweep(config(tmp_path / "b", joint="auto", ranks=[1, 2]), quiet=True, tell=told.append)
    assert seen == [2]
    assert any("--joint on" in line for line in told)


def test_a_larger_batch_leaves_less_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    base = backbone()
    monkeypatch.setattr(joint_pass, "IDLE_STEP", 4 * base.num_parameters() * packed_size(rows(), 2)[0])
    assert joint_pass.wins(base, rows(), 2)
    assert not joint_pass.wins(base, rows(), 3)
