"""`loraft.sweep`: runs the trials of a sweep, several in one training where that pays, and compares them.

Each trial is an ordinary run whose result depends on its own config alone. So the same sweep can be started again at
any time: finished trials are kept, interrupted ones are resumed, and only new ones are trained from the beginning.
"""

import gc
import shutil
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedModel

from loraft.config.schema import Config
from loraft.config.yaml_io import dump_config
from loraft.data.dataset import warn_of_notes
from loraft.display.progress import shown
from loraft.errors import BackboneError, ConfigError, LoraftError, NewerFileError, RunError, first_line
from loraft.evaluation.choosing import Metric
from loraft.evaluation.figures import draw_run_figures
from loraft.models.adapter import MOVING_INITS, count_trainable
from loraft.models.backbone import without_weights
from loraft.progress import each
from loraft.runs.atomic_files import write_text
from loraft.runs.environment import keep_environment
from loraft.runs.lock import locked
from loraft.runs.predictions import RunPredictions, read_predictions
from loraft.runs.resume import check_same_rows, of_its_version
from loraft.runs.run import Run
from loraft.runs.study_folders import SweepFolder
from loraft.studies.sweep import figures, joint_pass
from loraft.studies.sweep.grid import expand, sweep_name
from loraft.studies.sweep.ranking import rank_settings
from loraft.studies.sweep.records import SweepResult, TrialRecord, TrialScores
from loraft.studies.sweep.shared_backbone import SharedBackbone, Tell, key_of
from loraft.studies.sweep.trials import Trial, is_finished, run_of
from loraft.training.pipeline import run_training, start_run
from loraft.training.results import RunResult
from loraft.training.starting_point import refuse_start


def sweep(
    config: Config, *, force: bool = False, quiet: bool = False, tell: Tell = lambda message: None
) -> SweepResult:
    """Runs the trials of `config.sweep` that are not finished yet, and compares all of them.

    Args:
        config: its `sweep` section lists what is swept; see `grid.expand`.
        force: run finished trials again.
        quiet: show no progress.
        tell: called with each line for the user, for example at the start and end of each trial.

    Returns:
        A record of each trial with its scores, as fractions, or its error; the settings, each with the means over its
        seeds; the best setting and its best trial, chosen on the validation split.

    Raises:
        LoraftError: a mistake in the config or data, before anything is trained. An error inside a trial is recorded,
            and the other trials go on.

    Examples:
        >>> import loraft
        >>> config = loraft.resolve(overrides=["sweep.ranks=[1, 2]", "train.max_steps=2", "data.max_train_rows=32",
        ...     "data.max_eval_rows=8", "data.max_test_rows=8", f"output={folder}"])
        >>> result = loraft.sweep(config, quiet=True)
        >>> [(trial.name, trial.status) for trial in result.trials]
        [('r1', 'finished'), ('r2', 'finished')]
    """
    if not force:  # new trials have the validation rows of those that are there
        config = of_its_version(config, SweepFolder(Path(config.output.folder) / sweep_name(config)).config_path)
    trials = expand(config)
    for trial in trials:
        refuse_start(trial.config, "loraft sweep")
    with locked(run_of(trials[0]).path.parent, force=force), shown(quiet=quiet):
        return _sweep(config, trials, force=force, quiet=quiet, tell=tell)


def _sweep(config: Config, trials: Sequence[Trial], *, force: bool, quiet: bool, tell: Tell) -> SweepResult:
    """As `sweep`, in a locked directory."""
    waiting, errors = (list(trials), {}) if force else unfinished_and_damaged(trials)
    shared = SharedBackbone(tell)
    for trial in waiting:
        warn_of_notes(shared.splits(trial.config).values())
    for trial in trials if waiting else ():  # which are compared with the finished ones
        rows = run_of(trial).rows_path
        if trial not in waiting and rows.exists():
            now = {name: split.fingerprint for name, split in shared.splits(trial.config).items()}
            check_same_rows(rows, now, hint="put its data back as they were, or --force trains all trials again")
    folder = SweepFolder.create(Path(config.output.folder), sweep_name(config))
    write_text(folder.config_path, dump_config(_without_unused_ranks(config, trials)))
    keep_environment(folder.environment_path, config, anew=force)
    if waiting:  # else the results are replaced when the new ones are written
        folder.results_path.unlink(missing_ok=True)
    if finished := len(trials) - len(waiting) - len(errors):
        tell(f"{finished} of {len(trials)} trials are finished already")
    errors |= run_trials(waiting, folder, shared, config.sweep.joint, force=force, quiet=quiet)
    result = _conclude(folder, config, trials, errors)
    folder.figure_path.unlink(missing_ok=True)
    if result.best is not None:
        try:
            figures.sweep_curve(result, folder.figure_path)
            best = Run(Path(result.best.run))
            draw_run_figures(best, RunResult.of(best).after, best.read_labels())
        except Exception as error:  # the results of hours of training are written also without the figure
            tell(f"the figure cannot be drawn ({type(error).__name__}: {error})")
    folder.finish(result)
    for sentence in result.warnings:
        warnings.warn(sentence, stacklevel=2)
    return result


