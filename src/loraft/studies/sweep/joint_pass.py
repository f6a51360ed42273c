"""Joint training of several trials of a sweep in one pass over one backbone, and its folder on disk.

A pass trains the adapters and writes the best weights and the report of each into its folder, a `JointPass`.
`local_engine` then turns each trial into an ordinary run with `trained_in_pass`, and deletes the folder when all of its
trials are runs; other processes may be at work in the passes of other trials. So nothing is lost by an interruption: a
pass that was interrupted in training goes on from its last checkpoint, and one that was interrupted afterwards is not
trained again.
"""

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from loraft.errors import RunError
from loraft.models.adapter import add_adapters, count_trainable, parameter_counts, remove_adapter, weights_of
from loraft.runs.atomic_files import write_text
from loraft.runs.folders import append_line
from loraft.runs.records import read_object, record_from, write_record
from loraft.runs.run import Run
from loraft.runs.study_folders import JointPass, SweepFolder
from loraft.studies.sweep.joint_groups import joint_groups
from loraft.studies.sweep.shared_backbone import SharedBackbone
from loraft.studies.sweep.trials import Trial
from loraft.training import memory
from loraft.training.callbacks import ProgressCallback, SaveOnInterrupt, SparseCheckpoints, TrainingClock
from loraft.training.checkpoints import best_weights, finished_training, read_best, step_of
from loraft.training.dataset import TrainingData, prepare
from loraft.training.joint_adapters import JointAdapters, joint_is_faster, why_not_joint
from loraft.training.joint_trainer import JointTrainer
from loraft.training.learning_rate import learning_rate
from loraft.training.measured import Measured
from loraft.training.memory import most_adapters
from loraft.training.pipeline import Fit
from loraft.training.results import JointShare, ParameterCounts, TrainReport
from loraft.training.whole_checkpoints import damage_of, delete_later, newest_checkpoint


def train_joint_passes(waiting: Sequence[Trial], folder: SweepFolder, shared: SharedBackbone, *, forced: bool) -> None:
    """Trains together the trials that can be; the others, and those of a pass that fails, are left for `runner`.

    Args:
        waiting: the trials that are no finished runs yet.
        folder: of the sweep.
        shared: data and backbone; each decision is passed to its `tell`.
        forced: train together also where that is not faster.
    """
    for group in joint_groups(waiting):
        left = [trial for trial in group if trained_in_pass(folder, trial) is None]
        if len(left) < 2:
            continue
        config = left[0].config
        try:
            inputs = shared.inputs(config)
            data = prepare(config, inputs.encoder, inputs.splits["train"], inputs.splits["validation"])
            if not (forced or joint_is_faster(inputs.base, data.rows, config.train.per_device_train_batch_size)):
                shared.tell("training the adapters one by one: joint training is hardly faster here (see --joint on)")
                continue
            shared.tell(f"training {len(left)} adapters in one pass: {', '.join(trial.name for trial in left)}")
            train_jointly(left, folder, inputs.base, data)
        except Exception as error:  # whatever went wrong here, each trial may still succeed alone
            shared.tell(f"joint training failed ({type(error).__name__}: {error}); training the adapters one by one")
    for trial in waiting:
        if forced and (reason := why_not_joint(trial.config)) is not None:
            shared.tell(f"{trial.name} is trained alone: {reason}")


def train_jointly(trials: Sequence[Trial], folder: SweepFolder, base: PreTrainedModel, data: TrainingData) -> None:
    """Trains the trials in as few passes as memory allows.

    Each pass leaves the reports of its trials in its folder. Afterwards the backbone has no adapter any more.

    Args:
        trials: of one group of `joint_groups`.
        folder: of the sweep.
        base: the bare backbone.
        data: rows and evaluation, the same for all of them.
    """
    batch = trials[0].config.train.per_device_train_batch_size
    left = list(trials)
    while left:
        together = _begun(folder, left)
        if together is None:  # no interrupted pass to go on with: the first trials of those left that fit into memory
            first = left[0].config.lora
            per_rank = count_trainable(base, first) // first.r  # of a group, whose trials adapt the same linear layers
            weights = [per_rank * trial.config.lora.r for trial in left]
            packed = trials[0].config.train.shared_prefix == "auto"
            together = left[: most_adapters(base, data.rows, batch, weights, packed=packed)]
        _one_pass(together, folder, base, data)
        left = [trial for trial in left if trial not in together]


def trained_in_pass(folder: SweepFolder, trial: Trial) -> Fit | None:
    """The `fit` for `run_training` of a trial whose pass is over: it loads the trained weights instead of training.

    Returns:
        None if the trial has to be trained: it was in no finished pass, or its adapter diverged there.

    Raises:
        RunError: a file of a pass is damaged or of a later version.
    """
    for joint, members in _passes(folder):
        if joint.finished and members.get(trial.name) == _fingerprint(trial):
            report = joint.read_results().get(trial.name)
            if report is None:  # the adapter diverged; trained alone, the trial fails with that message
                return None
            record = record_from(report, TrainReport, joint.results_path, joint.mend)
            weights = joint.best / (record.joint.name if record.joint is not None else "")
            if (damage := damage_of(weights, (), only=False)) is not None:
                warnings.warn(f"{weights}: {damage}; {trial.name} is trained again", stacklevel=1)
                return None
            log = joint.log_of(list(members).index(trial.name))
            return partial(_put_best, joint, log, record)
    return None


