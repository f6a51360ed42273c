"""Typed records of a sweep's results, as `sweep.json` holds them: its trials, its settings, and the whole sweep.

A trial is one run. A setting is one combination of the swept values without the seed; its trials differ by seed alone.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from loraft.display.tabled import Measured, Tabled
from loraft.evaluation.baselines import Baselines
from loraft.evaluation.choosing import DEFAULT, Metric
from loraft.evaluation.intervals import Spread
from loraft.evaluation.metrics import ALL_SCORES
from loraft.evaluation.shares import Interval
from loraft.runs.records import Flat, FolderResult


@dataclass(frozen=True)
class TrialScores(Flat, scores=ALL_SCORES):
    """What was measured in the run of a finished trial.

    Attributes:
        scores, intervals: on the test split, as in `EvaluationReport`.
        n: test rows.
        trainable_parameters: weights of the adapter.
        validation_macro_f1: of the best step, a fraction.
        validation_score: `train.metric` of the best step.
        seconds, resumed_from_step, steps, peak_memory_mib: as in `training.results.TrainReport`.
        joint: whether the trial was trained in one pass with others.
    """

    scores: dict[str, float]
    intervals: dict[str, Interval]
    n: int
    trainable_parameters: int
    validation_macro_f1: float
    seconds: float
    resumed_from_step: int | None
    steps: int
    peak_memory_mib: int | None
    joint: bool = False
    validation_score: float | None = None  # not in files of earlier versions

    @property
    def chosen_by(self) -> float:
        """The score on validation that the best trial is chosen by."""
        return self.validation_macro_f1 if self.validation_score is None else self.validation_score


@dataclass(frozen=True)
class TrialRecord(Flat, measured=(*ALL_SCORES, *(field.name for field in fields(TrialScores)))):
    """One trial of a sweep.

    Attributes:
        name: inside the sweep.
        run: its run directory.
        settings: the swept keys with their values.
        alpha_policy: how the scale of the update follows the rank, in words.
        status: finished, failed, or pruned: ended by a search since it had fallen behind.
        measured: of a finished trial; None for any other.
        error: the message of a failed trial; None for any other.
        pruned_at: the step after which a pruned trial ended; None for any other.
    """

    name: str
    run: str
    settings: dict[str, Any]
    alpha_policy: str
    status: Literal["finished", "failed", "pruned"]
    measured: TrialScores | None = None
    error: str | None = None
    pruned_at: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields for JSON; those of `measured` are keys of the same object; no `error` or `pruned_at` if None."""
        content = super().to_json()
        return {key: value for key, value in content.items() if value is not None or key not in ("error", "pruned_at")}


@dataclass(frozen=True)
class SearchOutcome:
    """What a search adds to the results of a sweep, whose scores are then those on the validation split.

    Attributes:
        proposed: trials that the search asked for, each with its own number.
        repeated: those of them whose settings a trial before had; they were not trained again.
        test: scores of the best trial on the test split; None where none finished.
        looks: how many trials in the folder were judged on the test split: more than one where a trial that was added
            became the best, or where somebody finished one with `loraft train`.
    """

    proposed: int
    repeated: int
    test: TrialScores | None = None
    looks: int = 1


@dataclass(frozen=True)
class VersusBest:
    """The test of a setting against the best one, on the same test rows, paired by seed.

    Attributes:
        seeds: number of seeds that were paired.
        n: test rows.
        b: answers that only the setting has right, over all these seeds.
        c: answers that only the best setting has right.
        p_value: of `significance.sign_flip`; with one seed this is McNemar's exact test.
        p_holm: `p_value` corrected for the number of tests in the sweep.
        same: whether the difference is not significant, at the level 1 - confidence.
    """

    seeds: int
    n: int
    b: int
    c: int
    p_value: float
    p_holm: float = 1.0
    same: bool = True


