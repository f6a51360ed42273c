"""Reads the runs of a sweep's trials, whoever trained them, and ranks the settings."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from loraft.config.schema import Config
from loraft.errors import LoraftError, RunError
from loraft.evaluation.choosing import Metric
from loraft.evaluation.classification_report import EvaluationReport
from loraft.runs.predictions import RunPredictions, read_predictions
from loraft.runs.run import Run
from loraft.runs.study_folders import SweepFolder
from loraft.studies.sweep.ranking import rank_settings
from loraft.studies.sweep.records import SweepResult, TrialRecord, TrialScores
from loraft.studies.sweep.trials import Trial, run_of
from loraft.training.results import RunResult, TrainReport


def conclude(folder: SweepFolder, config: Config, trials: Sequence[Trial], errors: Mapping[str, str]) -> SweepResult:
    """Reads the runs of all trials, also of those that an earlier sweep finished, and ranks the settings."""
    records: list[TrialRecord] = []
    answers: dict[str, RunPredictions] = {}
    results: dict[str, RunResult] = {}
    for trial in trials:
        run = run_of(trial)
        failure, scores = errors.get(trial.name), None
        if failure is None:
            try:
                found = RunResult.of(run)
                scores = measured(found.after, found.train)
                answers[trial.name] = read_predictions(run)
                results[trial.name] = found
            except Exception as error:  # any file of the run may be damaged
                failure, scores = damaged(run, error), None
        records.append(
            TrialRecord(
                name=trial.name,
                run=str(run.path),
                settings=trial.settings,
                alpha_policy=trial.config.lora.alpha_policy,
                status="finished" if failure is None else "failed",
                measured=scores,
                error=failure,
            )
        )
    compared = compare(folder, config, records, answers)
    if compared.best is None:
        return compared
    return with_best(compared, results[compared.best.name])


def compare(
    folder: SweepFolder, config: Config, records: Sequence[TrialRecord], answers: Mapping[str, RunPredictions]
) -> SweepResult:
    """The result of a sweep with these trials, without what belongs to the run of the best one.

    Args:
        folder: of the sweep.
        config: of the sweep.
        records: of its trials, at least one.
        answers: predictions of the finished ones, by name, on the same rows.
    """
    metric = Metric.of(config)
    ranking = rank_settings(records, answers, config.eval.confidence, metric)
    return SweepResult(
        path=str(folder.path),
        backbone=config.model.label,
        quant=config.quant.method,
        data=config.data.source,
        task=config.prompt.task,
        labels=tuple(config.prompt.labels or ()),
        keys=tuple(records[0].settings),
        alpha_policies=tuple(dict.fromkeys(record.alpha_policy for record in records)),
        confidence=config.eval.confidence,
        trials=tuple(records),
        settings=ranking.settings,
        best_setting=ranking.best_setting,
        best=ranking.best,
        metric=metric,
    )


def with_best(compared: SweepResult, best: RunResult) -> SweepResult:
    """The result with the baselines and warnings of the best trial's run."""
    assert compared.best is not None
    told = tuple(f"{compared.best.name}: {one}" for one in best.warnings)
    return replace(compared, baselines=best.baselines, warnings=told)


def measured(report: EvaluationReport, train: TrainReport) -> TrialScores:
    """What the sweep reports of a trial.

    Args:
        report: of the rows that its scores are of.
        train: how it was trained.

    Raises:
        RunError: the report of the training lacks the score on the validation split.
    """
    if train.validation_macro_f1 is None:
        raise RunError("train.validation_macro_f1 is not known")
    return TrialScores(
        scores=report.scores,
        intervals=report.intervals,
        n=report.n,
        trainable_parameters=train.parameters.trainable,
        validation_macro_f1=train.validation_macro_f1,
        validation_score=train.validation_score,
        seconds=train.seconds,
        resumed_from_step=train.resumed_from_step,
        steps=train.steps,
        peak_memory_mib=train.peak_memory_mib,
        joint=train.joint is not None,
    )


def damaged(run: Run, error: Exception) -> str:
    """What is said of a run whose files cannot be read."""
    return f"{run.path}: the run is damaged ({in_words(error)}); delete the folder and run the same command again"


def in_words(error: Exception) -> str:
    """An error's message; of one that is no message for users, with its type."""
    return str(error) if isinstance(error, LoraftError) else f"{type(error).__name__}: {error}"
