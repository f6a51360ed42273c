"""A training that is judged on its validation rows alone, for a search: the test rows wait for the best trial.

The run is left where `run_training` with `resume` finishes it: it loads the trained weights and judges them on test.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from transformers import TrainerCallback

from loraft.evaluation.validation import fitted
from loraft.models.adapter import add_adapter, remove_adapter
from loraft.runs import validation_scores
from loraft.runs.records import read_record, write_record
from loraft.runs.run import Run
from loraft.runs.storage import reraise
from loraft.runs.validation_scores import ValidationScores
from loraft.training.beginning import begin
from loraft.training.pipeline import TrainingInputs, fit_adapter
from loraft.training.results import RunResult, TrainReport
from loraft.training.trackers import Trackers

# Takes the percentage of the training that is over, the step, and `train.metric`; returns whether it shall end there.
Watch = Callable[[int, int, float], bool]


@dataclass(frozen=True)
class Validated:
    """What is known of a trained adapter before it is judged on test: how the training went, and validation scores."""

    train: TrainReport
    scores: ValidationScores

    @classmethod
    def of(cls, run: Run) -> "Validated | None":
        """That of a run; None where its training is not over.

        Raises:
            RunError: a file is damaged, or of a later version.
        """
        if run.validated_path.exists():
            return read_record(run.validated_path, cls, f"delete {run.path}, and run the same command again")
        # One that `loraft train --resume` finished has its scores beside the adapter.
        scores = validation_scores.read(run.adapter) if run.finished else None
        return None if scores is None else cls(RunResult.of(run).train, scores)


class WatchedTraining(TrainerCallback):
    """Shows each evaluation but the last, after which nothing can be saved, to a function that may end the training.

    Attributes:
        ended_at: the step after which it did; None otherwise.
    """

    def __init__(self, key: str, watch: Watch) -> None:
        self.key, self.watch = f"eval_{key}", watch
        self.ended_at: int | None = None

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Asks the function."""
        step, score = state.global_step, state.log_history[-1][self.key]
        if step < state.max_steps and self.watch(round(100 * step / state.max_steps), step, score):
            self.ended_at, control.should_training_stop = step, True


def train_on_validation(run: Run, inputs: TrainingInputs, watched: WatchedTraining, *, quiet: bool) -> Validated | None:
    """Trains, or goes on with it, and scores the validation rows; nothing is computed on the test rows.

    Args:
        run: as `start_run` gives it.
        inputs: what the training works on; not with label sets, nor from another run's adapter.
        watched: sees each evaluation.
        quiet: do not print the settings.

    Returns:
        None if `watched` ended the training; its checkpoints are deleted then.
    """
    config, splits, encoder = inputs.config, inputs.splits, inputs.encoder
    try:
        with Trackers(run, config) as trackers:
            begin(run, config, splits, resume=True)
            trackers.open()
            model = add_adapter(inputs.base, config.lora, seed=config.seed)
            try:
                with_watch = replace(inputs, callbacks=(watched,))
                report = fit_adapter(with_watch, trackers, True, quiet, run, model)
                if watched.ended_at is not None:
                    shutil.rmtree(run.checkpoints, ignore_errors=True)
                    return None
                scores = fitted(model, encoder, splits, config, run).scores
            finally:
                remove_adapter(model)
        assert scores is not None  # of one label a row
        found = Validated(report, scores)
        write_record(run.validated_path, found)
        return found
    except Exception as error:
        run.discard()
        reraise(error, run)
