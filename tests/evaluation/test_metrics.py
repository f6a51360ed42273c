"""Metrics against scikit-learn and counting by hand."""

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    matthews_corrcoef,
    mean_absolute_error,
    precision_recall_fscore_support,
)
from sklearn.metrics import log_loss as sklearn_log_loss

from loraft.evaluation import metrics

Judged = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]


@st.composite
def judged(draw: st.DrawFn) -> Judged:
    """References, predictions (-1: no label) and the number of labels."""
    num_labels = draw(st.integers(2, 5))
    size = draw(st.integers(1, 40))
    references = draw(st.lists(st.integers(0, num_labels - 1), min_size=size, max_size=size))
    predictions = draw(st.lists(st.integers(-1, num_labels - 1), min_size=size, max_size=size))
    return np.array(references), np.array(predictions), num_labels


@given(judged())
def test_core_equals_scikit_learn(rows: Judged) -> None:
    references, predictions, num_labels = rows
    occurring = sorted(set(references) | (set(predictions) - {-1}))
    precision, recall, f1, _ = precision_recall_fscore_support(
        references, predictions, labels=occurring, average="macro", zero_division=0
    )
    assert metrics.core(references, predictions, num_labels) == pytest.approx(
        {
            "accuracy": accuracy_score(references, predictions),
            "macro_f1": f1,
            "macro_precision": precision,
            "macro_recall": recall,
            "weighted_f1": f1_score(
                references, predictions, labels=range(num_labels), average="weighted", zero_division=0
            ),
            "mcc": matthews_corrcoef(references, predictions),
        },
        abs=1e-12,
    )


@given(judged())
def test_core_equals_counting_by_hand(rows: Judged) -> None:
    references, predictions, num_labels = rows
    pairs = list(zip(references.tolist(), predictions.tolist(), strict=True))
    f1 = []
    for k in range(num_labels):
        true, false = pairs.count((k, k)), sum((r == k) != (p == k) for r, p in pairs)
        if true + false:
            f1.append(2 * true / (2 * true + false))
    scores = metrics.core(references, predictions, num_labels)
    assert scores["accuracy"] == sum(r == p for r, p in pairs) / len(pairs)
    assert scores["macro_f1"] == pytest.approx(sum(f1) / max(len(f1), 1))


def test_an_answer_that_is_no_label_is_wrong_and_no_class_of_its_own() -> None:
    # Recall 1/2 and 1, precision 1 and 1, so F1 2/3 and 1.
    # Weighted F1 (2 * 2/3 + 1) / 3. MCC by hand: (2 * 3 - 2 - 1) / sqrt((9 - 5) * (9 - 3)) = 3 / sqrt(24).
    scores = metrics.core([0, 0, 1], [0, -1, 1], 2)
    assert scores == pytest.approx({
        "accuracy": 2 / 3, "macro_f1": 5 / 6, "macro_precision": 1.0, "macro_recall": 0.75,
        "weighted_f1": 7 / 9, "mcc": 3 / math.sqrt(24),
    })  # fmt: skip


@given(judged())
def test_ordinal_scores_equal_scikit_learn_with_no_label_as_the_farthest_label(rows: Judged) -> None:
    references, predictions, num_labels = rows
    # The rule: an answer that is no label is the largest error that the reference allows, upwards if both ends are.
    farthest = np.where(references <= num_labels - 1 - references, num_labels - 1, 0)
    counted = np.where(predictions < 0, farthest, predictions)
    scores = metrics.scores_of_one(metrics.confusion(references, predictions, num_labels))
    assert scores["mean_absolute_error"] == pytest.approx(mean_absolute_error(references, counted))
    if len(set(references) | set(counted)) == 1:  # scikit-learn's value is NaN
        assert scores["quadratic_kappa"] == 0.0
    else:
        kappa = cohen_kappa_score(references, counted, labels=range(num_labels), weights="quadratic")
        assert scores["quadratic_kappa"] == pytest.approx(kappa)


@given(judged())
def test_the_f1_of_each_label_equals_scikit_learn(rows: Judged) -> None:
    references, predictions, num_labels = rows
    scores = metrics.scores_of_one(metrics.confusion(references, predictions, num_labels))
    expected = f1_score(references, predictions, labels=range(num_labels), average=None, zero_division=0)
    assert [scores[f"label_f1:{k}"] for k in range(num_labels)] == pytest.approx(expected)


def test_a_label_that_is_only_predicted_counts_in_the_average() -> None:
    # Of labels 0 and 1: F1 2/3 and 0, precision 1 and 0, recall 1/2 and 0.
    scores = metrics.core([0, 0], [0, 1], 3)
    assert [scores[name] for name in ("macro_f1", "macro_precision", "macro_recall")] == [1 / 3, 0.5, 0.25]


