"""Confident learning finds planted errors, and the same ones as cleanlab does."""

import numpy as np
import pytest

from loraft.evaluation.confident_learning import confident_joint, flagged, self_confidence, thresholds


def simulated(
    seed: int, rows: int = 2000, share: float = 0.05, priors: tuple[float, ...] = (0.45, 0.1, 0.45)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, out-of-fold probabilities of a classifier right in nine of ten rows, and which are wrong."""
    rng, num_labels = np.random.default_rng(seed), len(priors)
    true_N = rng.choice(num_labels, rows, p=priors)
    logits_NK = rng.normal(0, 1.2, (rows, num_labels)) + 3.2 * np.eye(num_labels)[true_N]
    probs_NK = np.exp(logits_NK) / np.exp(logits_NK).sum(axis=1, keepdims=True)
    wrong_N = np.zeros(rows, dtype=bool)
    wrong_N[rng.choice(rows, round(share * rows), replace=False)] = True
    return (true_N + wrong_N * rng.integers(1, num_labels, rows)) % num_labels, probs_NK, wrong_N


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("priors", [(0.45, 0.1, 0.45), (0.1, 0.2, 0.3, 0.35, 0.05), (0.5, 0.5)])
def test_the_joint_the_flagged_rows_and_the_qualities_are_those_of_cleanlab(
    seed: int, priors: tuple[float, ...]
) -> None:
    pytest.importorskip("cleanlab")
    from cleanlab.count import compute_confident_joint, get_confident_thresholds
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    labels_N, probs_NK, _ = simulated(seed, priors=priors)
    np.testing.assert_allclose(thresholds(labels_N, probs_NK), get_confident_thresholds(labels_N, probs_NK))
    np.testing.assert_array_equal(confident_joint(labels_N, probs_NK), compute_confident_joint(labels_N, probs_NK))
    theirs = find_label_issues(labels_N, probs_NK, filter_by="prune_by_noise_rate", n_jobs=1)
    np.testing.assert_array_equal(flagged(labels_N, probs_NK), theirs)
    scores_N = get_label_quality_scores(labels_N, probs_NK, method="self_confidence")
    np.testing.assert_allclose(self_confidence(labels_N, probs_NK), scores_N)


def test_planted_errors_stand_first_and_most_flagged_rows_are_errors() -> None:
    found, precision, recall = [], [], []
    for seed in range(20):
        labels_N, probs_NK, wrong_N = simulated(seed)
        first = np.argsort(self_confidence(labels_N, probs_NK))[: wrong_N.sum()]
        found.append(wrong_N[first].mean())
        flags_N = flagged(labels_N, probs_NK)
        precision.append(wrong_N[flags_N].mean())
        recall.append(flags_N[wrong_N].mean())
    assert np.mean(found) > 0.75
    assert np.mean(precision) > 0.5
    assert np.mean(recall) > 0.8


def test_without_errors_few_rows_are_flagged_and_a_row_whose_label_is_best_never_is() -> None:
    for seed in range(10):
        labels_N, probs_NK, _ = simulated(seed, share=0)
        flags_N = flagged(labels_N, probs_NK)
        assert not flags_N[probs_NK.argmax(axis=1) == labels_N].any()
        assert flags_N.mean() < 0.05


def test_the_joint_keeps_the_rows_of_each_label_also_of_one_without_rows() -> None:
    labels_N, probs_NK, _ = simulated(0)
    four_NK = np.concatenate([0.9 * probs_NK, np.full((len(probs_NK), 1), 0.1)], axis=1)
    joint_KK = confident_joint(labels_N, four_NK)
    np.testing.assert_array_equal(joint_KK.sum(axis=1), np.bincount(labels_N, minlength=4))
    assert joint_KK[:, 3].tolist() == [0, 0, 0, 0]