def _put_best(joint: JointPass, log: Path, report: TrainReport, run: Run, model: PeftModel) -> TrainReport:
    """A `fit`: loads a trial's best weights into the model's empty adapter, and copies its log into the run."""
    assert report.joint is not None
    weights = str(best_weights(joint.best, report.joint.name))
    model.load_adapter(weights, model.active_adapter, is_trainable=True, low_cpu_mem_usage=True)
    model.eval()
    write_text(run.log_path, log.read_text(encoding="utf-8"))
    return report


def begun_passes(folder: SweepFolder, waiting: Sequence[Trial]) -> list[list[Trial]]:
    """The trials of each pass that work can go on with: of an interrupted one all, of a finished one those left."""
    by_pass: list[list[Trial]] = []
    left = list(waiting)
    for joint, members in _passes(folder):
        found = [trial for trial in left if members.get(trial.name) == _fingerprint(trial)]
        if found and (joint.finished or len(found) == len(members)):
            by_pass.append(found)
            left = [trial for trial in left if trial not in found]
    return by_pass


def clear(folder: SweepFolder, *, anew: Sequence[Trial] = ()) -> None:
    """Deletes the folders of the passes of which no trial waits for its run.

    Args:
        folder: of the sweep.
        anew: trials that are trained again from the start, so that nothing waits for theirs.
    """
    again = {trial.name for trial in anew}
    for joint, members in _passes(folder):
        if all(name in again or Run(folder.path / name).finished for name in members):
            shutil.rmtree(joint.path, ignore_errors=True)  # another process may just do the same


def _one_pass(trials: Sequence[Trial], folder: SweepFolder, base: PreTrainedModel, data: TrainingData) -> None:
    """Trains these trials together, from the last checkpoint of the same pass if there is one.

    Writes each adapter's best weights and log, and at the end the reports of the adapters that did not diverge.
    """
    members = {trial.name: _fingerprint(trial) for trial in trials}
    joint = folder.joint_pass(hashlib.sha256(json.dumps(members).encode()).hexdigest()[:8])
    joint.best.mkdir(parents=True, exist_ok=True)
    write_record(joint.config_path, members)
    config = trials[0].config
    peak = memory.Peak(base.device)
    model, names = add_adapters(base, [trial.config.lora for trial in trials], seed=config.seed)
    try:
        checkpoint = newest_checkpoint(joint.checkpoints, f"delete {joint.path}", with_best=False)
        delete_later(joint.checkpoints, checkpoint)
        for name in read_best(joint.best) if checkpoint is not None else ():
            if (damage := damage_of(joint.best / name, (), only=False)) is not None:
                raise RunError(f"{joint.best / name}: the best weights so far cannot be loaded ({damage})")
        clock, interrupt = TrainingClock(checkpoint), SaveOnInterrupt()
        name = f"joint pass of {len(trials)} trials"
        progress = ProgressCallback(lambda line: None, metric=data.metric, name=name)

        def report(number: int, line: dict[str, Any]) -> None:
            entry = {"step": line["step"], **progress.kept(line), "seconds": round(clock.seconds(), 3)}
            append_line(joint.log_of(number), entry | {"tokens_per_second": progress.tokens_per_second()})

        rates = [learning_rate(trial.config.train, model) for trial in trials]
        trainer = JointTrainer.build(
            model,
            data,
            config.train,
            output_dir=str(joint.checkpoints),
            seed=config.seed,
            callbacks=[progress, SparseCheckpoints(), interrupt, clock],
            joint=JointAdapters(names, rates, joint.best, report),
        )
        progress.tokens_seen = clock.tokens_seen = lambda: trainer.tokens_seen
        with interrupt, progress.stage:
            if checkpoint is None or finished_training(checkpoint) is None:
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            else:
                trainer.state.global_step = step_of(checkpoint)  # interrupted between the last step and the reports
        best = read_best(joint.best)
        # A trial's parameters are its own adapter's and the backbone's, without those of the other adapters.
        counts = [sum(weight.numel() for weight in weights_of(model, name)) for name in names]
        frozen = parameter_counts(model)[1] - sum(counts)
        measured, seconds = Measured(trainer, clock, peak, data, checkpoint), round(clock.seconds(), 1)
        reports = {
            trial.name: measured.report(
                trial.config.lora,
                ParameterCounts(count, frozen + count),
                best[name],
                rate,
                JointShare(name, len(trials), seconds),
            )
            for trial, name, count, rate in zip(trials, names, counts, rates, strict=True)
            if name in best and name not in trainer.diverged
        }
    finally:
        remove_adapter(model)
    joint.finish(reports)


def _passes(folder: SweepFolder) -> Iterator[tuple[JointPass, dict[str, str]]]:
    """The passes; with each the fingerprints of its trials by their names, in the order of its adapters."""
    for joint in folder.joint_passes():
        try:
            yield joint, read_object(joint.config_path, joint.mend)
        except RunError:
            if joint.begun:  # else another process has just deleted it
                raise


def _begun(folder: SweepFolder, trials: Sequence[Trial]) -> list[Trial] | None:
    """The trials of an interrupted pass, if all of its trials are among these and have the same configs; else None."""
    waiting = {trial.name: trial for trial in trials}
    for joint, members in _passes(folder):
        if not joint.finished and all(
            name in waiting and _fingerprint(waiting[name]) == fingerprint for name, fingerprint in members.items()
        ):
            return [waiting[name] for name in members]
    return None


def _fingerprint(trial: Trial) -> str:
    """SHA-256 of everything in the trial's config that its result depends on."""
    values = trial.config.model_dump(exclude={"output", "name", "fewshot", "sweep"})
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