def test_a_label_that_occurs_nowhere_does_not_lower_the_average() -> None:
    assert metrics.core([0, 2], [0, 2], 3)["macro_f1"] == 1.0


@pytest.mark.parametrize(
    ("references", "predictions"), [([], []), ([0, 1], [0]), ([-1], [0]), ([0], [3]), ([0], [-2]), ([0.5], [0])]
)
def test_rows_that_cannot_be_judged_are_refused(references: list[float], predictions: list[int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        metrics.core(references, predictions, 3)


@given(judged())
def test_confusion_equals_scikit_learn_with_no_label_as_last_column(rows: Judged) -> None:
    references, predictions, num_labels = rows
    relabelled = np.where(predictions == -1, num_labels, predictions)
    expected = confusion_matrix(references, relabelled, labels=range(num_labels + 1))[:num_labels]
    np.testing.assert_array_equal(metrics.confusion(references, predictions, num_labels), expected)


def test_the_evaluate_metric_equals_core_and_needs_no_hub(
    monkeypatch: pytest.MonkeyPatch, random_rows: Callable[..., Any]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    references, predictions, _ = random_rows(50)
    computed = metrics.classification_metric(3).compute(predictions=predictions, references=references)
    assert computed == metrics.core(references, predictions, 3)


def test_calibration_error_equals_a_loop_over_bins(random_rows: Callable[..., Any]) -> None:
    references, _, probs = random_rows(300)
    top, right = probs.max(axis=1), probs.argmax(axis=1) == references
    expected = 0.0
    for b in range(15):
        inside = (top > b / 15) & (top <= (b + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - top[inside].mean())
    assert metrics.expected_calibration_error(references, probs) == pytest.approx(expected)


def test_a_bin_holds_its_upper_edge_and_empty_bins_are_nan() -> None:
    # Confidences 1/2 (the edge of the first of two bins), 0.9 and 1; the second is wrong.
    probs = [[0.5, 0.5], [0.1, 0.9], [0.0, 1.0]]
    found = metrics.reliability_bins([0, 0, 1], probs, num_bins=2)
    assert {name: values.tolist() for name, values in found.items()} == {
        "count": [1.0, 2.0], "confidence": [0.5, 0.95], "accuracy": [1.0, 0.5],
    }  # fmt: skip
    empty = metrics.reliability_bins([1], [[0.0, 1.0]], num_bins=3)
    assert empty["count"].tolist() == [0.0, 0.0, 1.0]
    assert np.isnan([empty["confidence"][0], empty["accuracy"][1]]).all()


def test_log_loss_equals_scikit_learns(random_rows: Callable[..., Any]) -> None:
    references, _, probs = random_rows(200)
    assert metrics.log_loss(references, probs) == pytest.approx(sklearn_log_loss(references, probs))


def test_a_probability_of_0_costs_the_most_that_a_float_can_say() -> None:
    # -ln of the smallest normal float, 2 ** -1022, and 0 of the row that is right.
    assert metrics.log_loss([1, 1], [[1.0, 0.0], [0.0, 1.0]]) == pytest.approx(1022 * math.log(2) / 2)


def test_sure_and_right_is_calibrated_and_sure_and_wrong_is_not() -> None:
    sure = np.eye(2)[[0, 1]]
    assert metrics.expected_calibration_error([0, 1], sure) == 0.0
    assert metrics.expected_calibration_error([1, 0], sure) == 1.0
    assert math.isfinite(metrics.log_loss([1, 0], sure))


def test_every_score_has_a_name_in_tables_and_those_with_intervals_are_among_them() -> None:
    assert list(metrics.core([0], [0], 2)) == list(metrics.SCORES)
    assert set(metrics.INTERVAL_SCORES) <= set(metrics.SCORES)


def test_many_confusion_matrices_score_like_each_alone(random_rows: Callable[..., Any]) -> None:
    counts = [metrics.confusion(*random_rows(30, seed)[:2], 3) for seed in range(4)]
    together = metrics.scores_of_many(np.stack(counts))
    for i, one in enumerate(counts):
        assert {name: values[i] for name, values in together.items()} == metrics.scores_of_one(one)


def test_importing_metrics_brings_in_no_framework() -> None:
    heavy = ["torch", "evaluate", "datasets", "scipy", "sklearn", "matplotlib"]
    probe = f"import sys, loraft.evaluation.metrics; sys.exit(bool(set({heavy}) & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0
