"""Runs trials of a sweep in this process, one after another, or several in one joint pass."""

import gc
import shutil
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from loraft.evaluation.choosing import Metric
from loraft.models.adapter import MOVING_INITS
from loraft.progress import each
from loraft.runs.atomic_files import write_text
from loraft.runs.lock import locked
from loraft.runs.run import Run
from loraft.runs.study_folders import SweepFolder
from loraft.studies.sweep import joint_pass
from loraft.studies.sweep.conclusion import in_words
from loraft.studies.sweep.shared_backbone import SharedBackbone, key_of
from loraft.studies.sweep.trials import Trial, run_of
from loraft.training.pipeline import TrainingInputs, run_training, start_run
from loraft.training.results import RunResult

Trained = TypeVar("Trained")


@dataclass(frozen=True)
class Failure:
    """A trial that failed, with the message for the user."""

    message: str


def run_trials(
    waiting: Sequence[Trial],
    folder: SweepFolder,
    shared: SharedBackbone,
    joint: str,
    *,
    force: bool,
    quiet: bool,
    numbered: bool = True,
) -> dict[str, str]:
    """Runs the trials; returns the error messages of those that failed, by name.

    Finished joint passes stay in the folder: several processes may work there. The caller clears it at the end.

    Args:
        waiting: the trials, which are no finished runs.
        folder: of the sweep.
        shared: data and backbone.
        joint: `sweep.joint`.
        force: begin each trial anew.
        quiet: do not print the settings.
        numbered: tell at the begin of each trial which one of how many it is.
    """
    tell = shared.tell
    errors: dict[str, str] = {}
    if joint != "off":
        joint_pass.train_joint_passes(waiting, folder, shared, forced=joint == "on")
        shared.check()  # the next trial loads the backbone again if a joint training changed it
    # Sorted so that each backbone is loaded once; trials of one backbone keep their order.
    in_order = sorted(waiting, key=lambda t: key_of(t.config, "model", "quant"))
    for number, trial in enumerate(each(in_order, "trial", note=lambda t: t.name), start=1):
        if numbered:
            tell(f"trial {number} of {len(waiting)}: {trial.name}")

        def train(run: Run, inputs: TrainingInputs, trial: Trial = trial) -> RunResult:
            fit = None if joint == "off" else joint_pass.trained_in_pass(folder, trial)
            # Figures take longer than a small trial; those of the best one are drawn at the end.
            return run_training(run, inputs, fit=fit, resume=not force, quiet=quiet, figures=False)

        result = attempt(trial, folder, shared, train, force=force)
        if isinstance(result, Failure):
            errors[trial.name] = result.message
        else:
            shared.keep_scores(trial.config, result.before)
            metric, scores = Metric.of(trial.config), result.after.scores
            tell(f"{trial.name}: {metric.word} {scores[metric.key]:.4f}, {result.train.seconds:.1f} s")
    gc.unfreeze()  # frozen by `shared` when it loaded the backbone
    return errors


def attempt(
    trial: Trial,
    folder: SweepFolder,
    shared: SharedBackbone,
    train: Callable[[Run, TrainingInputs], Trained],
    *,
    force: bool = False,
    fatal: tuple[type[Exception], ...] = (),
    known: Callable[[Run], Trained | None] = lambda run: None,
) -> Trained | Failure:
    """What `train` returns for a trial, in its locked run directory; its error is told, recorded and returned.

    Args:
        trial: one of the sweep's.
        folder: of the sweep.
        shared: the backbone, which is checked afterwards.
        train: trains in the run directory.
        force: begin a finished or interrupted run again.
        fatal: errors that are raised, since the next trial would have the same.
        known: what needs no training, of a run that may be finished; None: train.
    """
    error_path = folder.error_path(run_of(trial).name)
    result: Trained | Failure
    try:
        inputs = shared.inputs(trial.config)
        with locked(run_of(trial).path, force=force):  # `loraft train --resume` could go on with it alone
            there = known(run_of(trial))
            result = train(start_run(trial.config, force=force, resume=not force), inputs) if there is None else there
    except fatal:
        raise
    except Exception as error:  # whatever it is, the other trials go on
        message, trace = in_words(error), traceback.format_exc()
        if not trial.config.output.texts:  # a message may quote a sentence: files name the kind of error only
            shared.tell(message)
            message, trace = type(error).__name__, "".join(traceback.format_tb(error.__traceback__))
        result = Failure(message)
        write_text(error_path, trace)
    # The frozen weights must be bit-identical afterwards; if they are not, the next trial loads them again.
    unchanged = shared.check() or trial.config.lora.init_lora_weights in MOVING_INITS
    if not unchanged and not isinstance(result, Failure):
        result = Failure("the training changed weights of the frozen backbone, so its scores cannot be reproduced")
        _undo(run_of(trial))
    if isinstance(result, Failure):
        shared.tell(f"{trial.name} failed: {result.message}")
    else:
        error_path.unlink(missing_ok=True)
    return result


def _undo(run: Run) -> None:
    """Deletes the results and checkpoints of a run, so that the same command trains it again from the start."""
    run.results_path.unlink(missing_ok=True)
    run.validated_path.unlink(missing_ok=True)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
