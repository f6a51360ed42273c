"""The report of a training, alone and as one of several."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from loraft.config.schema import LoraSection, TrainConfig
from loraft.training.checkpoints import BestStep
from loraft.training.measured import Measured
from loraft.training.results import JointShare, ParameterCounts, TrainReport

COUNTS = ParameterCounts(10, 100)
BEST = BestStep(30, 0.75)


def measured(checkpoint: Path | None = None) -> Measured:
    """A training of 40 steps that took 61.26 seconds."""
    trainer: Any = SimpleNamespace(state=SimpleNamespace(global_step=40), shared_prefix=True, section=TrainConfig())
    clock: Any = SimpleNamespace(seconds=lambda: 61.26, tokens=lambda: 5000)
    peak: Any = SimpleNamespace(mib=lambda: 700)
    data: Any = SimpleNamespace(truncated=2, cut=0.25)
    return Measured(trainer, clock, peak, data, checkpoint)


def test_a_report_holds_what_was_measured() -> None:
    assert measured().report(LoraSection(r=4, lora_alpha=8), COUNTS, BEST, 2e-3) == TrainReport(
        seconds=61.3,
        resumed_from_step=None,
        steps=40,
        best_step=30,
        validation_macro_f1=0.75,
        validation_score=0.75,
        tokens_computed=5000,
        truncated=2,
        kept="best",
        cut=0.25,
        shared_prefix=True,
        peak_memory_mib=700,
        parameters=COUNTS,
        alpha_policy="fixed, alpha 8",
        joint=None,
        learning_rate=2e-3,
    )


def test_a_resumed_training_names_its_step() -> None:
    report = measured(Path("runs/a/checkpoints/checkpoint-20")).report(LoraSection(), COUNTS, BEST, 2e-3)
    assert report.resumed_from_step == 20


def test_an_adapter_of_a_joint_training_took_its_share_of_the_seconds() -> None:
    joint = JointShare("adapter2", 4, 61.3)
    report = measured().report(LoraSection(), COUNTS, BEST, 2e-3, joint)
    assert report.seconds == 15.3  # 61.26 / 4
    assert report.joint == joint
