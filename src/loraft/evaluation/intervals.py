"""How good predictions are, and how sure one can be of it.

Shapes: N examples, K labels, S resamples, U distinct rows. Label ids run from 0 to K - 1; a prediction of -1 is an
answer that is no label and is always wrong. Accuracy, precision, recall and F1 are fractions.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from loraft.evaluation import metrics
from loraft.evaluation.metrics import Floats, Ints, confusion, scores_of_many, scores_of_one

CHUNK_CELLS = 4_000_000  # resamples are drawn in blocks of at most so many numbers


def paired_bootstrap(
    references_N: npt.ArrayLike,
    predictions_a_N: npt.ArrayLike,
    predictions_b_N: npt.ArrayLike,
    num_labels: int,
    *,
    metric: str = "macro_f1",
    bootstrap_samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Difference a - b of one of `core`'s numbers on the same rows, with its percentile interval.

    Returns:
        `difference`, and `interval` as [low, high], both fractions.
    """
    counts_a, counts_b = (confusion(references_N, p, num_labels) for p in (predictions_a_N, predictions_b_N))
    triples, multiplicity = np.unique(
        np.stack([np.asarray(x) for x in (references_N, predictions_a_N, predictions_b_N)]), axis=1, return_counts=True
    )
    differences = []
    # Column -1 of a confusion matrix is its last: "no label" needs no translation.
    references_U, a_U, b_U = triples
    for drawn_SU in _resamples(multiplicity, bootstrap_samples, seed, num_labels):
        a_S, b_S = (
            scores_of_many(_placed(drawn_SU, references_U, side_U, num_labels))[metric] for side_U in (a_U, b_U)
        )
        differences.append(a_S - b_S)
    return {
        "difference": scores_of_one(counts_a)[metric] - scores_of_one(counts_b)[metric],
        "interval": _interval(np.concatenate(differences), confidence),
    }


def bootstrap(counts_KK: Ints, samples: int, confidence: float, seed: int) -> dict[str, list[float]]:
    """Percentile intervals of accuracy and macro-F1 from a confusion matrix of shape K x (K + 1)."""
    references, columns = np.nonzero(counts_KK)
    blocks = [
        scores_of_many(_placed(drawn_SU, references, columns, len(counts_KK)))
        for drawn_SU in _resamples(counts_KK[references, columns], samples, seed, len(counts_KK))
    ]
    return {
        name: _interval(np.concatenate([block[name] for block in blocks]), confidence)
        for name in ("accuracy", "macro_f1")
    }


def _resamples(multiplicity_U: Ints, samples: int, seed: int, num_labels: int) -> Iterator[Ints]:
    # Rows that are alike are exchangeable: drawing N rows with replacement is one multinomial draw over the kinds.
    generator = np.random.default_rng(seed)
    total = int(multiplicity_U.sum())
    block = max(1, CHUNK_CELLS // max(len(multiplicity_U), num_labels * (num_labels + 1)))
    for start in range(0, samples, block):
        yield generator.multinomial(total, multiplicity_U / total, size=min(block, samples - start))


def _placed(drawn_SU: Ints, references_U: Ints, columns_U: Ints, num_labels: int) -> Ints:
    """Confusion matrices, S x K x (K + 1), of S resamples that hold each kind of row so many times."""
    counts_SKK = np.zeros((len(drawn_SU), num_labels, num_labels + 1), dtype=np.int64)
    for kind, (reference, column) in enumerate(zip(references_U, columns_U, strict=True)):
        counts_SKK[:, reference, column] += drawn_SU[:, kind]
    return counts_SKK


def _interval(values_S: Floats, confidence: float) -> list[float]:
    tail = (1 - confidence) / 2
    return [float(bound) for bound in np.quantile(values_S, [tail, 1 - tail])]


COMPARED = ("accuracy", "macro_f1")  # the scores with an interval


def spread(group: Sequence[Mapping[str, Any]], score: str, confidence: float) -> dict[str, Any]:
    """Mean, standard deviation and interval of a score over draws on the same rows.

    Two things vary: the draw (of demonstrations, or a seed), with Student's t for the mean of R draws, and the test
    rows, with the mean of the draws' bootstrap intervals. Their half-widths are added in quadrature, so that one draw,
    several, and a baseline without any are reported alike.
    """
    values_R = np.array([record[score] for record in group])
    mean = float(values_R.mean())
    sd = float(values_R.std(ddof=1)) if len(values_R) > 1 else None
    if any(score not in record["intervals"] for record in group):
        return {"mean": mean, "sd": sd, "interval": None}
    of_draws = _half_width(values_R, confidence)
    low, high = np.mean([record["intervals"][score] for record in group], axis=0)
    interval = [max(0.0, mean - math.hypot(of_draws, mean - low)), min(1.0, mean + math.hypot(of_draws, high - mean))]
    return {"mean": mean, "sd": sd, "interval": interval}


def differences(
    references_N: npt.ArrayLike,
    answers_RN: Sequence[npt.ArrayLike],
    others_RN: Sequence[npt.ArrayLike],
    num_labels: int,
    *,
    bootstrap_samples: int,
    confidence: float,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """How far the mean score over one model's draws lies above that of another on the same rows, paired by row.

    As in `spread`, two things vary. Test rows are drawn with replacement, for all draws of both models together: what
    makes a row hard for both cancels out. The draws of each model, independent of each other, add Student's t for
    their mean in quadrature.

    Args:
        references_N: label ids.
        answers_RN: label ids of each draw of the one model, -1 for none.
        others_RN: those of the other, whose number of draws may differ.
        num_labels: K.
        bootstrap_samples: resamples of the rows.
        confidence: coverage of the interval, in (0, 1).
        seed: of the resampling.

    Returns:
        For accuracy and macro_f1 the `difference` and its `interval` as [low, high], fractions.
    """
    references = np.asarray(references_N)
    sides = [np.asarray(answers_RN), np.asarray(others_RN)]
    generator = np.random.default_rng(seed)

    def scored(rows: Ints | slice) -> list[list[dict[str, float]]]:
        return [[metrics.core(references[rows], one[rows], num_labels) for one in side] for side in sides]

    def gaps(scores: list[list[dict[str, float]]]) -> dict[str, float]:
        one, other = ({name: float(np.mean([s[name] for s in side])) for name in COMPARED} for side in scores)
        return {name: one[name] - other[name] for name in COMPARED}

    measured = scored(slice(None))
    resampled = [
        gaps(scored(generator.integers(len(references), size=len(references)))) for _ in range(bootstrap_samples)
    ]
    found = {}
    for name, gap in gaps(measured).items():
        tail = (1 - confidence) / 2
        low, high = np.quantile([sample[name] for sample in resampled], [tail, 1 - tail])
        of_draws = math.hypot(*(_half_width(np.array([s[name] for s in side]), confidence) for side in measured))
        interval = [gap - math.hypot(of_draws, gap - low), gap + math.hypot(of_draws, high - gap)]
        found[name] = {"difference": gap, "interval": interval}
    return found


def _half_width(values_R: npt.NDArray[np.float64], confidence: float) -> float:
    """Half the interval of the mean of R draws by Student's t, 0 where there is but one."""
    from scipy.special import stdtrit

    repeats = len(values_R)
    if repeats < 2:
        return 0.0
    return float(stdtrit(repeats - 1, (1 + confidence) / 2) * values_R.std(ddof=1) / math.sqrt(repeats))
