"""What is measured around a training, alone or joint, and the report that is made of it."""

from dataclasses import dataclass
from pathlib import Path

from loraft.config.schema import LoraSection
from loraft.training import memory
from loraft.training.callbacks import TrainingClock
from loraft.training.checkpoints import BestStep, step_of
from loraft.training.dataset import TrainingData
from loraft.training.results import JointShare, ParameterCounts, TrainReport
from loraft.training.trainer import LabelTrainer


@dataclass(frozen=True)
class Measured:
    """What is measured around a training, alone or joint; makes the report of each adapter."""

    trainer: LabelTrainer
    clock: TrainingClock
    peak: memory.Peak
    data: TrainingData
    checkpoint: Path | None

    def report(
        self,
        lora: LoraSection,
        parameters: ParameterCounts,
        best: BestStep,
        learning_rate: float,
        joint: JointShare | None = None,
    ) -> TrainReport:
        """The report of one adapter.

        Args:
            lora: its section of the config.
            parameters: of this adapter on its backbone.
            best: the step whose weights are kept.
            learning_rate: of this adapter.
            joint: its part in a joint training.
        """
        return TrainReport(
            seconds=round(self.clock.seconds() / (1 if joint is None else joint.adapters), 1),
            resumed_from_step=None if self.checkpoint is None else step_of(self.checkpoint),
            steps=self.trainer.state.global_step,
            best_step=best.step,
            validation_macro_f1=best.macro_f1,
            validation_score=best.macro_f1 if best.score is None else best.score,
            tokens_computed=self.clock.tokens(),
            truncated=self.data.truncated,
            cut=self.data.cut,
            shared_prefix=self.trainer.shared_prefix,
            peak_memory_mib=self.peak.mib(),
            parameters=parameters,
            alpha_policy=lora.alpha_policy,
            learning_rate=learning_rate,
            kept=self.trainer.section.keep,
            joint=joint,
        )
