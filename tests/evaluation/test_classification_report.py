"""The report of an evaluation: consistent with its parts, repeatable, and the same after a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import precision_recall_fscore_support

from loraft.evaluation import intervals, metrics
from loraft.evaluation.classification_report import EvaluationReport, classification_report
from loraft.runs.records import read_record, write_record

LABELS = ["tiêu cực", "trung tính", "tích cực"]
Rows = Callable[..., Any]


def full(references: Any, probs: Any, predictions: Any, **changes: Any) -> EvaluationReport:
    options = {"bootstrap_samples": 1000, "confidence": 0.95, "seed": 7} | changes
    return classification_report(references, probs, predictions, LABELS, **options)


def test_full_holds_core_and_the_rest_consistently(random_rows: Rows) -> None:
    references, predictions, probs = random_rows(200)
    report = full(references, probs, predictions)
    assert report.scores == metrics.core(references, predictions, 3)
    assert (report.accuracy, report.macro_f1) == (report.scores["accuracy"], report.scores["macro_f1"])
    precision, recall, f1, support = precision_recall_fscore_support(references, predictions, labels=range(3))
    for k, row in enumerate(report.per_class):
        assert row.label == LABELS[k]
        assert [row.precision, row.recall, row.f1] == pytest.approx([precision[k], recall[k], f1[k]])
        assert row.support == support[k]
    assert np.array_equal(report.confusion, metrics.confusion(references, predictions, 3))
    assert np.sum(report.confusion) == report.n == 200
    assert report.no_label == np.mean(predictions == -1) > 0
    assert report.log_loss == pytest.approx(sklearn_log_loss(references, probs))
    assert report.expected_calibration_error == metrics.expected_calibration_error(references, probs)


def test_its_intervals_are_the_bootstraps_with_its_settings(random_rows: Rows) -> None:
    references, predictions, _ = random_rows(50)
    report = full(references, None, predictions, bootstrap_samples=100, confidence=0.5, seed=3)
    counts = metrics.confusion(references, predictions, 3)
    assert report.confidence == 0.5
    assert report.intervals == intervals.bootstrap(counts, 100, 0.5, 3)
    assert set(report.intervals) == set(metrics.INTERVAL_SCORES)


def test_generated_answers_have_no_calibration(random_rows: Rows) -> None:
    references, predictions, _ = random_rows(20)
    report = full(references, None, predictions)
    assert report.expected_calibration_error is report.log_loss is None


def test_a_report_repeats_to_the_last_digit(random_rows: Rows) -> None:
    references, predictions, probs = random_rows(100)
    assert full(references, probs, predictions) == full(references, probs, predictions)
    assert full(references, probs, predictions, seed=8) != full(references, probs, predictions)


@pytest.mark.parametrize("scored", [True, False])
def test_a_report_is_the_same_after_a_file(tmp_path: Path, random_rows: Rows, scored: bool) -> None:
    references, predictions, probs = random_rows(30)
    report = full(references, probs if scored else None, predictions)
    write_record(tmp_path / "before.json", report)
    assert read_record(tmp_path / "before.json", EvaluationReport, "") == report


def test_in_json_the_scores_stand_beside_the_other_fields(random_rows: Rows) -> None:
    references, predictions, probs = random_rows(30)
    content = full(references, probs, predictions).to_json()
    # The keys of `metrics.json` since version 0.1, in their order.
    assert list(content) == [
        *metrics.SCORES, "n", "confidence", "intervals", "per_class", "confusion", "no_label",
        "expected_calibration_error", "log_loss", "truncated", "decode", "seconds", "cut", "thresholds",
        "brier_score", "calibration_error_interval", "calibration", "before_calibration",
    ]  # fmt: skip
    assert list(content["per_class"][0]) == ["label", "precision", "recall", "f1", "support"]
