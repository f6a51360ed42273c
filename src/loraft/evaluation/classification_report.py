"""The record of one evaluation: scores, their intervals, scores per label, confusion matrix and calibration.

Shapes: N examples, K labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from loraft.display.tabled import Measured, Tabled
from loraft.evaluation.calibration_error import calibration_error_interval
from loraft.evaluation.intervals import bootstrap
from loraft.evaluation.metrics import (
    ALL_SCORES,
    Floats,
    brier_score,
    classification_metric,
    confusion,
    expected_calibration_error,
    log_loss,
    per_label,
    scores_of_one,
)
from loraft.evaluation.shares import Interval, percent
from loraft.models.calibration import NONE, Calibration
from loraft.runs.records import Flat


@dataclass(frozen=True)
class LabelScores:
    """Precision, recall and F1 of one label, as fractions; `support` is the number of rows with that label."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class ProbabilityScores:
    """How good probabilities before calibration are, and the labels that they give.

    Attributes:
        expected_calibration_error: over 15 bins, in [0, 1].
        calibration_error_interval: of it.
        log_loss: nats.
        brier_score: in [0, 2].
        accuracy, macro_f1: fractions.
        changed: rows whose label is another one after calibration, by its biases.
    """

    expected_calibration_error: float
    calibration_error_interval: Interval
    log_loss: float
    brier_score: float
    accuracy: float
    macro_f1: float
    changed: int = 0


