"""Scores, intervals and thresholds where a row has any number of labels.

A label set is a row of a boolean matrix: whether each label applies. F1 is 0 where a label is neither among references
nor predictions; the macro F1 leaves such labels out, as `metrics` does.

Shapes: N rows, K labels, S resamples, U kinds of rows, M models.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from loraft.evaluation.classification_report import EvaluationReport, LabelScores, probability_fields
from loraft.evaluation.intervals import blocks_of
from loraft.evaluation.metrics import Floats, log_loss
from loraft.evaluation.shares import Interval, wilson
from loraft.evaluation.significance import PERMUTATIONS

Bools = npt.NDArray[np.bool_]
EVEN = 0.5  # the threshold of a label without one: where yes and no are as likely


def probabilities(log_probs_N2K: npt.ArrayLike) -> Floats:
    """Returns the probability that each label applies, (N, K): of yes against no.

    Args:
        log_probs_N2K: log-probabilities, in nats, of the answer that label k applies, for each k, and then that it does
            not. The two share prompt and label, so their difference is the log-odds of yes against no after these.
    """
    yes_NK, no_NK = np.split(np.asarray(log_probs_N2K, dtype=np.float64), 2, axis=1)
    return np.asarray(np.exp(-np.logaddexp(0.0, no_NK - yes_NK)))


def scores(references_NK: npt.ArrayLike, predictions_NK: npt.ArrayLike) -> dict[str, float]:
    """Returns every one of `metrics.MULTILABEL_SCORES` for the label sets of N rows, as fractions.

    Source:
        scikit-learn's `accuracy_score`, `f1_score(average=..., zero_division=0)` and `hamming_loss`.
    """
    references, predictions = np.asarray(references_NK, dtype=bool), np.asarray(predictions_NK, dtype=bool)
    found = _weighted(np.ones((1, len(references))), references, predictions)
    return {name: float(values_S[0]) for name, values_S in found.items()}


def per_label(references_NK: npt.ArrayLike, predictions_NK: npt.ArrayLike, labels: Sequence[str]) -> list[LabelScores]:
    """Returns precision, recall and F1 of each label, 0 where there is nothing to count, and its number of rows."""
    references, predictions = np.asarray(references_NK, dtype=bool), np.asarray(predictions_NK, dtype=bool)
    hits_K, given_K, own_K = (references & predictions).sum(0), predictions.sum(0), references.sum(0)
    precision_K, recall_K = hits_K / np.maximum(given_K, 1), hits_K / np.maximum(own_K, 1)
    f1_K = 2 * hits_K / np.maximum(given_K + own_K, 1)
    return [
        LabelScores(label, float(precision_K[k]), float(recall_K[k]), float(f1_K[k]), int(own_K[k]))
        for k, label in enumerate(labels)
    ]


def best_thresholds(references_NK: npt.ArrayLike, probs_NK: npt.ArrayLike) -> tuple[float, ...]:
    """Returns for each label the threshold with the best F1 on these rows; a label applies from it on.

    Between two neighbouring probabilities all thresholds are as good: 0.5 is taken if it lies there, else the middle.
    Of equally good places the one nearest to 0.5 is taken. A label without rows keeps 0.5.

    Source:
        Lipton, Elkan and Naryanaswamy 2014, "Optimal Thresholding of Classifiers to Maximize F1 Measure".
    """
    found = []
    for own_N, probs_N in zip(np.asarray(references_NK).T, np.asarray(probs_NK, dtype=np.float64).T, strict=True):
        if not own_N.any():
            found.append(EVEN)
            continue
        order = np.argsort(-probs_N, kind="stable")
        high_N = probs_N[order]  # the lowest probability of the rows that have the label, if the first n have it
        low_N = np.append(high_N[1:], 0.0)  # and the highest of the others
        f1_N = 2 * np.cumsum(own_N[order]) / (np.arange(1, len(order) + 1) + own_N.sum())
        middle_N = np.where((low_N < EVEN) & (high_N >= EVEN), EVEN, (low_N + high_N) / 2)
        f1_N[:-1][middle_N[:-1] <= low_N[:-1]] = -1.0  # no threshold parts rows of the same probability
        best_N = f1_N >= f1_N.max() - 1e-12
        found.append(float(min(middle_N[best_N], key=lambda threshold: abs(threshold - EVEN))))
    return tuple(found)


def numbers(references_NK: npt.ArrayLike, probs_NK: npt.ArrayLike) -> dict[str, float]:
    """Returns the scores with the thresholds that are best on these very rows, and the log loss as `loss`."""
    references, probs = np.asarray(references_NK, dtype=bool), np.asarray(probs_NK, dtype=np.float64)
    found = scores(references, probs >= np.asarray(best_thresholds(references, probs)))
    return {**found, "loss": log_loss(*answers(references, probs))}


def label_set_report(
    references_NK: npt.ArrayLike,
    probs_NK: npt.ArrayLike,
    thresholds_K: Sequence[float],
    labels: Sequence[str],
    *,
    bootstrap_samples: int,
    confidence: float,
    seed: int,
) -> EvaluationReport:
    """Returns all results that follow from label sets, probabilities and thresholds.

    Calibration error and log loss are those of the N K answers yes or no. The report has no confusion matrix.

    Args:
        references_NK: whether each label applies.
        probs_NK: the probability that it does.
        thresholds_K: from which on it is predicted.
        labels: the K label names.
        bootstrap_samples: resamples of the rows.
        confidence: coverage of the intervals, in (0, 1).
        seed: of the resampling.
    """
    references, probs = np.asarray(references_NK, dtype=bool), np.asarray(probs_NK, dtype=np.float64)
    predictions = probs >= np.asarray(thresholds_K)
    return EvaluationReport(
        scores=scores(references, predictions),
        n=len(references),
        confidence=confidence,
        intervals=intervals(references, [predictions], bootstrap_samples, confidence, seed),
        per_class=tuple(per_label(references, predictions, labels)),
        confusion=(),
        no_label=0.0,
        thresholds=tuple(thresholds_K),
        **probability_fields(*answers(references, probs), bootstrap_samples, confidence, seed),
    )


def intervals(
    references_NK: Bools, predictions_MNK: Sequence[Bools], samples: int, confidence: float, seed: int
) -> dict[str, Interval]:
    """Returns the interval of each score of one model, or of its difference between two: percentiles of a bootstrap.

    As in `intervals.bootstrap` the resamples are drawn from N + 2 rows, so that no interval collapses: one more in
    which every model has all labels right, and one more in which each has one label wrong. The rows that these two
    stand for are taken from all rows alike, the wrong labels evenly. Subset accuracy of one model has Wilson's
    interval.

    Args:
        references_NK: whether each label applies.
        predictions_MNK: of one model, or of two, whose difference is the first minus the second.
        samples: S.
        confidence: coverage, in (0, 1).
        seed: of the resampling.
    """
    rows, num_labels = references_NK.shape
    wrong_NK = references_NK ^ (np.arange(rows)[:, None] % num_labels == np.arange(num_labels))
    copies = (references_NK, wrong_NK)
    stacked = [np.concatenate([references_NK] * 3), *(np.concatenate([one, *copies]) for one in predictions_MNK)]
    chances = np.repeat([1.0, 1 / rows, 1 / rows], rows) / (rows + 2)
    kinds, kind_of = np.unique(np.hstack(stacked), axis=0, return_inverse=True)
    chances_U = np.bincount(kind_of.ravel(), weights=chances)
    references_UK, *predictions_MUK = np.split(kinds, len(stacked), axis=1)
    generator = np.random.default_rng(seed)
    blocks: dict[str, list[Floats]] = {}
    for block in blocks_of(samples, chances_U.size):
        weights_SU = generator.multinomial(rows, chances_U / chances_U.sum(), size=block).astype(np.float64)
        drawn = [_weighted(weights_SU, references_UK, one) for one in predictions_MUK]
        for name, values_S in drawn[0].items():
            blocks.setdefault(name, []).append(values_S - drawn[1][name] if len(drawn) > 1 else values_S)
    found = {}
    points = [scores(references_NK, one) for one in predictions_MNK]
    for name, parts in blocks.items():
        tail, value = (1 - confidence) / 2, points[0][name] - (points[1][name] if len(points) > 1 else 0.0)
        low, high = map(float, np.quantile(np.concatenate(parts), [tail, 1 - tail]))
        found[name] = min(low, value), max(high, value)
    if len(predictions_MNK) == 1:
        right = int((references_NK == predictions_MNK[0]).all(axis=1).sum())
        found["subset_accuracy"] = wilson(right, rows, confidence)
    return found


def permutation(
    references_NK: Bools, own_NK: Bools, other_NK: Bools, *, permutations: int = PERMUTATIONS, seed: int = 0
) -> dict[str, float]:
    """Returns the p-value of each score's difference between two models, by a paired permutation of rows.

    Null hypothesis and p-value are those of `significance.permutation`: the label sets of a row are as likely the other
    way round.
    """
    kinds, counts_U = np.unique(np.hstack([references_NK, own_NK, other_NK]), axis=0, return_counts=True)
    references_UK, own_UK, other_UK = np.split(kinds, 3, axis=1)
    references, predictions = np.concatenate([references_UK] * 2), np.concatenate([own_UK, other_UK])

    def gaps(swapped_SU: Floats) -> dict[str, Floats]:
        """The first model's score minus the second's, where so many rows of each kind are swapped."""
        kept_SU = counts_U - swapped_SU
        first = _weighted(np.hstack([kept_SU, swapped_SU]), references, predictions)
        second = _weighted(np.hstack([swapped_SU, kept_SU]), references, predictions)
        return {name: first[name] - second[name] for name in first}

    observed = gaps(np.zeros((1, len(counts_U))))
    generator, as_far = np.random.default_rng(seed), dict.fromkeys(observed, 0)
    for block in blocks_of(permutations, 2 * len(counts_U)):
        drawn = gaps(generator.binomial(counts_U, 0.5, size=(block, len(counts_U))).astype(np.float64))
        for name, values_S in drawn.items():
            as_far[name] += int((np.abs(values_S) >= np.abs(observed[name]) - 1e-12).sum())
    return {name: (1 + count) / (1 + permutations) for name, count in as_far.items()}


def answers(references_NK: Bools, probs_NK: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """The N K answers as 0 for no and 1 for yes, and their probabilities (N K, 2)."""
    return references_NK.ravel().astype(np.int64), np.stack([1 - probs_NK, probs_NK], axis=-1).reshape(-1, 2)


def _weighted(weights_SU: Floats, references_UK: Bools, predictions_UK: Bools) -> dict[str, Floats]:
    """Every score, each of shape (S,), where row u counts `weights_SU[s, u]` times."""
    hits_SK = weights_SU @ (references_UK & predictions_UK)
    both_SK = weights_SU @ references_UK + weights_SU @ predictions_UK
    total_S, occurs_SK = weights_SU.sum(axis=1), both_SK > 0
    f1_SK = 2 * hits_SK / np.maximum(both_SK, 1)
    return {
        "subset_accuracy": weights_SU @ (references_UK == predictions_UK).all(axis=1) / total_S,
        "micro_f1": 2 * hits_SK.sum(axis=1) / np.maximum(both_SK.sum(axis=1), 1),
        "macro_f1": f1_SK.sum(axis=1) / np.maximum(occurs_SK.sum(axis=1), 1),
        "hamming_loss": (both_SK - 2 * hits_SK).sum(axis=1) / (total_S * references_UK.shape[1]),
    }
