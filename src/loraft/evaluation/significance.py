"""Significance tests of classifiers on the same rows: McNemar, the sign-flip test, and Holm's correction.

Shapes: N examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


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
