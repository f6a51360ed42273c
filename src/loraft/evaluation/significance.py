"""How good predictions are, and how sure one can be of it.

Shapes: N examples, K labels, S resamples, U distinct rows. Label ids run from 0 to K - 1; a prediction of -1 is an
answer that is no label and is always wrong. Accuracy, precision, recall and F1 are fractions.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def mcnemar(correct_a_N: npt.ArrayLike, correct_b_N: npt.ArrayLike) -> dict[str, float]:
    """Whether two classifiers differ on the same rows: exact two-sided McNemar test.

    Returns:
        `b`, rows that only a has right; `c`, rows that only b has right; `p_value`, 1.0 where they never differ.

    Source:
        McNemar 1947; the exact form is the binomial test of b out of b + c at 1/2.
    """
    a, b = np.asarray(correct_a_N, dtype=bool), np.asarray(correct_b_N, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(f"both must be judged on the same rows (got {a.shape}, {b.shape})")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return {"b": only_a, "c": only_b, "p_value": sign_flip(a.astype(np.int64) - b)}


def sign_flip(gains_N: npt.ArrayLike) -> float:
    """P-value of the exact two-sided sign-flip test: do paired differences on the same rows have a direction?

    If both sides were alike, the difference on a row would be as likely with the other sign. The row is the unit, so
    whatever several answers to one row have in common is summed before and costs the test nothing.

    Args:
        gains_N: whole numbers, for example on how many seeds a is right on the row, minus the same of b.

    Returns:
        The share of all sign patterns whose sum lies at least as far from 0 as the one found; 1.0 where no row differs.
        For gains of -1, 0 and 1 this is McNemar's exact test.

    Source:
        Fisher 1935, "The Design of Experiments", section 21; Good 2005, "Permutation, Parametric, and Bootstrap Tests
        of Hypotheses", chapter 3 (matched pairs).
    """
    from scipy.special import gammaln

    gains = np.asarray(gains_N, dtype=np.int64)
    chances = np.ones(1)  # of each sum of those gains whose sign is plus: a convolution over rows, no sampling
    for size, rows in enumerate(np.bincount(np.abs(gains))):
        if size and rows:
            plus = np.arange(rows + 1)
            of_size = np.zeros(size * rows + 1)
            of_size[::size] = np.exp(
                gammaln(rows + 1) - gammaln(plus + 1) - gammaln(rows - plus + 1) - rows * np.log(2)
            )
            chances = np.convolve(chances, of_size)
    sums = 2 * np.arange(len(chances)) - (len(chances) - 1)
    return float(chances[np.abs(sums) >= abs(gains.sum())].sum() / chances.sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number, in the order given: reject those below the level, all errors together.

    Source:
        Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(p) for p in adjusted]
