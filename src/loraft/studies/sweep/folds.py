"""`loraft train --folds K`: K adapters on stratified folds of the train split, and the scores of all its rows.

Each row is predicted by the one adapter that was trained without its fold. The checkpoint of a fold is picked on a
tenth of the other folds' rows, which is not trained on either: the fold's own rows decide nothing about its adapter.
Each fold is an ordinary run with `data.fold`, so that the same command goes on after an interruption.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from loraft.config.data_section import DataConfig
from loraft.config.kinds import refuse_label_sets
from loraft.config.resolve import load_config
from loraft.config.schema import Config
from loraft.config.trackers import refuse_missing_trackers
from loraft.config.yaml_io import dump_config
from loraft.data.dataset import Split, warn_of_notes
from loraft.data.examples import Examples
from loraft.display.progress import shown
from loraft.errors import ConfigError, RunError
from loraft.evaluation import advice
from loraft.evaluation.baselines import compared_over
from loraft.evaluation.choosing import Metric, report_for
from loraft.evaluation.classification_report import EvaluationReport, with_calibration
from loraft.models import manifest
from loraft.models.calibration import NONE, Calibration
from loraft.runs.atomic_files import write_text
from loraft.runs.environment import keep_environment
from loraft.runs.lock import locked
from loraft.runs.predictions import PredictedRow, predicted_ids, read_rows, write_rows
from loraft.runs.run import Run, default_name
from loraft.runs.study_folders import FoldsFolder
from loraft.studies.sweep.fold_records import FoldRecord, FoldsResult
from loraft.studies.sweep.local_engine import run_trials
from loraft.studies.sweep.runner import unfinished_and_damaged
from loraft.studies.sweep.shared_backbone import SharedBackbone, Tell
from loraft.studies.sweep.trials import Trial, run_of
from loraft.training.outcome import warnings_of_training
from loraft.training.results import RunResult
from loraft.training.starting_point import refuse_start


def folds_folder(config: Config, folds: int) -> FoldsFolder:
    """The directory of the training by folds of this config; it may not exist yet."""
    return FoldsFolder(Path(config.output.folder) / _name(config, folds))


def _name(config: Config, folds: int) -> str:
    return config.name or f"{default_name(config)}-{folds}folds"


def fold_trials(config: Config, folds: int) -> list[Trial]:
    """One trial for each fold: the config with `data.fold`, in a folder named after the config."""
    folder = _name(config, folds)
    trials = []
    for number in range(1, folds + 1):
        fold = f"{number}/{folds}"
        data = config.data.model_copy(update={"fold": fold})
        changes = {"data": data, "name": f"{folder}/fold{number}"}
        trials.append(Trial(f"fold{number}", {"data.fold": fold}, config.model_copy(update=changes)))
    return trials


def train_folds(
    config: Config, folds: int, *, force: bool = False, quiet: bool = False, tell: Tell = lambda message: None
) -> FoldsResult:
    """Trains the folds that are not finished yet, and judges the out-of-fold predictions of all rows.

    Args:
        config: everything that the result depends on.
        folds: K, at least 2.
        force: train finished folds again.
        quiet: show no progress.
        tell: called with each line for the user.

    Raises:
        LoraftError: a mistake in the config or data, such as a split that would not be read; a label with fewer rows
            than folds; rows that changed since a fold was trained; a fold that failed.
    """
    refuse_label_sets(config, "train --folds")
    refuse_start(config, "train --folds")
    refuse_missing_trackers(config)
    _refuse_own_splits(config)
    with locked(folds_folder(config, folds).path, force=force), shown(quiet=quiet):
        return _train_folds(config, folds, force=force, quiet=quiet, tell=tell)


def _train_folds(config: Config, folds: int, *, force: bool, quiet: bool, tell: Tell) -> FoldsResult:
    """As `train_folds`, in a locked directory."""
    trials = fold_trials(config, folds)
    shared = SharedBackbone(tell)
    parts = [(splits["train"], splits["test"]) for splits in (shared.splits(trial.config) for trial in trials)]
    warn_of_notes(train for train, _ in parts[:1])
    waiting, errors = (trials, {}) if force else unfinished_and_damaged(trials)
    for trial, (_, test) in zip(trials, parts, strict=True):
        run = run_of(trial)
        if trial not in waiting and trial.name not in errors:
            manifest.check_drawn(manifest.read(run.adapter), load_config(run.config_path), trial.config, test)
    folder = FoldsFolder.create(Path(config.output.folder), _name(config, folds))
    write_text(folder.config_path, dump_config(config))
    keep_environment(folder.environment_path, config, anew=force)
    if waiting:  # else the results are replaced when the new ones are written
        folder.results_path.unlink(missing_ok=True)
    if finished := len(trials) - len(waiting) - len(errors):
        tell(f"{finished} of {folds} folds are finished already")
    errors |= run_trials(waiting, folder, shared, "off", force=force, quiet=quiet)
    if errors:
        failed = "; ".join(f"{name}: {error}" for name, error in errors.items())
        raise RunError(f"{folder.path}: {len(errors)} of {folds} folds failed ({failed}); the same command goes on")
    runs = [run_of(trial) for trial in trials]
    results = [RunResult.of(run) for run in runs]
    by_fold = [(read_rows(run), one.after.calibration or NONE) for run, one in zip(runs, results, strict=True)]
    rows = [row for of_fold, _ in by_fold for row in of_fold]
    metric, labels = Metric.of(config), tuple(config.prompt.labels or ())
    report, predictions_N = _judged(config, by_fold, labels)
    report = replace(
        report,
        truncated=sum(one.after.truncated for one in results),
        cut=float(np.average([one.after.cut for one in results], weights=[one.after.n for one in results])),
    )
    first = parts[0][0]
    whole = Split("train", Examples(one for _, test in parts for one in test.examples), first.source)
    told = advice.of_evaluation(config, report, whole, predictions_N, first, out_of_fold=True)
    of_each = {}
    for trial, run, one in zip(trials, runs, results, strict=True):
        validation = shared.splits(trial.config)["validation"]
        of_each[trial.name] = warnings_of_training(run, trial.config, one.train, len(validation))
    told += _of_trainings(of_each)
    result = FoldsResult(
        path=str(folder.path),
        backbone=config.model.label,
        data=config.data.source,
        task=config.prompt.task,
        labels=labels,
        folds=tuple(
            FoldRecord(trial.name, one.run, len(train), len(test), one.train.best_step, one.after.scores[metric.key])
            for trial, one, (train, test) in zip(trials, results, parts, strict=True)
        ),
        report=report,
        baselines=compared_over(config, parts, predictions_N, "adapter"),
        metric=metric,
        warnings=tuple(told),
        kept=config.train.keep,
    )
    write_rows(Run(folder.path), sorted(rows, key=lambda row: row.row), texts=config.output.texts)
    folder.finish(result)
    for sentence in told:
        warnings.warn(sentence, stacklevel=2)
    return result


def _refuse_own_splits(config: Config) -> None:
    data, default = config.data, DataConfig()
    named = [key for key in ("split", "validation_split", "test_split") if getattr(data, key) != getattr(default, key)]
    if named:
        given = ", ".join(f"data.{key}={getattr(data, key)}" for key in named)
        raise ConfigError(
            "--folds: draws validation and test rows from the whole train split, and reads no other (got"
            f" {given}); leave out {'this' if len(named) == 1 else 'these'}, or --folds"
        )


def _of_trainings(told: Mapping[str, Sequence[str]]) -> list[str]:
    """Warnings about the trainings of the folds: each kind once, in the words of the first fold that has it."""
    kinds: dict[str, dict[str, str]] = {}  # by what is said before numbers: fold and sentence
    for fold, sentences in told.items():
        for sentence in sentences:
            kinds.setdefault(sentence.partition(" (")[0], {})[fold] = sentence
    return [f"{', '.join(of)}: {next(iter(of.values()))}" for of in kinds.values()]


def _judged(
    config: Config, by_fold: Sequence[tuple[Sequence[PredictedRow], Calibration]], labels: tuple[str, ...]
) -> tuple[EvaluationReport, np.ndarray]:
    """The report on the out-of-fold predictions, each calibrated by its own fold's adapter, and their label ids."""
    rows = [row for of_fold, _ in by_fold for row in of_fold]
    predictions_N = predicted_ids(rows, labels)
    probs = [[row.probs[label] for label in labels] for row in rows if row.probs is not None]
    references = [labels.index(row.label) for row in rows if isinstance(row.label, str)]
    report = report_for(config, references, probs or None, predictions_N, labels)
    if not probs or all(calibration == NONE for _, calibration in by_fold):
        return report, predictions_N
    ends = np.cumsum([len(of_fold) for of_fold, _ in by_fold])[:-1]
    parts = zip(by_fold, np.split(np.array(probs), ends), strict=True)
    raw_NK = np.concatenate([calibration.raw(probs_NK) for (_, calibration), probs_NK in parts])
    settings = {"bootstrap_samples": config.eval.bootstrap_samples, "seed": config.seed}
    return with_calibration(report, None, references, raw_NK, predictions_N, **settings), predictions_N
