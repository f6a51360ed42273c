"""Significance tests of classifiers on the same rows, and the one rule by which a difference counts as shown.

The rule: accuracy is tested by McNemar's test, macro F1 by a paired permutation over rows; Holm's correction covers all
scores of all comparisons that are made together; a difference is shown where the corrected p-value is at most
1 - confidence.

Shapes: N examples, K labels, R draws of one model, S permutations, U kinds of rows.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from loraft.evaluation.intervals import Difference, blocks_of, confusions, differences
from loraft.evaluation.metrics import (
    ALL_SCORES,
    INTERVAL_SCORES,
    LOWER_IS_BETTER,
    Floats,
    confusion,
    scores_of_many,
    scores_of_one,
)

PERMUTATIONS = 9_999  # (1 + S) is then a round number; the smallest p-value is 0.0001

BETTER, WORSE, UNCLEAR = "better", "worse", "cannot be told apart"  # every verdict in tables and reports

Draws = Sequence[npt.ArrayLike]  # label ids of each of R draws on the N rows, -1 for no label


@dataclass(frozen=True)
class PairedTest:
    """Result of McNemar's test.

    Attributes:
        b: rows that only the first classifier has right.
        c: rows that only the second classifier has right.
        p_value: 1.0 where `b` and `c` are 0.
    """

    b: int
    c: int
    p_value: float


def mcnemar(correct_a_N: npt.ArrayLike, correct_b_N: npt.ArrayLike) -> PairedTest:
    """Exact two-sided McNemar test: whether one of two classifiers is right more often on the same rows.

    Args:
        correct_a_N: which rows the first classifier has right.
        correct_b_N: which rows the second classifier has right.

    Raises:
        ValueError: they are not equally long.

    Source:
        McNemar 1947, "Note on the Sampling Error of the Difference Between Correlated Proportions or Percentages"; the
        exact form is the binomial test of b out of b + c at 1/2.
    """
    a, b = np.asarray(correct_a_N, dtype=bool), np.asarray(correct_b_N, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(f"both must be judged on the same rows (got {a.shape}, {b.shape})")
    return PairedTest(int((a & ~b).sum()), int((b & ~a).sum()), sign_flip(a.astype(np.int64) - b))


def sign_flip(gains_N: npt.ArrayLike) -> float:
    """P-value of the exact two-sided sign-flip test: whether paired differences on the same rows have a direction.

    Null hypothesis: the difference on each row is as likely with the opposite sign, independently of other rows. The
    answers of several seeds to one row are not independent; they are summed to one difference per row first.

    Args:
        gains_N: whole numbers, for example the number of seeds for which a is right on the row, minus the same for b.

    Returns:
        The share of the 2^N sign patterns whose sum lies at least as far from 0 as the observed sum; 1.0 where no row
        differs. For gains of -1, 0 and 1 this is McNemar's exact test.

    Source:
        Fisher 1935, "The Design of Experiments", section 21; Good 2005, "Permutation, Parametric, and Bootstrap Tests
        of Hypotheses", chapter 3 (matched pairs).
    """
    from scipy.special import gammaln

    gains = np.asarray(gains_N, dtype=np.int64)
    # Let P be the sum of those |gains| whose random sign is plus, and chances[p] the probability of P = p. Rows with
    # |gain| = size add size * Binomial(rows, 1/2) to P; different sizes are independent, so convolve them.
    chances = np.ones(1)
    for size, rows in enumerate(np.bincount(np.abs(gains))):
        if size and rows:
            plus = np.arange(rows + 1)
            of_size = np.zeros(size * rows + 1)
            # The binomial probabilities, by logarithms: 2 ** rows may exceed the range of floats.
            of_size[::size] = np.exp(
                gammaln(rows + 1) - gammaln(plus + 1) - gammaln(rows - plus + 1) - rows * np.log(2)
            )
            chances = np.convolve(chances, of_size)
    sums = 2 * np.arange(len(chances)) - (len(chances) - 1)  # plus minus minus: P - (total - P)
    return float(chances[np.abs(sums) >= abs(gains.sum())].sum() / chances.sum())


def permutation(
    references_N: npt.ArrayLike,
    answers_RN: Draws,
    others_RN: Draws,
    num_labels: int,
    *,
    score: str = "macro_f1",
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> float:
    """P-value of the paired permutation test: whether the score of one of two models is higher on the same rows.

    Null hypothesis: on each row the answers of the two models are as likely the other way round, independently of other
    rows. So each permutation swaps them on every row with probability 1/2. The draws of a model answer the same rows
    and are not independent: a row is swapped in all draws together, and their scores are averaged.

    Args:
        references_N: label ids.
        answers_RN: the draws of one model.
        others_RN: those of the other; as many, or one of the two has one draw.
        num_labels: K.
        score: a name in `metrics.scores_of_many`.
        permutations: S.
        seed: of the permutations.

    Returns:
        (1 + the number of permutations whose difference is at least as large as the observed one) / (1 + S).

    Source:
        Good 2005, "Permutation, Parametric, and Bootstrap Tests of Hypotheses", chapter 3 (matched pairs); Phipson and
        Smyth 2010, "Permutation P-values Should Never Be Zero", for the 1 added.
    """
    own_RN, other_RN = (np.stack([np.asarray(one) for one in draws]) for draws in (answers_RN, others_RN))
    own_RN, other_RN = np.broadcast_arrays(own_RN, other_RN)
    # Rows with the same reference and the same answers are of one kind: it is enough to draw how many of each kind are
    # swapped. Kinds on which both models answer alike stay as they are.
    rows = np.vstack([np.asarray(references_N)[None], own_RN, other_RN])
    kinds, multiplicity_U = np.unique(rows, axis=1, return_counts=True)
    references_U = kinds[0]
    columns = np.where(kinds[1:] < 0, num_labels, kinds[1:]).reshape(2, len(own_RN), -1)

    def gaps(swapped_SU: npt.NDArray[np.int64]) -> Floats:
        """The difference of the mean scores, (S,), where so many rows of each kind are swapped."""
        kept_SU, total_S = multiplicity_U - swapped_SU, np.zeros(len(swapped_SU))
        for own_U, other_U in zip(*columns, strict=True):
            for sign, first_U, second_U in ((1, own_U, other_U), (-1, other_U, own_U)):
                counts_SKK = confusions(kept_SU, references_U, first_U, num_labels)
                counts_SKK += confusions(swapped_SU, references_U, second_U, num_labels)
                total_S += sign * scores_of_many(counts_SKK)[score]
        return total_S / len(own_RN)

    observed = abs(gaps(np.zeros((1, len(multiplicity_U)), dtype=np.int64))[0])
    generator, reached = np.random.default_rng(seed), 0
    for block in blocks_of(permutations, max(len(multiplicity_U), num_labels * (num_labels + 1))):
        swapped_SU = generator.binomial(multiplicity_U, 0.5, size=(block, len(multiplicity_U)))
        reached += int((np.abs(gaps(swapped_SU)) >= observed - 1e-12).sum())  # equal sums may differ by rounding
    return (1 + reached) / (1 + permutations)


def compared(
    references_N: npt.ArrayLike,
    pairs: Sequence[tuple[Draws, Draws]],
    num_labels: int,
    *,
    bootstrap_samples: int,
    confidence: float,
    seed: int,
    scores: Sequence[str] = INTERVAL_SCORES,
) -> list[dict[str, Difference]]:
    """For each pair of models the differences of these scores, with intervals and corrected p-values.

    Accuracy is tested by McNemar's test (over several draws of a model by the sign-flip test over rows), all other
    scores by `permutation`; both take the draws as given. A model with several draws must also differ by Student's t
    over the draws' scores: the greater of the two p-values counts, so that a difference is shown only where it holds
    for other rows and for other draws.

    Args:
        references_N: label ids.
        pairs: the draws of one model and of the one that it is compared with.
        num_labels: K.
        bootstrap_samples: resamples of the rows for the intervals.
        confidence: coverage of the intervals, in (0, 1).
        seed: of resampling and permutations.
        scores: names in `metrics.scores_of_many`; the difference of `label_f1:2` is called `label_f1`.

    Source:
        The greater p-value: Berger 1982, "Multiparameter Hypothesis Testing and Acceptance Sampling"
        (intersection-union tests).
    """
    settings: dict[str, Any] = {"bootstrap_samples": bootstrap_samples, "confidence": confidence, "seed": seed}
    found = []
    for own_RN, other_RN in pairs:
        gaps = differences(references_N, own_RN, other_RN, num_labels, **settings)
        tested = {one: _p_value(one, references_N, own_RN, other_RN, num_labels, seed) for one in scores}
        found.append({one.partition(":")[0]: replace(gaps[one], p_value=p) for one, p in tested.items()})
    return corrected(found, confidence)


def corrected(found: Sequence[Mapping[str, Difference]], confidence: float) -> list[dict[str, Difference]]:
    """The differences of each comparison with p-values that Holm's correction covers all together, and with notes."""
    p_values = iter(holm([one.p_value or 0.0 for of_pair in found for one in of_pair.values()]))
    tested = [{score: replace(one, p_holm=next(p_values)) for score, one in of_pair.items()} for of_pair in found]
    return [{score: replace(one, note=_note(one, confidence)) for score, one in of_pair.items()} for of_pair in tested]


