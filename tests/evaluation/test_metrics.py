"""Metrics against scikit-learn, scipy and brute force; intervals against their definitions."""

import math
import sys
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support
from sklearn.metrics import log_loss as sklearn_log_loss

from loraft.evaluation import classification_report, intervals, metrics, significance

LABELS = ["tiêu cực", "trung tính", "tích cực"]


@st.composite
def judged(draw, min_rows=1, max_rows=40):
    """References, predictions (-1: no label) and the number of labels."""
    num_labels = draw(st.integers(2, 5))
    size = draw(st.integers(min_rows, max_rows))
    references = draw(st.lists(st.integers(0, num_labels - 1), min_size=size, max_size=size))
    predictions = draw(st.lists(st.integers(-1, num_labels - 1), min_size=size, max_size=size))
    return np.array(references), np.array(predictions), num_labels


def random_rows(n, seed=0, accuracy=0.8):
    rng = np.random.default_rng(seed)
    references = rng.integers(0, 3, n)
    predictions = np.where(rng.random(n) < accuracy, references, rng.integers(-1, 3, n))
    probs = rng.dirichlet([1.0, 1.0, 1.0], n)
    return references, predictions, probs


def full(references, probs, predictions, **changes):
    options = {"bootstrap_samples": 1000, "confidence": 0.95, "seed": 7} | changes
    return classification_report.full(references, probs, predictions, LABELS, **options)


@given(judged())
def test_core_equals_scikit_learn(rows):
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
        },
        abs=1e-12,
    )


@given(judged())
def test_core_equals_counting_by_hand(rows):
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


def test_an_answer_that_is_no_label_is_wrong_and_no_class_of_its_own():
    # Recall 1/2 and 1, precision 1 and 1, so F1 2/3 and 1.
    scores = metrics.core([0, 0, 1], [0, -1, 1], 2)
    assert scores == pytest.approx({
        "accuracy": 2 / 3, "macro_f1": 5 / 6, "macro_precision": 1.0, "macro_recall": 0.75,
    })  # fmt: skip


def test_a_label_that_occurs_nowhere_does_not_lower_the_average():
    assert metrics.core([0, 2], [0, 2], 3)["macro_f1"] == 1.0


@pytest.mark.parametrize(
    ("references", "predictions"), [([], []), ([0, 1], [0]), ([-1], [0]), ([0], [3]), ([0], [-2]), ([0.5], [0])]
)
def test_rows_that_cannot_be_judged_are_refused(references, predictions):
    with pytest.raises(ValueError, match="must be"):
        metrics.core(references, predictions, 3)


@given(judged())
def test_confusion_equals_scikit_learn_with_no_label_as_last_column(rows):
    references, predictions, num_labels = rows
    relabelled = np.where(predictions == -1, num_labels, predictions)
    expected = confusion_matrix(references, relabelled, labels=range(num_labels + 1))[:num_labels]
    np.testing.assert_array_equal(metrics.confusion(references, predictions, num_labels), expected)


def test_the_evaluate_metric_equals_core_and_needs_no_hub(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    references, predictions, _ = random_rows(50)
    computed = metrics.classification_metric(3).compute(predictions=predictions, references=references)
    assert computed == metrics.core(references, predictions, 3)


def test_full_holds_core_and_the_rest_consistently():
    references, predictions, probs = random_rows(200)
    report = full(references, probs, predictions)
    assert metrics.core(references, predictions, 3).items() <= report.items()
    precision, recall, f1, support = precision_recall_fscore_support(references, predictions, labels=range(3))
    for k, row in enumerate(report["per_class"]):
        assert row["label"] == LABELS[k]
        assert [row["precision"], row["recall"], row["f1"]] == pytest.approx([precision[k], recall[k], f1[k]])
        assert row["support"] == support[k]
    assert np.sum(report["confusion"]) == report["n"] == 200
    assert report["no_label"] == np.mean(predictions == -1) > 0
    assert report["log_loss"] == pytest.approx(sklearn_log_loss(references, probs))


def test_generated_answers_have_no_calibration():
    references, predictions, _ = random_rows(20)
    report = full(references, None, predictions)
    assert report["expected_calibration_error"] is report["log_loss"] is None


def test_a_report_repeats_to_the_last_digit():
    references, predictions, probs = random_rows(100)
    assert full(references, probs, predictions) == full(references, probs, predictions)
    assert full(references, probs, predictions, seed=8) != full(references, probs, predictions)


@settings(deadline=None)
@given(judged(), st.integers(0, 9))
def test_the_accuracy_interval_contains_the_accuracy(rows, seed):
    # N times accuracy is a whole number, and the median of a binomial variable with a whole mean is that mean.
    references, predictions, num_labels = rows
    report = classification_report.full(
        references, None, predictions, list(map(str, range(num_labels))),
        bootstrap_samples=500, confidence=0.95, seed=seed,
    )  # fmt: skip
    low, high = report["intervals"]["accuracy"]
    assert low <= report["accuracy"] <= high


@pytest.mark.parametrize("seed", range(10))
def test_the_macro_f1_interval_contains_the_macro_f1(seed):
    references, predictions, _ = random_rows(120, seed)
    report = full(references, None, predictions)
    low, high = report["intervals"]["macro_f1"]
    assert low < report["macro_f1"] < high


def test_the_accuracy_interval_is_the_binomials():
    # 3,166 rows at 0.93: the 95 % interval is the accuracy +- 1.96 sqrt(0.93 * 0.07 / 3166) = +- 0.0089.
    references = np.zeros(3166, dtype=int)
    predictions = (np.arange(3166) >= round(0.93 * 3166)).astype(int)
    low, high = full(references, None, predictions, bootstrap_samples=4000)["intervals"]["accuracy"]
    assert [low, high] == pytest.approx(binom.ppf([0.025, 0.975], 3166, 0.93) / 3166, abs=0.001)


def test_resamples_have_the_distribution_of_rows_drawn_one_by_one():
    references, predictions, _ = random_rows(60)
    low, high = full(references, None, predictions, bootstrap_samples=4000)["intervals"]["macro_f1"]
    rng = np.random.default_rng(0)
    drawn = (rng.integers(0, 60, 60) for _ in range(4000))
    values = [metrics.core(references[rows], predictions[rows], 3)["macro_f1"] for rows in drawn]
    # The quantiles' own standard error at 4,000 samples is below 0.002.
    assert [low, high] == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.012)


