"""Confidence intervals over test rows, by Wilson's formula or the bootstrap, and over draws, by Student's t.

Shapes: N examples, K labels, S resamples, U kinds of rows, D classifiers, R draws of one model. A draw is one
measurement of a model, for example with one choice of demonstrations or one seed.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from loraft.evaluation.metrics import (
    ALL_SCORES,
    INTERVAL_SCORES,
    LOWER_IS_BETTER,
    NOT_FRACTIONS,
    Floats,
    Ints,
    confusion,
    scores_of_many,
    scores_of_one,
)
from loraft.evaluation.shares import Interval, tango, wilson

CHUNK_CELLS = 4_000_000  # resamples are drawn in blocks of at most this many numbers, to bound memory


class Scored(Protocol):
    """What `spread` needs of a draw: its scores by name, and the intervals of some of them."""

    @property
    def intervals(self) -> Mapping[str, Interval]:
        """The intervals by the name of their score."""

    @property
    def scores(self) -> Mapping[str, float]:
        """The scores by name, fractions."""


@dataclass(frozen=True)
class Spread:
    """A score over several draws on the same rows, as fractions.

    Attributes:
        mean: over the draws.
        sd: standard deviation over the draws; None for one draw.
        interval: None for a score without a bootstrap interval.
    """

    mean: float
    sd: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Difference:
    """One side's score minus the other side's on the same rows, a fraction, with its interval and its test.

    Attributes:
        p_value: of the test alone, see `significance.compared`; None in files of earlier versions.
        p_holm: corrected for all tests of the comparison.
        note: which of the two decides, in words; None where the interval and the corrected test agree.
    """

    difference: float
    interval: Interval
    p_value: float | None = None
    p_holm: float | None = None
    note: str | None = None


def bootstrap(
    counts_KK: Ints, samples: int, confidence: float, seed: int, scores: Sequence[str] = INTERVAL_SCORES
) -> dict[str, Interval]:
    """Intervals of these scores for one classifier, by name: Wilson's for accuracy, else a bootstrap.

    Resampling the N test rows alone gives [1, 1] where all are right. So the resamples are drawn from N + 2 rows: one
    more is right and one more wrong, shared among the labels by their numbers of rows, the wrong one also evenly among
    the wrong answers. The interval is widened to contain the score where that moved it away.

    Args:
        counts_KK: confusion matrix of shape K x (K + 1).
        samples: S, resamples of the rows.
        confidence: coverage of the intervals, in (0, 1).
        seed: of the resampling.
        scores: names in `metrics.scores_of_many`; the interval of `label_f1:2` is called `label_f1`.

    Source:
        Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13 (percentiles); one success and one
        failure more: Laplace's rule of succession, as Agresti and Coull 1998, "Approximate is Better than 'Exact' for
        Interval Estimation of Binomial Proportions", add two of each.
    """
    support_K, num_labels = counts_KK.sum(axis=1), len(counts_KK)
    total = int(support_K.sum())
    pseudo_KK = np.where(np.eye(num_labels, num_labels + 1, dtype=bool), 1.0, 1 / (num_labels - 1))
    pseudo_KK[:, -1] = 0.0  # "no label" is no wrong label that scoring could give
    chances = (counts_KK + pseudo_KK * support_K[:, None] / total).ravel() / (total + 2)
    generator = np.random.default_rng(seed)
    blocks = []
    for block in blocks_of(samples, chances.size):
        drawn_SKK = generator.multinomial(total, chances, size=block).reshape(block, *counts_KK.shape)
        blocks.append(scores_of_many(drawn_SKK))
    values = scores_of_one(counts_KK)
    found = {}
    for name in scores:
        low, high = _percentiles(np.concatenate([one[name] for one in blocks]), confidence)
        found[name.partition(":")[0]] = min(low, values[name]), max(high, values[name])
    exact = {"accuracy": wilson(int(np.trace(counts_KK)), total, confidence)} if "accuracy" in scores else {}
    return {**found, **exact}


def differences(
    references_N: npt.ArrayLike,
    answers_RN: Sequence[npt.ArrayLike],
    others_RN: Sequence[npt.ArrayLike],
    num_labels: int,
    *,
    bootstrap_samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Difference]:
    """Mean score over the draws of one model minus that of another on the same rows, with paired intervals.

    Two things vary, as in `spread`. Test rows are resampled with replacement, the same rows for all draws of both
    models, so that what makes a row hard for both cancels out. The draws of each model, independent of each other, add
    Student's t for their mean in quadrature. The accuracies of one draw each have Tango's interval instead.

    Resampling the N rows alone gives [0, 0] where both models answer alike. So N rows are drawn from N + 2: one more
    that only the one model has right and one more that only the other has, as in `bootstrap` shared among the labels
    and the wrong answers. The interval is widened to contain the difference, and ends at -1 and 1.

    Args:
        references_N: label ids.
        answers_RN: label ids of each draw of the one model, -1 for no label.
        others_RN: those of the other model; it may have another number of draws.
        num_labels: K.
        bootstrap_samples: resamples of the rows.
        confidence: coverage of the intervals, in (0, 1).
        seed: of the resampling.

    Returns:
        A difference for each score of `metrics.scores_of_many`.

    Source:
        Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13, for percentile intervals; two rows
        more, one for each side: Bonett and Price 2012, "Adjusted Wald Confidence Interval for a Difference of Binomial
        Proportions Based on Paired Data".
    """
    answers_DN = np.stack([np.asarray(draw) for draw in (*answers_RN, *others_RN)])
    own = len(answers_RN)  # the first so many of D are the one model's
    measured = [scores_of_one(confusion(references_N, draw_N, num_labels)) for draw_N in answers_DN]
    # Rows with the same reference and the same D answers are of one kind: (1 + D, U), and how often each occurs.
    kinds, multiplicity_U = np.unique(np.vstack([np.asarray(references_N), answers_DN]), axis=1, return_counts=True)
    added, weights = _one_right_each(references_N, own, len(answers_DN), num_labels)
    kinds, weights_U = np.hstack([kinds, added]), np.concatenate([multiplicity_U, weights])
    columns_DU = np.where(kinds[1:] < 0, num_labels, kinds[1:])
    total = answers_DN.shape[1]
    resampled = _resampled(kinds[0], columns_DU, weights_U, total, num_labels, bootstrap_samples, seed)
    found = {}
    for name in measured[0]:
        values_D, values_DS = np.array([scores[name] for scores in measured]), [scores[name] for scores in resampled]
        gap = float(values_D[:own].mean() - values_D[own:].mean())
        gap_S = np.mean(values_DS[:own], axis=0) - np.mean(values_DS[own:], axis=0)
        low, high = _percentiles(gap_S, confidence)
        if name == "accuracy" and len(answers_DN) == 2:
            right, other_right = answers_DN == references_N
            low, high = tango(int((right & ~other_right).sum()), int((other_right & ~right).sum()), total, confidence)
        of_draws = math.hypot(_half_width(values_D[:own], confidence), _half_width(values_D[own:], confidence))
        low, high = _widened(gap, (min(low, gap), max(high, gap)), of_draws)
        lowest, highest = _limits(name)
        found[name] = Difference(gap, (max(lowest - highest, low), min(highest - lowest, high)))
    return found


def spread(draws: Sequence[Scored], score: str, confidence: float) -> Spread:
    """Mean, standard deviation and interval of a score over draws on the same rows, as fractions.

    Two things vary: the draw, with Student's t for the mean of R draws, and the test rows, with the mean of the draws'
    bootstrap intervals. The two half-widths are added in quadrature, so that the interval of one draw, of several
    draws, and of a baseline can be compared.

    Args:
        draws: R of them, at least one.
        score: one of `metrics.ALL_SCORES`.
        confidence: coverage of the interval, in (0, 1); that of the draws' own intervals.
    """
    values_R = np.array([draw.scores[score] for draw in draws])
    mean = float(values_R.mean())
    sd = float(values_R.std(ddof=1)) if len(values_R) > 1 else None
    if any(score not in draw.intervals for draw in draws):
        return Spread(mean, sd, None)
    low, high = np.mean([draw.intervals[score] for draw in draws], axis=0)
    low, high = _widened(mean, (float(low), float(high)), _half_width(values_R, confidence))
    lowest, highest = _limits(score)
    return Spread(mean, sd, (max(lowest, low), min(highest, high)))


def spreads(draws: Sequence[Scored], confidence: float) -> dict[str, Spread]:
    """The spread of each of `metrics.ALL_SCORES` that all draws have; files of an earlier version may lack one."""
    return {score: spread(draws, score, confidence) for score in ALL_SCORES if all(score in d.scores for d in draws)}


def _limits(score: str) -> Interval:
    """The lowest and the highest value that a score can have."""
    return NOT_FRACTIONS.get(score, 0.0), math.inf if score in LOWER_IS_BETTER else 1.0


def _one_right_each(references_N: npt.ArrayLike, own: int, draws: int, num_labels: int) -> tuple[Ints, Floats]:
    """Kinds of rows that only one of two models has right, (1 + D, U), and their weights, which sum to 1 for each.

    Args:
        references_N: label ids.
        own: the first so many of the D draws are the one model's.
        draws: D.
        num_labels: K.
    """
    support_K = np.bincount(np.asarray(references_N), minlength=num_labels)
    right, wrong = np.nonzero((support_K[:, None] > 0) & ~np.eye(num_labels, dtype=bool))
    sides = [
        np.stack([right, *([one] * own), *([two] * (draws - own))]) for one, two in ((right, wrong), (wrong, right))
    ]
    return np.hstack(sides), np.tile(support_K[right] / support_K.sum() / (num_labels - 1), 2)


def _resampled(
    references_U: Ints, columns_DU: Ints, weights_U: Floats, total: int, num_labels: int, samples: int, seed: int
) -> list[dict[str, Floats]]:
    """For each of D classifiers its scores, each of shape (S,), on S resamples of the test rows, the same for all D.

    Rows of one kind (same reference, same answers) are exchangeable, so drawing N rows with replacement is one
    multinomial draw over the U kinds: how often each kind was drawn is all that the scores depend on.

    Args:
        references_U: label id of each kind of row.
        columns_DU: each classifier's column in the confusion matrix for each kind of row.
        weights_U: how many rows are of each kind.
        total: N, rows of a resample.
        num_labels: K.
        samples: S.
        seed: of the resampling.
    """
    blocks: list[list[dict[str, Floats]]] = [[] for _ in columns_DU]
    for drawn_SU in _drawn(weights_U, total, samples, seed, num_labels):
        for own_blocks, columns_U in zip(blocks, columns_DU, strict=True):
            own_blocks.append(scores_of_many(confusions(drawn_SU, references_U, columns_U, num_labels)))
    return [{name: np.concatenate([one[name] for one in own]) for name in own[0]} for own in blocks]


def _drawn(weights_U: Floats, total: int, samples: int, seed: int, num_labels: int) -> Iterator[Ints]:
    """How often each resample contains each kind of row, (S, U), in blocks of S that fit into memory."""
    generator = np.random.default_rng(seed)
    # A resample takes U numbers here and a confusion matrix of K x (K + 1) numbers later.
    for block in blocks_of(samples, max(len(weights_U), num_labels * (num_labels + 1))):
        yield generator.multinomial(total, weights_U / weights_U.sum(), size=block)


def blocks_of(samples: int, cells: int) -> Iterator[int]:
    """How many resamples to draw at a time, where each takes so many numbers."""
    block = max(1, CHUNK_CELLS // cells)
    for start in range(0, samples, block):
        yield min(block, samples - start)


def confusions(drawn_SU: Ints, references_U: Ints, columns_U: Ints, num_labels: int) -> Ints:
    """The confusion matrices, S x K x (K + 1), of S resamples that contain each kind of row `drawn_SU` times."""
    counts_SKK = np.zeros((len(drawn_SU), num_labels, num_labels + 1), dtype=np.int64)
    for kind, (reference, column) in enumerate(zip(references_U, columns_U, strict=True)):
        counts_SKK[:, reference, column] += drawn_SU[:, kind]
    return counts_SKK


def _percentiles(values_S: Floats, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(values_S, [tail, 1 - tail])
    return float(low), float(high)


def _half_width(values_R: Floats, confidence: float) -> float:
    """Half the interval of the mean of R draws by Student's t; 0 for one draw."""
    from scipy.special import stdtrit

    repeats = len(values_R)
    if repeats < 2:
        return 0.0
    return float(stdtrit(repeats - 1, (1 + confidence) / 2) * values_R.std(ddof=1) / math.sqrt(repeats))


def _widened(value: float, interval: Interval, half_width: float) -> Interval:
    """The interval with `half_width` added in quadrature on each side of the value."""
    low, high = interval
    if half_width == 0:  # `value - hypot(0, value - low)` is not `low` to the last digit
        return interval
    return value - math.hypot(half_width, value - low), value + math.hypot(half_width, high - value)