def rejects(p_holm: float | None, confidence: float) -> bool:
    """Whether a corrected p-value shows a difference: it is at most 1 - confidence."""
    return p_holm is not None and p_holm <= round(1 - confidence, 12)  # 1 - 0.95 is a little more than 0.05


def shown(difference: Difference, confidence: float) -> int:
    """1 where the difference is shown to be above 0, -1 where below, 0 where neither is shown."""
    return int(np.sign(difference.difference)) if rejects(difference.p_holm, confidence) else 0


def better(score: str, difference: Difference, confidence: float) -> int:
    """1 where the difference is shown to be for the better, -1 where for the worse, 0 where neither is shown."""
    return shown(difference, confidence) * (-1 if score in LOWER_IS_BETTER else 1)


def verdict(differences: Mapping[str, Difference], confidence: float) -> str:
    """A comparison in words: better, worse, or cannot be told apart.

    Where one score is shown to be higher and another one lower, both are named.
    """
    signs = {score: better(score, one, confidence) for score, one in differences.items()}
    if {1, -1} <= {*signs.values()}:
        words = {1: BETTER, -1: WORSE}
        return ", ".join(f"{words[sign]} in {ALL_SCORES[score]}" for score, sign in signs.items() if sign)
    return WORSE if -1 in signs.values() else BETTER if 1 in signs.values() else UNCLEAR