def count_parameters(trials: Sequence[Trial], tell: Tell) -> list[int | None]:
    """Number of weights that each trial trains, counted on backbones without weights (on torch's meta device).

    Args:
        trials: of the sweep.
        tell: called with a line for each trial that cannot be counted.

    Returns:
        One count for each trial; None where it cannot be counted.

    Raises:
        BackboneError: there is no such backbone.
    """
    bases: dict[str, PreTrainedModel | None] = {}
    counts: list[int | None] = []
    for trial in trials:
        key = key_of(trial.config, "model")
        try:
            if key not in bases:
                bases[key] = None  # stays None if loading fails: a backbone is tried once
                bases[key] = without_weights(trial.config.model)
            base = bases[key]
            counts.append(None if base is None else count_trainable(base, trial.config.lora))
        except (OSError, ValueError, LoraftError) as error:
            # Without a cause it is our own check: the name is no backbone. With one, a file or the network failed.
            if not error.__cause__ and isinstance(error, BackboneError):
                raise
            tell(f"{trial.name}: parameters cannot be counted: {first_line(error)}")
            counts.append(None)
    return counts


def unfinished_and_damaged(trials: Sequence[Trial]) -> tuple[list[Trial], dict[str, str]]:
    """The trials that have to be run, and the error messages of those whose run is damaged, by name.

    Raises:
        RunError: a run was begun with another config, or its results were written by a later version of loraft.
    """
    waiting: list[Trial] = []
    errors: dict[str, str] = {}
    for trial in trials:
        run = run_of(trial)
        try:
            finished = is_finished(trial)
        except ConfigError as error:
            errors[trial.name] = _damaged(run, error)
            continue
        if not finished:
            waiting.append(trial)
            continue
        try:
            RunResult.of(run)
        except NewerFileError:
            raise
        except RunError as error:
            errors[trial.name] = _damaged(run, error)
    return waiting, errors


def run_trials(
    waiting: Sequence[Trial], folder: SweepFolder, shared: SharedBackbone, joint: str, *, force: bool, quiet: bool
) -> dict[str, str]:
    """Runs the trials; returns the error messages of those that failed, by name."""
    tell = shared.tell
    errors: dict[str, str] = {}
    if force:
        joint_pass.clear(folder)
    if joint != "off":
        joint_pass.train_joint_passes(waiting, folder, shared, forced=joint == "on")
        shared.check()  # the next trial loads the backbone again if a joint training changed it
    # Sorted so that each backbone is loaded once; trials of one backbone keep their order.
    in_order = sorted(waiting, key=lambda t: key_of(t.config, "model", "quant"))
    for number, trial in enumerate(each(in_order, "trial", note=lambda t: t.name), start=1):
        tell(f"trial {number} of {len(waiting)}: {trial.name}")
        error_path = folder.error_path(run_of(trial).name)
        failure = None
        try:
            inputs = shared.inputs(trial.config)
            fit = None if joint == "off" else joint_pass.trained_in_pass(folder, trial)
            with locked(run_of(trial).path, force=force):  # `loraft train --resume` could go on with it alone
                run = start_run(trial.config, force=force, resume=not force)
                # Figures take longer than a small trial; those of the best one are drawn at the end.
                result = run_training(run, inputs, fit=fit, resume=not force, quiet=quiet, figures=False)
        except Exception as error:  # whatever it is, the other trials go on
            failure, trace = _in_words(error), traceback.format_exc()
            if not trial.config.output.texts:  # a message may quote a sentence: files name the kind of error only
                tell(failure)
                failure, trace = type(error).__name__, "".join(traceback.format_tb(error.__traceback__))
            write_text(error_path, trace)
        # The frozen weights must be bit-identical afterwards; if they are not, the next trial loads them again.
        if not shared.check() and failure is None and trial.config.lora.init_lora_weights not in MOVING_INITS:
            failure = "the training changed weights of the frozen backbone, so its scores cannot be reproduced"
            _undo(run_of(trial))
        if failure is not None:
            errors[trial.name] = failure
            tell(f"{trial.name} failed: {failure}")
        else:
            error_path.unlink(missing_ok=True)
            shared.keep_scores(trial.config, result.before)
            metric, scores = Metric.of(trial.config), result.after.scores
            tell(f"{trial.name}: {metric.word} {scores[metric.key]:.4f}, {result.train.seconds:.1f} s")
    gc.unfreeze()  # frozen by `shared` when it loaded the backbone
    if not errors:
        joint_pass.clear(folder)
    return errors