@dataclass(frozen=True, repr=False)
class EvaluationReport(Tabled, Flat, scores=ALL_SCORES):
    """The results of one evaluation.

    In JSON the scores are written beside the other fields: `{"accuracy": 0.9, ..., "n": 608, ...}`.

    Attributes:
        scores: each of `metrics.SCORES`, or of `MULTILABEL_SCORES`, as fractions; and what `choosing.Metric.added`
            adds.
        n: number of rows.
        confidence: coverage of the intervals, in (0, 1).
        intervals: low and high bound of each of `metrics.INTERVAL_SCORES` (of several labels a row: of each score), and
            of what was added.
        per_class: scores of each label, in id order.
        confusion: K x (K + 1) counts; row is the reference, column the prediction, the last column "no label";
            empty with several labels a row.
        no_label: share of answers that are no label.
        expected_calibration_error: over 15 bins, in [0, 1]; None without probabilities.
        log_loss: nats; None without probabilities.
        truncated: number of sentences that were shortened to fit the prompt.
        decode: `score` or `generate`.
        seconds: duration of scoring.
        cut: share of all sentences' tokens that were left out to fit the prompt.
        thresholds: probability of each label from which on it is predicted; None with one label a row.
        brier_score: in [0, 2]; None without probabilities, and in files of earlier versions.
        calibration_error_interval: of `expected_calibration_error`; None as `brier_score`.
        calibration: of the probabilities; None where there was none, and where each fold has its own.
        before_calibration: the scores without it; None where there was none.
    """

    scores: dict[str, float]
    n: int
    confidence: float
    intervals: dict[str, Interval]
    per_class: tuple[LabelScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    no_label: float
    expected_calibration_error: float | None
    log_loss: float | None
    truncated: int = 0
    decode: str = "score"
    seconds: float = 0.0
    cut: float = 0.0
    thresholds: tuple[float, ...] | None = None
    brier_score: float | None = None
    calibration_error_interval: Interval | None = None
    calibration: Calibration | None = None
    before_calibration: ProbabilityScores | None = None

    @property
    def accuracy(self) -> float:
        """Share of the rows that are right; with several labels a row, of those with all labels right."""
        return self.scores["accuracy" if self.thresholds is None else "subset_accuracy"]

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the labels that occur."""
        return self.scores["macro_f1"]

    @property
    def all_scores(self) -> dict[str, float]:
        """`scores`, and the F1 of each label as `f1:LABEL`."""
        return self.scores | {f"f1:{one.label}": one.f1 for one in self.per_class}

    def _table(self) -> tuple[str, list[dict[str, Any]]]:
        rows = [
            {"score": name, "value": Measured(value, self.intervals.get(name))}
            for name, value in self.all_scores.items()
        ]
        return f"{self.n:,} rows, {percent(self.confidence)} intervals", rows


@dataclass(frozen=True)
class Confused:
    """How many rows of a label are predicted to be another one, or no label, and their share of the label's rows."""

    reference: str
    predicted: str
    count: int
    share: float


def confusions(confusion: Sequence[Sequence[int]], labels: Sequence[str]) -> list[Confused]:
    """Returns the kinds of wrong answers that occur, the most frequent first; of equal ones, the higher share.

    Args:
        confusion: K x (K + 1) counts, row is the reference, the last column "no label".
        labels: the K names.
    """
    found = [
        Confused(label, (*labels, "no label")[k], int(count), count / sum(counts))
        for n, (label, counts) in enumerate(zip(labels, confusion, strict=True))
        for k, count in enumerate(counts)
        if count and k != n
    ]
    return sorted(found, key=lambda one: (-one.count, -one.share, one.reference, one.predicted))


def classification_report(
    references_N: npt.ArrayLike,
    probs_NK: npt.ArrayLike | None,
    predictions_N: npt.ArrayLike,
    labels: Sequence[str],
    *,
    bootstrap_samples: int,
    confidence: float,
    seed: int,
) -> EvaluationReport:
    """Returns all results that follow from references, probabilities and predictions.

    `truncated`, `decode`, `seconds` and `cut` are left at their defaults.

    Args:
        references_N: label ids.
        probs_NK: probabilities, or None where answers were generated.
        predictions_N: label ids, -1 for no label.
        labels: the K label names.
        bootstrap_samples: resamples of the rows.
        confidence: coverage of the intervals, in (0, 1).
        seed: of the resampling.

    Raises:
        ValueError: no rows, unequal lengths, or an id out of range.
    """
    counts_KK = confusion(references_N, predictions_N, len(labels))
    precision, recall, f1, _ = per_label(counts_KK)
    support = counts_KK.sum(axis=1)
    probs = None if probs_NK is None else np.asarray(probs_NK, dtype=np.float64)
    return EvaluationReport(
        scores=classification_metric(len(labels)).compute(predictions=predictions_N, references=references_N),
        n=int(support.sum()),
        confidence=confidence,
        intervals=bootstrap(counts_KK, bootstrap_samples, confidence, seed),
        per_class=tuple(
            LabelScores(label, float(precision[k]), float(recall[k]), float(f1[k]), int(support[k]))
            for k, label in enumerate(labels)
        ),
        confusion=tuple(tuple(row) for row in counts_KK.tolist()),
        no_label=float(counts_KK[:, -1].sum() / support.sum()),
        **probability_fields(references_N, probs, bootstrap_samples, confidence, seed),
    )


def probability_fields(
    references_N: npt.ArrayLike, probs_NK: Floats | None, bootstrap_samples: int, confidence: float, seed: int
) -> dict[str, Any]:
    """The fields of a report that say how good probabilities are; all None without them.

    Args:
        references_N: label ids.
        probs_NK: probabilities, or None.
        bootstrap_samples: resamples of the rows for the interval.
        confidence: coverage of the interval, in (0, 1).
        seed: of the resampling.
    """
    names = ("expected_calibration_error", "calibration_error_interval", "log_loss", "brier_score")
    if probs_NK is None:
        return dict.fromkeys(names)
    values = (
        expected_calibration_error(references_N, probs_NK),
        calibration_error_interval(references_N, probs_NK, bootstrap_samples, confidence, seed),
        log_loss(references_N, probs_NK),
        brier_score(references_N, probs_NK),
    )
    return dict(zip(names, values, strict=True))


def with_calibration(
    report: EvaluationReport,
    calibration: Calibration | None,
    references_N: npt.ArrayLike,
    raw_NK: Floats,
    predictions_N: npt.NDArray[np.int64],
    *,
    bootstrap_samples: int,
    seed: int,
) -> EvaluationReport:
    """The report of calibrated probabilities with the scores of those before; the report itself without calibration.

    Args:
        report: of the calibrated probabilities.
        calibration: of these; None where rows have different ones.
        references_N: label ids.
        raw_NK: the probabilities before.
        predictions_N: label ids of the calibrated ones.
        bootstrap_samples, seed: of the interval.
    """
    if calibration == NONE:
        return report
    fields = probability_fields(references_N, raw_NK, bootstrap_samples, report.confidence, seed)
    raw_N = raw_NK.argmax(axis=1)
    core = scores_of_one(confusion(references_N, raw_N, raw_NK.shape[1]))
    changed = int((raw_N != predictions_N).sum())
    before = ProbabilityScores(**fields, accuracy=core["accuracy"], macro_f1=core["macro_f1"], changed=changed)
    return replace(report, calibration=calibration, before_calibration=before)