def against(
    differences: Mapping[str, Difference],
    confidence: float,
    other: str,
    name: Callable[[str], str] = ALL_SCORES.__getitem__,
) -> str:
    """The verdict as the end of a sentence that begins with a model: against which other, and in which scores."""
    names: dict[int, list[str]] = {-1: [], 0: [], 1: []}
    for score, one in differences.items():
        names[better(score, one, confidence)].append(name(score))
    lower, equal, higher = (f"({', '.join(names[sign])})" for sign in (-1, 0, 1))
    if names[-1]:
        return f"is {WORSE} than {other} {lower}" + (f" and {BETTER} {higher}" if names[1] else "")
    return f"is {BETTER} than {other} {higher}" if names[1] else f"{UNCLEAR} from {other} {equal}"


def in_points(difference: Difference, confidence: float, score: str = "") -> str:
    """A difference in percentage points, or steps of labels, with its interval and its p-value, for sentences."""
    low, high = (change(score, bound) for bound in difference.interval)
    tested = [] if difference.p_holm is None else [f"p={difference.p_holm:.2g}"]
    tested = [*tested, *([difference.note] if difference.note else [])]
    interval = f"{confidence:.0%} interval {low} to {high}" + (f", {'; '.join(tested)}" if tested else "")
    unit = "steps" if score in LOWER_IS_BETTER else "points"
    return f"{change(score, difference.difference)} {unit} ({interval})"


def change(score: str, value: float) -> str:
    """A difference of a score with its sign: in percentage points, a mean absolute error in steps of labels."""
    return f"{value:+.2f}" if score in LOWER_IS_BETTER else f"{100 * value:+.1f}"


def _note(difference: Difference, confidence: float) -> str | None:
    """What decides where the interval, which is corrected for nothing, and the corrected test disagree."""
    low, high = difference.interval
    outside = low > 0 or high < 0
    if outside == (shown(difference, confidence) != 0):
        return None
    found = ("leaves out 0", "no difference is shown") if outside else ("holds 0", "a difference is shown")
    return f"the interval {found[0]}, but the corrected p decides: {found[1]}"


def _p_value(
    score: str, references_N: npt.ArrayLike, own_RN: Draws, other_RN: Draws, num_labels: int, seed: int
) -> float:
    """The p-value of the difference of one score, uncorrected; see `compared`."""
    if score == "accuracy":
        own, other = (np.stack([np.asarray(one) == references_N for one in draws]) for draws in (own_RN, other_RN))
        over_rows = sign_flip((own.astype(np.int64) - other).sum(axis=0))
    else:
        over_rows = permutation(references_N, own_RN, other_RN, num_labels, score=score, seed=seed)
    values = [
        np.array([scores_of_one(confusion(references_N, one, num_labels))[score] for one in draws])
        for draws in (own_RN, other_RN)
    ]
    return max(over_rows, _over_draws(*values))


def _over_draws(own_R: Floats, other_R: Floats) -> float:
    """P-value of Welch's t-test of the draws' scores; 0 where neither model has several draws.

    A single draw counts as known, which makes this Student's one-sample test of the other model's draws.

    Source:
        Welch 1947, "The Generalization of 'Student's' Problem when Several Different Population Variances are
        Involved".
    """
    from scipy.special import stdtr

    several = [values for values in (own_R, other_R) if len(values) > 1]
    gap, parts = own_R.mean() - other_R.mean(), [values.var(ddof=1) / len(values) for values in several]
    if not sum(parts):
        return 0.0 if gap or not several else 1.0
    freedom = sum(parts) ** 2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, several, strict=True))
    return float(2 * stdtr(freedom, -abs(gap) / math.sqrt(sum(parts))))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for multiple tests by Holm's method, in the given order.

    Rejecting those at or below a level keeps the probability of any false rejection at or below that level.

    Source:
        Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    # Multiply the smallest by the number of tests, the next by one less, and so on; then make the row ascending.
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(p) for p in adjusted]
