"""Scores of label sets equal scikit-learn's, thresholds equal brute force, intervals cover and do not collapse."""

import numpy as np
import pytest
from sklearn import metrics as reference

from loraft.evaluation import multilabel

LABELS = ["a", "b", "c", "d"]


def random_sets(seed: int, rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """References and probabilities that agree more often than not; the last label is never true."""
    generator = np.random.default_rng(seed)
    references = generator.random((rows, 4)) < [0.5, 0.2, 0.7, 0.0]
    return references, np.clip(generator.normal(0.3 + 0.4 * references, 0.25), 0.01, 0.99)


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_scikit_learn(seed: int) -> None:
    references, probs = random_sets(seed)
    predictions = probs >= 0.5
    found = multilabel.scores(references, predictions)
    occurs = np.flatnonzero((references | predictions).any(axis=0))
    assert found["subset_accuracy"] == pytest.approx(reference.accuracy_score(references, predictions))
    assert found["micro_f1"] == pytest.approx(reference.f1_score(references, predictions, average="micro"))
    assert found["hamming_loss"] == pytest.approx(reference.hamming_loss(references, predictions))
    expected = reference.f1_score(references, predictions, average="macro", labels=occurs, zero_division=0)
    assert found["macro_f1"] == pytest.approx(expected)
    each = reference.precision_recall_fscore_support(references, predictions, zero_division=0)
    for k, row in enumerate(multilabel.per_label(references, predictions, LABELS)):
        assert (row.precision, row.recall, row.f1, row.support) == pytest.approx([values[k] for values in each])


def test_empty_label_sets_are_right_where_they_are_predicted_and_have_no_f1() -> None:
    none = np.zeros((3, 4), dtype=bool)
    found = multilabel.scores(none, none)
    assert found == {"subset_accuracy": 1.0, "micro_f1": 0.0, "macro_f1": 0.0, "hamming_loss": 0.0}


def test_probabilities_are_those_of_yes_against_no() -> None:
    logs = np.log([[0.3, 0.02, 0.1, 0.06]])  # yes of two labels, then no of both
    np.testing.assert_allclose(multilabel.probabilities(logs), [[0.75, 0.25]])
    extreme = multilabel.probabilities([[0.0, -2000.0, -2000.0, 0.0]])
    assert extreme.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("seed", range(5))
def test_no_other_threshold_has_a_higher_f1(seed: int) -> None:
    references, probs = random_sets(seed)
    probs = np.round(probs, 1 if seed % 2 else 3)  # with ties, and nearly without
    found = multilabel.best_thresholds(references, probs)
    assert found[3] == 0.5  # a label without rows

    def f1(k: int, thresholds_T: np.ndarray) -> np.ndarray:
        given_NT, own_N1 = probs[:, [k]] >= thresholds_T, references[:, [k]]
        return np.asarray(2 * (given_NT & own_N1).sum(0) / (given_NT.sum(0) + own_N1.sum()))

    for k in range(3):
        assert f1(k, np.array([found[k]]))[0] >= f1(k, np.linspace(0, 1, 2001)).max() - 1e-12


@pytest.mark.parametrize(
    ("own", "probs", "threshold"),
    [
        ([1, 0], [0.9, 0.1], 0.5),  # 0.5 lies between
        ([1, 0], [0.9, 0.7], 0.8),  # the middle
        ([1, 0, 0], [0.3, 0.1, 0.05], 0.2),
        ([1, 1], [0.2, 0.1], 0.05),  # every row has it
        ([0, 0], [0.9, 0.8], 0.5),
        ([1, 0, 1], [0.6, 0.6, 0.6], 0.5),  # ties: all or none
        ([1, 0, 0], [0.0, 0.0, 0.0], 0.0),  # nothing parts rows of probability 0
        # Predicting one row (F1 2/3) is as good as predicting four (2 * 2 / 6): the place nearest to 0.5 is taken.
        ([1, 0, 0, 1], [0.9, 0.4, 0.35, 0.3], 0.5),
    ],
)
def test_a_threshold_is_the_one_nearest_to_one_half(own: list[int], probs: list[float], threshold: float) -> None:
    found = multilabel.best_thresholds(np.array(own, dtype=bool)[:, None], np.array(probs)[:, None])
    assert found == pytest.approx((threshold,))


def test_an_interval_holds_the_score_and_has_a_width_where_all_rows_are_right() -> None:
    references, probs = random_sets(1)
    for predictions in (probs >= 0.5, references):
        found = multilabel.intervals(references, [predictions], 200, 0.95, seed=1)
        for name, value in multilabel.scores(references, predictions).items():
            low, high = found[name]
            assert low <= value <= high, name
            assert high - low > 0.005, name


def test_an_interval_is_about_as_wide_as_that_of_a_plain_bootstrap() -> None:
    references, probs = random_sets(2, rows=200)
    predictions = probs >= 0.5
    generator, plain = np.random.default_rng(0), []
    for _ in range(400):
        drawn = generator.integers(0, 200, 200)
        plain.append(multilabel.scores(references[drawn], predictions[drawn])["micro_f1"])
    low, high = multilabel.intervals(references, [predictions], 1000, 0.95, seed=1)["micro_f1"]
    assert (low, high) == pytest.approx(np.quantile(plain, [0.025, 0.975]).tolist(), abs=0.012)


def test_the_interval_of_a_difference_is_of_the_paired_rows() -> None:
    references, probs = random_sets(3)
    predictions = probs >= 0.5
    found = multilabel.intervals(references, [predictions, predictions], 100, 0.95, seed=1)
    assert found["micro_f1"] == (0.0, 0.0)
    better = multilabel.intervals(references, [references, predictions], 100, 0.95, seed=1)
    assert better["micro_f1"][0] > 0
    assert better["hamming_loss"][1] < 0


def test_a_report_holds_scores_and_thresholds() -> None:
    references, probs = random_sets(4)
    settings = {"bootstrap_samples": 100, "confidence": 0.95, "seed": 1}
    report = multilabel.label_set_report(references, probs, (0.4, 0.5, 0.6, 0.5), LABELS, **settings)  # type: ignore[arg-type]
    predictions = probs >= [0.4, 0.5, 0.6, 0.5]
    assert report.scores == multilabel.scores(references, predictions)
    assert report.accuracy == report.scores["subset_accuracy"]
    assert report.confusion == ()
    expected = reference.log_loss(references.ravel(), probs.ravel())
    assert report.log_loss == pytest.approx(expected, rel=1e-6)
    assert report.to_json()["micro_f1"] == report.scores["micro_f1"]


def test_the_permutation_test_equals_all_swaps_by_brute_force() -> None:
    references, probs = random_sets(5, rows=9)
    own, other = probs >= 0.5, probs >= 0.75
    swaps = np.array(np.meshgrid(*[[False, True]] * 9)).reshape(9, -1).T[:, :, None]  # all 512

    def gaps(name: str) -> list[float]:
        return [
            multilabel.scores(references, np.where(swap, other, own))[name]
            - multilabel.scores(references, np.where(swap, own, other))[name]
            for swap in swaps
        ]

    found = multilabel.permutation(references, own, other, seed=1)
    for name in ("micro_f1", "macro_f1"):
        values = gaps(name)  # the first one swaps nothing
        exact = np.mean([abs(value) >= abs(values[0]) - 1e-12 for value in values])
        assert found[name] == pytest.approx(exact, abs=0.02)
    assert multilabel.permutation(references, own, own) == dict.fromkeys(found, 1.0)
