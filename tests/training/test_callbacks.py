"""What a training says it took, also where several processes worked on it."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.config import config

from loraft.engine import scorer
from loraft.training import checkpoints
from loraft.training.callbacks import Spent
from loraft.training.pipeline import train


class StoppedError(Exception):
    """Stands for whatever ends a process."""


def checkpoint_of(output: Path, step: int) -> Path:
    (run,) = output.iterdir()
    return run / "checkpoints" / f"checkpoint-{step}"


def edit_state(checkpoint: Path, **spent: float) -> None:
    path = checkpoint / "trainer_state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    state["stateful_callbacks"]["Spent"]["attributes"] |= spent
    path.write_text(json.dumps(state), encoding="utf-8")


def stop_at_step_4(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends a training of 4 steps at its last evaluation: logged to step 4, saved to step 2."""
    original, calls = scorer.score, []

    def score(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:  # the backbone's test rows, the validation rows at step 2, and then at step 4
            raise StoppedError
        return original(*args, **kwargs)

    monkeypatch.setattr("loraft.engine.scorer.score", score)


def test_what_a_resumed_training_took_is_what_all_its_steps_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(config(tmp_path / "a"), quiet=True)["train"]
    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        stop_at_step_4(patch)
        train(config(tmp_path / "b"), quiet=True)
    edit_state(checkpoint_of(tmp_path / "b", 2), seconds=5000.0)
    resumed = train(config(tmp_path / "b"), resume=True, quiet=True)["train"]
    assert (whole["resumed_from_step"], resumed["resumed_from_step"]) == (None, 2)
    assert resumed["tokens_computed"] == whole["tokens_computed"] > 0
    assert whole["seconds"] < 5000 < resumed["seconds"] < 5000 + 4000  # and not what was logged after the checkpoint
    saved = Spent(checkpoint_of(tmp_path / "b", 4))  # a second interruption would go on from here
    assert saved.tokens() == whole["tokens_computed"]
    assert 5000 < saved.seconds() <= resumed["seconds"] + 0.1


def test_a_training_that_only_had_to_be_judged_took_what_its_last_checkpoint_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise StoppedError

    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(checkpoints, "save_adapter", broken)
        train(config(tmp_path), quiet=True)
    edit_state(checkpoint_of(tmp_path, 4), seconds=5000.0)
    assert train(config(tmp_path), resume=True, quiet=True)["train"]["seconds"] == 5000.0


def test_a_checkpoint_that_does_not_say_what_it_took_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        stop_at_step_4(patch)
        train(config(tmp_path), quiet=True)
    path = checkpoint_of(tmp_path, 2) / "trainer_state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    del state["stateful_callbacks"]["Spent"]
    path.write_text(json.dumps(state), encoding="utf-8")
    assert train(config(tmp_path), resume=True, quiet=True)["train"]["resumed_from_step"] == 2
