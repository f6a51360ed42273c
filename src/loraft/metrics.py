"""How good predictions are, and how sure one can be of it.

Shapes: N examples, K labels, S resamples, U distinct rows. Label ids run from 0 to K - 1; a prediction of -1 is an
answer that is no label and is always wrong. Accuracy, precision, recall and F1 are fractions.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CHUNK_CELLS = 4_000_000  # resamples are drawn in blocks of at most so many numbers


def core(references_N: npt.ArrayLike, predictions_N: npt.ArrayLike, num_labels: int) -> dict[str, float]:
    """Accuracy and macro-averaged F1, precision and recall, as fractions.

    Macro averages run over the labels that occur among references or predictions; what is undefined counts 0.

    Args:
        references_N: label ids.
        predictions_N: label ids, -1 for none.
        num_labels: K.

    Raises:
        ValueError: no rows, unequal lengths, or an id out of range.

    Source:
        scikit-learn's `accuracy_score` and `precision_recall_fscore_support(average="macro", zero_division=0)` over
        those labels.
    """
    return _scores(confusion(references_N, predictions_N, num_labels))


def confusion(references_N: npt.ArrayLike, predictions_N: npt.ArrayLike, num_labels: int) -> Ints:
    """Counts of shape K x (K + 1): row is the reference, column the prediction, the last column "no label"."""
    references, predictions = np.asarray(references_N), np.asarray(predictions_N)
    if references.shape != predictions.shape or references.ndim != 1 or not len(references):
        raise ValueError(
            f"references and predictions must be equally long, and not empty (got {references.shape},"
            f" {predictions.shape})"
        )
    for name, ids, low in (("references", references, 0), ("predictions", predictions, -1)):
        if not np.issubdtype(ids.dtype, np.integer) or ids.min() < low or ids.max() >= num_labels:
            raise ValueError(f"{name} must be whole numbers from {low} to {num_labels - 1} (got {np.unique(ids)})")
    columns = np.where(predictions < 0, num_labels, predictions)
    cells = np.bincount(references * (num_labels + 1) + columns, minlength=num_labels * (num_labels + 1))
    return cells.reshape(num_labels, num_labels + 1)


def full(
    references_N: npt.ArrayLike,
    probs_NK: npt.ArrayLike | None,
    predictions_N: npt.ArrayLike,
    labels: Sequence[str],
    *,
    bootstrap_samples: int,
    confidence: float,
    seed: int,
) -> dict[str, Any]:
    """Everything that is reported of one evaluation, ready for JSON.

    Args:
        references_N: label ids.
        probs_NK: probabilities, or None where answers were generated.
        predictions_N: label ids, -1 for none.
        labels: the K label names.
        bootstrap_samples: resamples of the intervals.
        confidence: coverage of the intervals, in (0, 1).
        seed: of the resampling.

    Returns:
        `core`'s four numbers; `n`; `intervals` of accuracy and macro_f1 as [low, high]; `per_class`; `confusion`
        (K x (K + 1)); `no_label`, the share of answers that are none; `expected_calibration_error` (15 bins) and
        `log_loss` (nats), both None without probabilities.
    """
    counts_KK = confusion(references_N, predictions_N, len(labels))
    precision, recall, f1, _ = _per_label(counts_KK)
    support = counts_KK.sum(axis=1)
    probs = None if probs_NK is None else np.asarray(probs_NK, dtype=np.float64)
    return {
        **classification_metric(len(labels)).compute(predictions=predictions_N, references=references_N),
        "n": int(support.sum()),
        "confidence": confidence,
        "intervals": _bootstrap(counts_KK, bootstrap_samples, confidence, seed),
        "per_class": [
            {
                "label": label,
                "precision": float(precision[k]),
                "recall": float(recall[k]),
                "f1": float(f1[k]),
                "support": int(support[k]),
            }
            for k, label in enumerate(labels)
        ],
        "confusion": counts_KK.tolist(),
        "no_label": float(counts_KK[:, -1].sum() / support.sum()),
        "expected_calibration_error": None if probs is None else expected_calibration_error(references_N, probs),
        "log_loss": None if probs is None else log_loss(references_N, probs),
    }


def reliability_bins(references_N: npt.ArrayLike, probs_NK: npt.ArrayLike, num_bins: int = 15) -> dict[str, Floats]:
    """Per bin of confidence: number of rows `count`, mean `confidence` and `accuracy` (NaN in an empty bin).

    Confidence is the greatest probability of a row; bin b of `num_bins` holds (b / num_bins, (b + 1) / num_bins].
    """
    references, probs = np.asarray(references_N), np.asarray(probs_NK, dtype=np.float64)
    top = probs.max(axis=1)
    bins = np.clip(np.ceil(top * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    count = np.bincount(bins, minlength=num_bins).astype(np.float64)
    correct = (probs.argmax(axis=1) == references).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return {
            "count": count,
            "confidence": np.bincount(bins, weights=top, minlength=num_bins) / count,
            "accuracy": np.bincount(bins, weights=correct, minlength=num_bins) / count,
        }


def expected_calibration_error(references_N: npt.ArrayLike, probs_NK: npt.ArrayLike, num_bins: int = 15) -> float:
    """Mean distance of confidence and accuracy over bins, weighted by rows; in [0, 1], 0 is calibrated.

    Source:
        Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.
    """
    bins = reliability_bins(references_N, probs_NK, num_bins)
    gaps = np.abs(bins["accuracy"] - bins["confidence"])
    return float(np.nansum(bins["count"] * gaps) / bins["count"].sum())


def log_loss(references_N: npt.ArrayLike, probs_NK: npt.ArrayLike) -> float:
    """Mean negative log-probability of the reference label, in nats."""
    references, probs = np.asarray(references_N), np.asarray(probs_NK, dtype=np.float64)
    chosen = probs[np.arange(len(references)), references]
    # A probability that underflowed costs much, not everything.
    return float(-np.log(np.maximum(chosen, np.finfo(np.float64).tiny)).mean())


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
        a_S, b_S = (_scores_of(_placed(drawn_SU, references_U, side_U, num_labels))[metric] for side_U in (a_U, b_U))
        differences.append(a_S - b_S)
    return {
        "difference": _scores(counts_a)[metric] - _scores(counts_b)[metric],
        "interval": _interval(np.concatenate(differences), confidence),
    }


def classification_metric(num_labels: int) -> Any:
    """`core` as an `evaluate.Metric` that needs no hub: `compute(predictions=..., references=...)`."""
    import datasets
    import evaluate

    class ClassificationMetric(evaluate.Metric):
        """Accuracy, macro-F1, macro-precision and macro-recall; a prediction of -1 is no label."""

        def _info(self) -> Any:
            whole = datasets.Value("int64")
            return evaluate.MetricInfo(
                description="accuracy and macro averages in which an answer that is no label is wrong",
                citation="",
                inputs_description="predictions: label ids, -1 for none; references: label ids",
                features=datasets.Features({"predictions": whole, "references": whole}),
            )

        def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
            return core(references, predictions, num_labels)

    return ClassificationMetric(keep_in_memory=True)


def _scores(counts_KK: Ints) -> dict[str, float]:
    return {name: float(values[0]) for name, values in _scores_of(counts_KK[None]).items()}


def _scores_of(counts_SKK: Ints) -> dict[str, Floats]:
    """The four numbers for each of S confusion matrices of shape K x (K + 1)."""
    precision_SK, recall_SK, f1_SK, occurs_SK = _per_label(counts_SKK)
    right_S = np.trace(counts_SKK, axis1=1, axis2=2)

    def macro(values_SK: Floats) -> Floats:
        return np.asarray((values_SK * occurs_SK).sum(axis=1) / occurs_SK.sum(axis=1))

    return {
        "accuracy": right_S / counts_SKK.sum(axis=(1, 2)),
        "macro_f1": macro(f1_SK),
        "macro_precision": macro(precision_SK),
        "macro_recall": macro(recall_SK),
    }


def _per_label(counts_SKK: Ints) -> tuple[Floats, Floats, Floats, npt.NDArray[np.bool_]]:
    """Precision, recall, F1, and whether the label occurs, each of shape (..., K)."""
    hits = np.diagonal(counts_SKK, axis1=-2, axis2=-1)
    references = counts_SKK.sum(axis=-1)
    predictions = counts_SKK.sum(axis=-2)[..., :-1]
    # Where a denominator is 0 so is the numerator; 0 / 1 is the agreed value.
    precision = hits / np.maximum(predictions, 1)
    recall = hits / np.maximum(references, 1)
    f1 = 2 * hits / np.maximum(references + predictions, 1)
    return precision, recall, f1, references + predictions > 0


def _bootstrap(counts_KK: Ints, samples: int, confidence: float, seed: int) -> dict[str, list[float]]:
    references, columns = np.nonzero(counts_KK)
    blocks = [
        _scores_of(_placed(drawn_SU, references, columns, len(counts_KK)))
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