def test_blocks_do_not_change_the_resamples(monkeypatch):
    references, predictions, _ = random_rows(80)
    whole = full(references, None, predictions)
    monkeypatch.setattr(intervals, "CHUNK_CELLS", 100)
    assert full(references, None, predictions) == whole


def test_calibration_error_equals_a_loop_over_bins():
    references, _, probs = random_rows(300)
    top, right = probs.max(axis=1), probs.argmax(axis=1) == references
    expected = 0.0
    for b in range(15):
        inside = (top > b / 15) & (top <= (b + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - top[inside].mean())
    assert metrics.expected_calibration_error(references, probs) == pytest.approx(expected)


def test_sure_and_right_is_calibrated_and_sure_and_wrong_is_not():
    sure = np.eye(2)[[0, 1]]
    assert metrics.expected_calibration_error([0, 1], sure) == 0.0
    assert metrics.expected_calibration_error([1, 0], sure) == 1.0
    assert math.isfinite(metrics.log_loss([1, 0], sure))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_equals_the_binomial_test_on_rows_that_differ(pairs):
    a, b = np.array(pairs).T
    result = significance.mcnemar(a, b)
    assert (result["b"], result["c"]) == (np.sum(a & ~b), np.sum(~a & b))
    differing = result["b"] + result["c"]
    expected = binomtest(result["b"], differing, 0.5).pvalue if differing else 1.0
    assert result["p_value"] == pytest.approx(expected)


def test_mcnemar_refuses_different_rows():
    with pytest.raises(ValueError, match="same rows"):
        significance.mcnemar([True], [True, False])


@given(st.lists(st.integers(-3, 3), max_size=9))
def test_the_sign_flip_test_counts_the_patterns_of_signs_that_are_as_extreme(gains):
    patterns = [sum(g * s for g, s in zip(gains, signs, strict=True)) for signs in product((-1, 1), repeat=len(gains))]
    expected = np.mean([abs(total) >= abs(sum(gains)) for total in patterns])
    assert significance.sign_flip(gains) == pytest.approx(expected)


def test_the_sign_flip_test_stays_exact_where_counts_of_patterns_pass_the_range_of_floats():
    gains = [1] * 1600 + [-1] * 1500  # 2 ** 3100 patterns
    assert significance.sign_flip(gains) == pytest.approx(binomtest(1500, 3100).pvalue, rel=1e-9)
    assert significance.sign_flip([3 * gain for gain in gains]) == pytest.approx(
        significance.sign_flip(gains), rel=1e-9
    )
    assert significance.sign_flip([2, -2, 0]) == 1.0


def test_holm_reproduces_the_textbook_example():
    # Holm's procedure by hand: 0.01 * 4, max(0.04, 0.03 * 3) ... in ascending order, made monotone, capped at 1.
    assert significance.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert significance.holm([0.9, 0.8]) == [1.0, 1.0]
    assert significance.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values, level):
    rejected = set()
    for step, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[index] * (len(p_values) - step) > level:
            break
        rejected.add(index)
    assert {i for i, p in enumerate(significance.holm(p_values)) if p <= level} == rejected


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_a_classifier_does_not_differ_from_itself(metric):
    references, predictions, _ = random_rows(50)
    result = intervals.paired_bootstrap(references, predictions, predictions, 3, metric=metric)
    assert result == {"difference": 0.0, "interval": [0.0, 0.0]}


def test_the_paired_interval_tells_a_better_classifier_and_changes_sign_with_the_order():
    references, good, _ = random_rows(400, accuracy=0.9)
    bad = random_rows(400, accuracy=0.5)[1]
    result = intervals.paired_bootstrap(references, good, bad, 3, metric="accuracy")
    low, high = result["interval"]
    assert 0 < low < result["difference"] < high
    assert result["difference"] == pytest.approx(np.mean(good == references) - np.mean(bad == references))
    other_way = intervals.paired_bootstrap(references, bad, good, 3, metric="accuracy")
    assert other_way["difference"] == -result["difference"]


def test_pairing_is_tighter_than_two_separate_intervals():
    references, one, _ = random_rows(400)
    other = one.copy()
    other[:10] = references[:10]
    low, high = intervals.paired_bootstrap(references, one, other, 3, metric="accuracy")["interval"]
    separate = full(references, None, one)["intervals"]["accuracy"]
    assert high - low < (separate[1] - separate[0]) / 2


def test_importing_metrics_brings_in_no_framework():
    import subprocess

    heavy = ["torch", "evaluate", "datasets", "scipy", "sklearn", "matplotlib"]
    probe = f"import sys, loraft.evaluation.metrics; sys.exit(bool(set({heavy}) & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0
