"""`loraft.train`: from a config to a run directory with an adapter, its scores before and after, and figures."""

import shlex
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peft import PeftModel
from transformers import PreTrainedModel, TrainerCallback

from loraft.config.schema import Config
from loraft.config.trackers import refuse_missing_trackers
from loraft.data.dataset import Split, training_splits, warn_of_notes
from loraft.display.progress import shown
from loraft.distributed import from_main, is_main_process
from loraft.errors import spared
from loraft.evaluation import advice
from loraft.evaluation.choosing import Metric
from loraft.evaluation.classification_report import EvaluationReport
from loraft.evaluation.classifier import explain_mistakes
from loraft.evaluation.enough_rows import refuse_unmeasured
from loraft.evaluation.evaluate import judge
from loraft.evaluation.figures import draw_run_figures
from loraft.evaluation.validation import fitted
from loraft.models import manifest
from loraft.models.adapter import add_adapter, coverage, parameter_counts, remove_adapter
from loraft.models.calibration import NONE
from loraft.models.device import pick_device
from loraft.models.encoder import Encoder
from loraft.models.load import build
from loraft.models.prompts import warn_of_cuts
from loraft.models.sharding import refuse_unsharded
from loraft.runs.atomic_files import write_text
from loraft.runs.lock import locked
from loraft.runs.predictions import write_rows
from loraft.runs.records import write_record
from loraft.runs.resume import of_its_version
from loraft.runs.run import Run, WorkerRun, default_name, run_of
from loraft.runs.storage import reraise
from loraft.training import memory
from loraft.training.beginning import begin
from loraft.training.callbacks import ProgressCallback, SaveOnInterrupt, TrainingClock
from loraft.training.checkpoints import BestStep, finished_training, load_best, save_adapter, step_of
from loraft.training.dataset import prepare
from loraft.training.earlier_result import earlier_result
from loraft.training.learning_rate import learning_rate
from loraft.training.measured import Measured
from loraft.training.model_card import CARD_FILE, model_card
from loraft.training.out_of_memory import train_halving
from loraft.training.outcome import with_baselines_and_warnings
from loraft.training.processes import rows_a_step, together
from loraft.training.results import ParameterCounts, RunResult, TrainReport, earlier_scores
from loraft.training.starting_point import StartingPoint, starting_point
from loraft.training.trackers import Trackers
from loraft.training.trainer import LabelTrainer
from loraft.training.whole_checkpoints import delete_later, newest_checkpoint
from loraft.visible import visible

# Trains the fresh adapter of the model, or fills an empty one with weights that were trained elsewhere; reports how.
Fit = Callable[[Run, PeftModel], TrainReport]


@dataclass(frozen=True)
class TrainingInputs:
    """What a training works on, loaded already.

    Attributes:
        config: everything that the result depends on.
        splits: train, validation and test.
        encoder: of the config's task for the backbone's tokenizer.
        base: the bare backbone; it is bare again after the training, also after an error.
        baseline: the backbone's own scores on the test split, where they are known.
        start: the finished run whose adapter the training goes on from.
        warnings: what the user was warned of, which the results shall say, too.
        callbacks: more of them for the trainer.
        trained: the report of the training, where it is over and its weights wait to be judged.
    """

    config: Config
    splits: Mapping[str, Split]
    encoder: Encoder
    base: PreTrainedModel
    baseline: EvaluationReport | None = None
    start: StartingPoint | None = None
    warnings: tuple[str, ...] = ()
    callbacks: tuple[TrainerCallback, ...] = ()
    trained: TrainReport | None = None