def _undo(run: Run) -> None:
    """Deletes the results and checkpoints of a run, so that the same command trains it again from the start."""
    run.results_path.unlink(missing_ok=True)
    shutil.rmtree(run.checkpoints, ignore_errors=True)


def _conclude(folder: SweepFolder, config: Config, trials: Sequence[Trial], errors: Mapping[str, str]) -> SweepResult:
    """Reads the runs of all trials, also of those that an earlier sweep finished, and ranks the settings."""
    records: list[TrialRecord] = []
    answers: dict[str, RunPredictions] = {}
    results: dict[str, RunResult] = {}
    metric = Metric.of(config)
    for trial in trials:
        run = run_of(trial)
        failure, measured = errors.get(trial.name), None
        if failure is None:
            try:
                found = RunResult.of(run)
                measured = _measured(found)
                answers[trial.name] = read_predictions(run)
            except Exception as error:  # any file of the run may be damaged
                failure, measured = _damaged(run, error), None
        records.append(
            TrialRecord(
                name=trial.name,
                run=str(run.path),
                settings=trial.settings,
                alpha_policy=trial.config.lora.alpha_policy,
                status="finished" if failure is None else "failed",
                measured=measured,
                error=failure,
            )
        )
        if failure is None:
            results[trial.name] = found
    ranking = rank_settings(records, answers, config.eval.confidence, metric)
    best = None if ranking.best is None else results[ranking.best.name]
    return SweepResult(
        path=str(folder.path),
        backbone=config.model.label,
        quant=config.quant.method,
        data=config.data.source,
        task=config.prompt.task,
        labels=tuple(config.prompt.labels or ()),
        keys=tuple(trials[0].settings),
        alpha_policies=tuple(dict.fromkeys(trial.config.lora.alpha_policy for trial in trials)),
        confidence=config.eval.confidence,
        trials=tuple(records),
        settings=ranking.settings,
        best_setting=ranking.best_setting,
        best=ranking.best,
        baselines=None if best is None else best.baselines,
        metric=metric,
        warnings=()
        if ranking.best is None or best is None
        else tuple(f"{ranking.best.name}: {one}" for one in best.warnings),
    )


def _measured(result: RunResult) -> TrialScores:
    """The part of a run's results that the sweep reports.

    Raises:
        RunError: they lack the score on the validation split.
    """
    after, train = result.after, result.train
    if train.validation_macro_f1 is None:
        raise RunError("train.validation_macro_f1 is not known")
    return TrialScores(
        scores=after.scores,
        intervals=after.intervals,
        n=after.n,
        trainable_parameters=train.parameters.trainable,
        validation_macro_f1=train.validation_macro_f1,
        validation_score=train.validation_score,
        seconds=train.seconds,
        resumed_from_step=train.resumed_from_step,
        steps=train.steps,
        peak_memory_mib=train.peak_memory_mib,
        joint=train.joint is not None,
    )


def _damaged(run: Run, error: Exception) -> str:
    return f"{run.path}: the run is damaged ({_in_words(error)}); delete the folder and run the same command again"


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, LoraftError) else f"{type(error).__name__}: {error}"


def _without_unused_ranks(config: Config, trials: Sequence[Trial]) -> Config:
    # If sweep.yaml listed default ranks that were not swept, then `--config sweep.yaml` would sweep them.
    used = "lora.r" in trials[0].settings and "lora.r" not in config.sweep.grid
    section = config.sweep if used else config.sweep.model_copy(update={"ranks": []})
    return config.model_copy(update={"sweep": section})