@dataclass(frozen=True)
class SettingScores(Flat, scores=ALL_SCORES):
    """What was measured in the finished trials of one setting: means over their seeds.

    Attributes:
        scores: on the test split, as in `EvaluationReport`.
        validation_macro_f1, validation_score, seconds: means.
        trainable_parameters: weights of the adapter, the same for all seeds.
        peak_memory_mib: mean over the trials that know it; None where none does.
        versus_best: None for the best setting, and where no seeds and rows can be paired.
    """

    scores: dict[str, Spread]
    validation_macro_f1: float
    trainable_parameters: int
    seconds: float
    peak_memory_mib: int | None
    versus_best: VersusBest | None = None
    validation_score: float | None = None  # not in files of earlier versions

    @property
    def chosen_by(self) -> float:
        """The mean score on validation that the best setting is chosen by."""
        return self.validation_macro_f1 if self.validation_score is None else self.validation_score


@dataclass(frozen=True)
class SettingRecord(Flat, measured=(*ALL_SCORES, *(field.name for field in fields(SettingScores)))):
    """One setting of a sweep.

    Attributes:
        settings: the swept keys and values without the seed.
        alpha_policy: how the scale of the update follows the rank, in words.
        trials: names of its trials.
        seeds: number of finished trials.
        failed: number of failed trials.
        measured: None where no trial finished.
    """

    settings: dict[str, Any]
    alpha_policy: str
    trials: tuple[str, ...]
    seeds: int
    failed: int
    measured: SettingScores | None = None


@dataclass(frozen=True)
class Ranking:
    """The settings of a sweep, and which is best.

    Attributes:
        settings: in the order of their trials.
        best_setting: the one with the best mean of `train.metric` on the validation split; of equal ones, the one with
            the fewest parameters. None if no trial finished.
        best: the trial of `best_setting` that scores best on the validation split.
    """

    settings: tuple[SettingRecord, ...]
    best_setting: SettingRecord | None
    best: TrialRecord | None


@dataclass(frozen=True, repr=False)
class SweepResult(Tabled, FolderResult):
    """The results of a sweep.

    Attributes:
        path: folder of the sweep.
        backbone, quant, data, task, labels: from the sweep's config; a trial may differ where one of them is swept.
        keys: the swept keys.
        alpha_policies: each that occurs among the trials, once.
        confidence: coverage of the intervals.
        trials: in the order of the grid.
        settings, best_setting, best: as in `Ranking`.
        baselines: beside the best trial, on its test rows; None where its run has none.
        metric: that checkpoints and the best setting are chosen by.
        warnings: what the scores of the best trial hide, in sentences; see `evaluation.advice`.
        search: None for a sweep of a grid.
    """

    kind: Literal["sweep"] = field(default="sweep", kw_only=True)  # first in the file
    path: str
    backbone: str
    quant: str
    data: str
    task: str
    labels: tuple[str, ...]
    keys: tuple[str, ...]
    alpha_policies: tuple[str, ...]
    confidence: float
    trials: tuple[TrialRecord, ...]
    settings: tuple[SettingRecord, ...]
    best_setting: SettingRecord | None
    best: TrialRecord | None
    baselines: Baselines | None = None
    metric: Metric = DEFAULT
    warnings: tuple[str, ...] = ()
    search: SearchOutcome | None = None

    def _table(self) -> tuple[str, list[dict[str, Any]]]:
        rows = []
        for trial in self.trials:
            row: dict[str, Any] = {"trial": trial.name, **trial.settings}
            if (found := trial.measured) is not None:
                for name, value in found.scores.items():
                    row[name] = Measured(value, found.intervals.get(name))
                row |= {"validation": found.chosen_by, "parameters": found.trainable_parameters}
                row |= {"seconds": found.seconds, "peak_memory_mib": found.peak_memory_mib}
            rows.append(row | {"status": trial.status})
        best = (
            "no trial finished" if self.best is None else f"best {self.best.name}, by {self.metric.word} on validation"
        )
        return f"{self.path}; {best}", rows

    @property
    def failed(self) -> list[TrialRecord]:
        """The trials that failed."""
        return [trial for trial in self.trials if trial.status == "failed"]