def train(config: Config, *, force: bool = False, resume: bool = False, quiet: bool = False) -> RunResult:
    """Fine-tunes an adapter and judges it on the test split before and after.

    Where the run is finished, with this config and these rows, its result is returned and nothing is written.

    Args:
        config: everything that the result depends on.
        force: delete an earlier run of the same name.
        resume: go on with an interrupted one.
        quiet: show no progress.

    Returns:
        Scores before and after as fractions, log loss in nats, and a report of the training with its seconds, tokens
        and peak memory in MiB.

    Raises:
        LoraftError: for anything the user can mend; nothing half-written then counts as finished.

    Examples:
        >>> import loraft
        >>> config = loraft.resolve(overrides=["train.max_steps=2", "data.max_train_rows=32", "data.max_eval_rows=8",
        ...                                    "data.max_test_rows=8", f"output={folder}", "name=thử"])
        >>> result = loraft.train(config, quiet=True)
        >>> result.train.steps, result.after.n
        (2, 8)
    """
    refuse_missing_trackers(config)
    refuse_unsharded(config)
    if not force and (earlier := earlier_result(config)) is not None:
        return earlier
    config = of_its_version(config, run_of(config).config_path) if resume else config
    start = starting_point(config)
    splits = training_splits(config)
    refuse_unmeasured(config, splits["validation"])
    warn_of_notes(splits.values())
    known = () if start is None else start.known_rows(config, splits)
    for sentence in known:
        warnings.warn(sentence, stacklevel=2)
    if is_main_process():
        run_of(config).check(force=force, resume=resume)
    on_cpu = pick_device(config.model.device).type == "cpu"
    with together(run_of(config), on_cpu=on_cpu), locked(run_of(config).path, force=force), shown(quiet=quiet):
        encoder, base = build(config)  # what cannot be loaded is told before anything in the folder changes
        run = start_run(config, force=force, resume=resume)
        inputs = TrainingInputs(config, splits, encoder, base, start=start, warnings=known)
        result = run_training(run, inputs, resume=resume, quiet=quiet)
    told = [*known, *advice.cut_away(config, result.after.cut, "test")]  # in other words before the training
    for sentence in result.warnings:
        if sentence not in told:
            warnings.warn(sentence, stacklevel=2)
    return result


def start_run(config: Config, *, force: bool, resume: bool) -> Run:
    """The run directory of the config, made; a process that is not the main one gets a stand-in.

    Raises:
        RunError: a run is there and the flags do not say what to do with it.
    """
    if not is_main_process():
        return WorkerRun(run_of(config))
    return Run.create(Path(config.output.folder), config.name or default_name(config), force=force, resume=resume)


def run_training(
    run: Run,
    inputs: TrainingInputs,
    *,
    fit: Fit | None = None,
    resume: bool = False,
    quiet: bool = False,
    figures: bool = True,
) -> RunResult:
    """Trains and judges inside a run directory that is there; if no step was trained, an error takes it away again.

    Args:
        run: as `start_run` gives it.
        inputs: what the training works on.
        fit: puts weights that were trained elsewhere into the empty adapter, instead of training here.
        resume: go on from the newest checkpoint, and with the scores that were measured before.
        quiet: do not print the settings.
        figures: draw them, and explain mistakes; figures are otherwise drawn by `loraft report`.
    """
    try:
        with Trackers(run, inputs.config) as trackers:
            train_here = partial(fit_adapter, inputs, trackers, resume, quiet)
            return _train_and_judge(run, inputs, fit or train_here, trackers, resume, figures, empty=fit is not None)
    except Exception as error:
        run.discard()
        reraise(error, run)


def _train_and_judge(
    run: Run, inputs: TrainingInputs, fit: Fit, trackers: Trackers, resume: bool, figures: bool, *, empty: bool
) -> RunResult:
    config, splits, encoder, base = inputs.config, inputs.splits, inputs.encoder, inputs.base
    fingerprints, made_in = begin(run, config, splits, resume=resume)
    trackers.open()
    # Before the adapter: pissa and olora move weights out of the backbone.
    identity = manifest.identify(config, base, run.path)
    test = splits["test"]
    prompts = encoder.encode(test.texts)
    warn_of_cuts(prompts, test.name)
    before = from_main(inputs.baseline or (earlier_scores(run) if resume else None))
    if inputs.start is not None:
        inputs.start.begin(run, config, encoder, base, splits, resume=resume)
    elif before is None:
        before, _ = judge(base, encoder, prompts, test, config)
    model = add_adapter(base, config.lora, seed=config.seed, empty=empty)
    try:
        if inputs.start is not None:
            inputs.start.put_into(model)
            before = before or inputs.start.judged(model, encoder, prompts, test, config)
        write_record(run.before_path, before)
        report = fit(run, model)
        for line in run.read_log() if empty else ():  # of a training elsewhere
            trackers.log(line)
        found = fitted(model, encoder, splits, config, run)
        calibration = found.calibration if config.eval.calibrate else NONE
        thresholds = None if found.thresholds is None else calibration.of_yes(np.array(found.thresholds)).tolist()
        after, rows = judge(model, encoder, prompts, test, config, thresholds or (), calibration)
        trackers.log({"step": report.steps, **{f"test_{key}": value for key, value in after.scores.items()}})
        scores = {"accuracy": after.accuracy, "macro_f1": after.macro_f1}
        scores[Metric.of(config).key] = after.scores[Metric.of(config).key]
        labels, rows_of = encoder.task.labels, splits["train"].examples.labels
        counts = {} if found.thresholds else {label: rows_of.count(k) for k, label in enumerate(labels)}
        data = manifest.DataIdentity(config.data.source, fingerprints, splits["train"].pool, counts)
        content = manifest.describe(config, encoder, identity, data, scores, found.thresholds, made_in)
        content = replace(content, calibration=found.calibration)
        if inputs.start is not None:
            content = replace(content, started_from=vars(inputs.start.record))
        save_adapter(run, model, content, found.scores)
        if figures:
            explain_mistakes(run, config, encoder, model, thresholds or (), calibration, rows)
    finally:
        remove_adapter(model)
    write_rows(run, rows, texts=config.output.texts)
    result = RunResult(
        run=str(run.path),
        labels=encoder.task.labels,
        backbone=config.model.label,
        backbone_fingerprint=identity.fingerprint,
        data={name: split.summary for name, split in splits.items()},
        before=before,
        after=after,
        train=report,
        started_from=None if inputs.start is None else inputs.start.record,
    )
    if is_main_process():
        result = with_baselines_and_warnings(result, run, config, splits, rows)
        result = replace(result, warnings=(*inputs.warnings, *result.warnings))
    with spared("the model card", f"loraft push {shlex.quote(str(run.path))}"):
        write_text(run.adapter / CARD_FILE, model_card(run, config, result))
    run.finish(result)
    if figures:
        with spared("the figures", f"loraft report {shlex.quote(str(run.path))}"):
            draw_run_figures(run, after, encoder.task.labels)
    return result


