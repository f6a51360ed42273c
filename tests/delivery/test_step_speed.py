"""The speed of a training is that of its first steps, which change nothing and evaluate nothing."""

from pathlib import Path

import pytest
from helpers.config import config

from loraft.data.dataset import training_splits
from loraft.delivery.step_speed import measure_steps
from loraft.models.backbone import weights_hash
from loraft.models.load import build
from loraft.training.trainer import LabelTrainer


def test_the_first_steps_are_timed_and_leave_the_backbone_bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = config(tmp_path / "runs", "train.max_steps=50", "train.per_device_train_batch_size=4", "train.eval_steps=1")
    encoder, base = build(given)
    before = weights_hash(base)
    monkeypatch.setattr(LabelTrainer, "evaluation_loop", lambda *_, **__: pytest.fail("evaluated"))
    speed = measure_steps(given, encoder, base, training_splits(given), seconds=0)
    assert speed is not None
    assert (speed.measured, speed.steps, speed.method, speed.device) == (2, 50, "fused layers", "cpu")
    assert speed.rows * speed.step_seconds == pytest.approx(4)
    assert speed.seconds == pytest.approx(50 * speed.step_seconds)
    # A batch is the prompt's 96 shared tokens and its own four rows' rest, of at least 14 tokens each.
    assert 96 + 4 * 14 < speed.tokens * speed.step_seconds < 4 * 151
    assert weights_hash(base) == before
    assert list(tmp_path.iterdir()) == []


def test_one_step_has_no_speed(tmp_path: Path) -> None:
    given = config(tmp_path / "runs", "train.max_steps=1", "train.per_device_train_batch_size=4")
    encoder, base = build(given)
    assert measure_steps(given, encoder, base, training_splits(given)) is None
