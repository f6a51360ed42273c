"""Finds labels that are probably wrong, from out-of-fold probabilities, by confident learning.

A row counts as confidently of a class where its probability of that class is at least the class's threshold: the mean
probability of the class over the rows that are labelled with it. So a class that the model finds hard is not suspected
more than an easy one. The counts of (label, confident class), scaled to the rows of each label, estimate how many rows
of each label are really of each other class; so many are flagged, those with the largest margin (`flagged`).

Letters: N rows, K labels.

Source: C. Northcutt, L. Jiang, I. Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021,
https://arxiv.org/abs/1911.00068, section 3; the tests compare it with cleanlab 2.9.
"""

import numpy as np

EPSILON = 1e-6  # below a threshold that still counts as reached, as in cleanlab


def thresholds(labels_N: np.ndarray, probs_NK: np.ndarray) -> np.ndarray:
    """The mean probability of each class over the rows with its label, (K,); 2 for a class without rows."""
    counts_K = np.bincount(labels_N, minlength=probs_NK.shape[1])
    sums_K = np.bincount(labels_N, weights=probs_NK[np.arange(len(labels_N)), labels_N], minlength=len(counts_K))
    return np.asarray(np.where(counts_K > 0, np.maximum(sums_K / np.maximum(counts_K, 1), EPSILON), 2.0))


def confident_joint(labels_N: np.ndarray, probs_NK: np.ndarray) -> np.ndarray:
    """How many rows with each label are estimated to be of each class: whole numbers, (K, K), label by class.

    The sum of each line is the number of rows with that label.
    """
    num_labels = probs_NK.shape[1]
    confident_NK = probs_NK >= thresholds(labels_N, probs_NK) - EPSILON
    # Of several confident classes the most probable one; argmax of the products is also right for a single one.
    class_N = np.where(confident_NK, probs_NK, -1.0).argmax(axis=1)
    several_N, any_N = confident_NK.sum(axis=1) > 1, confident_NK.any(axis=1)
    class_N = np.where(several_N, probs_NK.argmax(axis=1), class_N)
    joint_KK = np.zeros((num_labels, num_labels))
    np.add.at(joint_KK, (labels_N[any_N], class_N[any_N]), 1)
    np.fill_diagonal(joint_KK, np.maximum(joint_KK.diagonal(), 1))
    counts_K = np.bincount(labels_N, minlength=num_labels)
    scaled_KK = joint_KK * (counts_K / joint_KK.sum(axis=1))[:, None]
    return np.stack([_rounded(line, count) for line, count in zip(scaled_KK, counts_K.tolist(), strict=True)])


def _rounded(line_K: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers with this sum, as close to the line's as can be."""
    whole_K: np.ndarray = np.round(line_K).astype(np.int64)
    missing = total - int(whole_K.sum())
    step = 1 if missing > 0 else -1
    whole_K[np.argsort(line_K - whole_K)[::-step][: abs(missing)]] += step  # those that rounding moved furthest
    return whole_K


def flagged(labels_N: np.ndarray, probs_NK: np.ndarray) -> np.ndarray:
    """Whether each label is probably wrong, (N,): "prune by noise rate".

    For each pair of a label and another class, as many rows as `confident_joint` has there: those in which the class is
    most probable compared with the label. A row whose label is the most probable one is never flagged.
    """
    found_N: np.ndarray = np.zeros(len(labels_N), dtype=bool)
    for given, line in enumerate(confident_joint(labels_N, probs_NK)):
        rows = np.flatnonzero(labels_N == given)
        for other in np.flatnonzero(line):
            if other != given:
                margins = probs_NK[rows, other] - probs_NK[rows, given]
                found_N[rows[np.argsort(-margins, kind="stable")[: line[other]]]] = True
    found_N &= probs_NK.argmax(axis=1) != labels_N
    return found_N


def self_confidence(labels_N: np.ndarray, probs_NK: np.ndarray) -> np.ndarray:
    """The probability of each row's own label, (N,): the lower, the more probable it is that the label is wrong."""
    return np.asarray(probs_NK[np.arange(len(labels_N)), labels_N])
