"""Scores every row with an adapter that did not learn from it: K adapters over one backbone, one for each fold.

Where that is faster, which is on every GPU, they train in one pass over one stream of batches: the copy of a batch that
belongs to an adapter has the weight 0 at the rows of the adapter's own fold. Elsewhere one trains after the other, on
the rows of the other folds. No rows are set aside to pick a checkpoint: the weights after the last step count. They
train for a part of the epochs of a training (`EPOCHS`).

Letters: N rows, K labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from peft import PeftModel
from transformers import PreTrainedModel

from loraft.config.schema import Config, TrainConfig
from loraft.data.dataset import Split
from loraft.engine import scorer
from loraft.engine.collator import TrainingRows, make_rows
from loraft.models.adapter import add_adapters, count_trainable, remove_adapter
from loraft.models.encoder import Encoder
from loraft.models.prompts import warn_of_cuts
from loraft.progress import ROWS, Stage, each
from loraft.runs.folders import append_line
from loraft.runs.records import read_object
from loraft.runs.study_folders import AuditFolder, JointPass
from loraft.studies.audit.records import FOLDS
from loraft.training.callbacks import ProgressCallback, SaveOnInterrupt, SparseCheckpoints, TrainingClock
from loraft.training.dataset import TrainingData
from loraft.training.joint_adapters import JointAdapters, joint_is_faster
from loraft.training.joint_trainer import JointTrainer
from loraft.training.learning_rate import learning_rate
from loraft.training.memory import most_adapters
from loraft.training.whole_checkpoints import delete_later, newest_checkpoint

EPOCHS = 2 / 3  # of those of a training, for time; docs/audit.md has what was measured


class FoldTrainer(JointTrainer):
    """A JointTrainer that evaluates once, after the last step, when `data.evaluate_adapters` scores the held-out rows.

    The scores are kept before the last checkpoint is: a training that is over is never begun again for them.
    """

    def _evaluated(self, model: PeftModel) -> dict[str, float]:
        if self.state.global_step >= self.state.max_steps and self.data.evaluate_adapters is not None:
            self.data.evaluate_adapters(model, self.joint.names)
            self._activate(list(self.joint.names))
        return {self.data.metric.key: 0.0}


@dataclass(frozen=True)
class FoldAdapters:
    """The trainings of an audit, and the scores of the rows that each adapter did not learn from.

    Attributes:
        config: of the trainings.
        split: N labelled rows.
        fold_N: number of the fold of each row, from 0 to FOLDS - 1.
        base: the bare backbone; it is bare again after each pass.
        encoder: of the task.
    """

    config: Config
    split: Split
    fold_N: np.ndarray
    base: PreTrainedModel
    encoder: Encoder

    @cached_property
    def ids(self) -> list[Sequence[int]]:
        """Token ids of the N prompts."""
        prompts = self.encoder.encode(self.split.texts)
        warn_of_cuts(prompts, self.split.name)
        return list(prompts.ids)

    @cached_property
    def section(self) -> TrainConfig:
        """Settings of the trainings."""
        return audit_training(self.config.train)

    def scores(self, folder: AuditFolder) -> tuple[np.ndarray, float]:
        """The log-probabilities of each row's labels by the adapter of its fold, (N, K), in nats; and the seconds.

        Args:
            folder: keeps what is finished, and checkpoints of what is not.

        Raises:
            BackboneError: a training diverged.
        """
        found_NK, seconds = np.full((len(self.split), len(self.encoder.task.labels)), np.nan), 0.0
        together = self._together()
        for first in each(range(0, FOLDS, together), "fold" if together == 1 else "pass"):
            folds = range(first, min(first + together, FOLDS))
            joint = folder.fold_pass(folds)
            if not joint.finished:
                self._train_and_score(folds, joint)
            kept = read_object(joint.results_path, joint.mend)
            seconds += kept["seconds"]
            for fold, log_probs in zip(folds, kept["log_probs"], strict=True):
                found_NK[self.fold_N == fold] = log_probs
        return found_NK, seconds

    def _together(self) -> int:
        """How many of the adapters train in one pass."""
        rows, batch = self._rows(range(FOLDS)), self.section.per_device_train_batch_size
        if not joint_is_faster(self.base, rows, batch):
            return 1
        weights = [count_trainable(self.base, self.config.lora)] * FOLDS
        return most_adapters(self.base, rows, batch, weights, packed=self.section.shared_prefix == "auto")

    def _rows(self, folds: range) -> TrainingRows:
        """The rows that one or more of the adapters of these folds learn from."""
        learnt = self._learnt(folds)
        ids, labels = [self.ids[i] for i in learnt], self.split.labels[learnt]
        held_out = self.fold_N[learnt] - folds.start
        return make_rows(ids, labels, self.encoder.completions_K, self.section.class_weights, held_out)

    def _learnt(self, folds: range) -> np.ndarray:
        return np.flatnonzero((self.fold_N != folds.start) | (len(folds) > 1))

    def _train_and_score(self, folds: range, joint: JointPass) -> None:
        """Trains the adapters of these folds, and writes the scores of the rows of each one's fold."""
        joint.best.mkdir(parents=True, exist_ok=True)
        encoder, batch_tokens = self.encoder, self.config.eval.batch_tokens
        model, names = add_adapters(self.base, [self.config.lora] * len(folds), seed=self.config.seed)
        try:
            checkpoint = newest_checkpoint(joint.checkpoints, f"delete {joint.path}", with_best=False)
            delete_later(joint.checkpoints, checkpoint)
            clock, interrupt = TrainingClock(checkpoint), SaveOnInterrupt()
            progress = ProgressCallback(lambda line: None)

            def score(current: Any, adapters: Sequence[str]) -> list[dict[str, float] | None]:
                log_probs = []
                for name, fold in zip(adapters, folds, strict=True):
                    current.base_model.set_adapter(name)
                    ids = [self.ids[i] for i in np.flatnonzero(self.fold_N == fold)]
                    given: dict[str, Any] = {"unscored": encoder.unscored, "batch_tokens": batch_tokens}
                    with Stage(f"scoring fold {fold + 1}", len(ids), ROWS):
                        log_probs.append(scorer.score(current, ids, encoder.completions_K, **given).tolist())
                joint.finish({"log_probs": log_probs, "seconds": clock.seconds()})
                return []

            def report(number: int, line: dict[str, Any]) -> None:
                append_line(joint.log_of(number), line)

            numbers = self.split.examples.rows[self._learnt(folds)]
            rates = [learning_rate(self.section, model)] * len(names)
            trainer = FoldTrainer.build(
                model,
                TrainingData(self._rows(folds), encoder.tokenizer, _unused, evaluate_adapters=score, numbers=numbers),
                self.section,
                output_dir=str(joint.checkpoints),
                seed=self.config.seed,
                callbacks=[progress, SparseCheckpoints(), interrupt, clock],
                joint=JointAdapters(names, rates, joint.best, report),
            )
            progress.tokens_seen = clock.tokens_seen = lambda: trainer.tokens_seen
            with interrupt, progress.stage:
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        finally:
            remove_adapter(model)


def audit_training(section: TrainConfig) -> TrainConfig:
    """The `train` section of the folds' adapters: fewer epochs, unless the steps are given, and nothing follows it."""
    epochs = section.num_train_epochs * EPOCHS
    return section.model_copy(update={"num_train_epochs": epochs, "early_stopping_patience": None, "report_to": []})


def _unused(model: Any) -> dict[str, float]:
    raise NotImplementedError  # a FoldTrainer scores held-out rows instead
