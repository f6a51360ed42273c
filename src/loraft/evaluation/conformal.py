"""Sets of labels that hold the right one with a stated probability: split conformal prediction.

A label is in a row's set if its probability is at least a threshold, which is fitted on labelled rows that chose
neither checkpoint nor temperature. This score (LAC) gives the smallest sets on average of all that keep the coverage,
and one threshold says what a set is. The predicted label is added to each set: none is empty, coverage can only grow.

Shapes: N rows, K labels.

Source:
    Sadinle, Lei and Wasserman 2019, "Least Ambiguous Set-Valued Classifiers with Bounded Error Levels" (the score);
    Vovk 2012, "Conditional validity of inductive conformal predictors" (per label, and the law of the coverage).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from loraft.errors import ConfigError, listed
from loraft.evaluation.metrics import Floats
from loraft.evaluation.shares import Interval, given


@dataclass(frozen=True)
class LabelSets:
    """What decides which labels are in a row's set.

    Attributes:
        coverage: share of rows whose set holds the right label, in (0, 1), averaged over draws of the fitted rows.
        by_label: whether that holds among the rows of each label, not only among all.
        least_K: probability from which on a label is in the set.
        rows_K: labelled rows that each label's threshold was fitted on.
    """

    coverage: float
    by_label: bool
    least_K: Floats
    rows_K: tuple[int, ...]

    def of(self, probs_NK: Floats, best_N: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Returns which labels are in each row's set, (N, K).

        Args:
            probs_NK: probabilities as the fitted ones were.
            best_N: ids of the predicted labels.
        """
        return np.asarray((probs_NK >= self.least_K) | (np.arange(probs_NK.shape[1]) == best_N[:, None]))

    def law(self, confidence: float = 0.95) -> list[Interval]:
        """Where the coverage of these very thresholds lies: for each label, or once for all rows.

        The coverage depends on which rows the thresholds were fitted on. Over draws of them it has a beta
        distribution, whose central interval this is; ties, and predicted labels that are added, make it larger.
        """
        from scipy.special import betaincinv

        bounds = ((1 - confidence) / 2, (1 + confidence) / 2)
        ranks = [(_rank(n, self.coverage), n) for n in (self.rows_K if self.by_label else self.rows_K[:1])]
        return [tuple(float(betaincinv(rank, n + 1 - rank, at)) for at in bounds) for rank, n in ranks]  # type: ignore[misc]


def fit(
    probs_NK: Floats, references_N: npt.NDArray[np.int64], labels: Sequence[str], coverage: float, *, by_label: bool
) -> LabelSets:
    """Fits the thresholds: each is the least probability that the right label has in all but a few of its rows.

    Args:
        probs_NK: of labelled rows that chose nothing of the model.
        references_N: their label ids.
        labels: names of the K labels.
        coverage: of the sets.
        by_label: one threshold a label, so that the coverage holds among the rows of each (Mondrian).

    Raises:
        ConfigError: the coverage is no share, or there are too few rows for it.
    """
    coverage = given("sets", coverage)
    own_N = probs_NK[np.arange(len(references_N)), references_N]
    parts = [own_N[references_N == k] for k in range(len(labels))] if by_label else [own_N]
    needed = rows_needed(coverage)
    few = {
        name: len(own) for name, own in zip(labels if by_label else ["all"], parts, strict=True) if len(own) < needed
    }
    if few:
        got = listed(f"{name} {n:,}" for name, n in few.items()) if by_label else f"{len(own_N):,}"
        raise ConfigError(
            f"sets: a coverage of {coverage} needs {needed:,} validation rows that are set aside"
            f"{', of each label' if by_label else ''} (got {got}); a lower coverage"
            f"{', sets over all labels,' if by_label else ''} or a training with more validation rows"
        )
    # The k-th lowest of the scores 1 - p is the k-th highest p.
    least = [float(np.sort(own)[len(own) - _rank(len(own), coverage)]) for own in parts]
    rows = [len(own) for own in parts]
    times = 1 if by_label else len(labels)
    return LabelSets(coverage, by_label, np.array(least * times), tuple(rows * times))


def rows_needed(coverage: float) -> int:
    """The fewest labelled rows with which a coverage in (0, 1) can be promised by anything but sets of all labels."""
    share = Fraction(repr(coverage))  # in floats 0.9 / (1 - 0.9) is more than 9
    return math.ceil(share / (1 - share))


def _rank(rows: int, coverage: float) -> int:
    """Which of the scores, from the lowest on, is the threshold: ceil((n + 1) * coverage)."""
    return math.ceil((rows + 1) * Fraction(repr(coverage)))
