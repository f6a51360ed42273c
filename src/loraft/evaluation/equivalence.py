"""Whether two models score the same within a margin, by two one-sided tests on the same rows."""

from dataclasses import dataclass

import numpy.typing as npt

from loraft.evaluation.intervals import differences
from loraft.evaluation.shares import Interval

MARGIN = 0.015  # 1.5 percentage points
LEVEL = 0.05


@dataclass(frozen=True)
class Equivalence:
    """One model's score minus another's, a fraction, and whether the two are shown to be within `MARGIN`.

    Attributes:
        difference: on the rows.
        interval: its paired bootstrap interval of coverage 1 - 2 * `LEVEL`.
        equivalent: whether that lies within the margin; False says only that it is not shown.
    """

    difference: float
    interval: Interval
    equivalent: bool


def equivalence(
    references_N: npt.ArrayLike,
    own_N: npt.ArrayLike,
    other_N: npt.ArrayLike,
    num_labels: int,
    *,
    score: str = "macro_f1",
    bootstrap_samples: int = 1000,
    seed: int = 0,
) -> Equivalence:
    """Tests at the level `LEVEL` that the scores of two models differ by less than `MARGIN`.

    Null hypothesis: they differ by the margin or more, in either direction. Both one-sided tests reject exactly where
    the interval of coverage 1 - 2 * `LEVEL` lies inside the margin.

    Args:
        references_N: label ids.
        own_N, other_N: label ids that the two models predict, -1 for no label.
        num_labels: K.
        score: a name in `metrics.scores_of_many`.
        bootstrap_samples: resamples of the rows.
        seed: of the resampling.

    Source:
        Schuirmann 1987, "A Comparison of the Two One-Sided Tests Procedure and the Power Approach for Assessing the
        Equivalence of Average Bioavailability".
    """
    found = differences(
        references_N,
        [own_N],
        [other_N],
        num_labels,
        bootstrap_samples=bootstrap_samples,
        confidence=1 - 2 * LEVEL,
        seed=seed,
    )[score]
    low, high = found.interval
    return Equivalence(found.difference, found.interval, low > -MARGIN and high < MARGIN)