def fit_adapter(
    inputs: TrainingInputs, trackers: Trackers, resume: bool, quiet: bool, run: Run, model: PeftModel
) -> TrainReport:
    """Trains; leaves the best checkpoint's adapter in the model and returns a report of the training."""
    config = inputs.config
    peak = memory.Peak(model.device)
    data = prepare(config, inputs.encoder, inputs.splits["train"], inputs.splits["validation"])
    counts = ParameterCounts(*parameter_counts(model))
    quiet = quiet or not is_main_process()
    if not quiet:
        _print_settings(config, counts, learning_rate(config.train, model))
        for line in coverage(model):
            print(visible(line), file=sys.stderr)

    def append_log(line: dict[str, Any]) -> None:
        run.append_log(line)
        trackers.log(line)

    progress = ProgressCallback(append_log, metric=data.metric)
    interrupt = SaveOnInterrupt()
    again = Run(run.checkpoints.parent).how_to_begin_again
    checkpoint = from_main(newest_checkpoint(run.checkpoints, again) if resume and is_main_process() else None)
    if is_main_process():
        delete_later(run.checkpoints, checkpoint)
    clock = TrainingClock(checkpoint, rows_a_step(config))

    def build_trainer(at_most: int | None = None) -> LabelTrainer:
        trainer = LabelTrainer.build(
            model,
            replace(data, at_most=at_most),
            config.train,
            output_dir=str(run.checkpoints),
            seed=config.seed,
            callbacks=[progress, interrupt, clock, *inputs.callbacks],
        )
        progress.tokens_seen = clock.tokens_seen = lambda: trainer.tokens_seen
        progress.recent_loss = trainer.recent_loss
        return trainer

    over = None if checkpoint is None else finished_training(checkpoint)
    with interrupt, progress.stage:
        if checkpoint is not None and over is not None:
            trainer = build_trainer()
            load_best(model, checkpoint, over)
            trainer.state = over
        else:
            trainer = train_halving(build_trainer, model, run.checkpoints, checkpoint)
    model.eval()
    if inputs.trained is not None:
        return inputs.trained
    best = trainer.state.best_model_checkpoint
    last = trainer.state.global_step if config.train.keep == "last" else None
    step, key = last if best is None else step_of(Path(best)), f"eval_{data.metric.key}"
    of_step: dict[str, Any] = next((row for row in trainer.state.log_history if row["step"] == step and key in row), {})
    score = of_step.get(key, trainer.state.best_metric)
    best_step = BestStep(step, of_step.get("eval_macro_f1", score), score)
    return Measured(trainer, clock, peak, data, checkpoint).report(
        config.lora, counts, best_step, trainer.args.learning_rate
    )


def _print_settings(config: Config, counts: ParameterCounts, rate: float) -> None:
    size = f" (by size: {(counts.all - counts.trainable) / 1e6:,.1f} M weights)"
    why = size if config.train.learning_rate is None else ""
    print(
        f"trainable params: {counts.trainable:,} || all params: {counts.all:,} || "
        f"trainable%: {100 * counts.trainable / counts.all:.4f}; rank {config.lora.r}, "
        f"{config.lora.alpha_policy}; learning rate {rate:g}{why}, "
        f"{config.train.lr_scheduler_type}",
        file=sys.stderr,
    )
