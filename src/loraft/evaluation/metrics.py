"""Scores of predictions: accuracy, macro F1, precision and recall, calibration error and log loss.

Shapes: N examples, K labels, S confusion matrices. Label ids run from 0 to K - 1; a prediction of -1 stands for an
answer that is no label, and is always wrong. Accuracy, precision, recall and F1 are fractions.

To add a score, add an entry to `SCORES` and a line to `scores_of_many`: files then hold it, and `train.metric` may name
it. Tables show `choosing.TABLE_SCORES` and the score that `train.metric` names.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Every score that is reported, in the order of the tables, with the name that tables print.
SCORES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "weighted_f1": "weighted F1",
    "mcc": "MCC",
}
# Of tasks whose labels are in order (`prompt.kind: ordinal`).
ORDINAL_SCORES = {"quadratic_kappa": "quadratic kappa", "mean_absolute_error": "mean absolute error"}
# Where a row has any number of labels (`prompt.kind: multilabel`); `multilabel` computes them.
MULTILABEL_SCORES = {
    "subset_accuracy": "subset accuracy",  # share of the rows whose labels are all right
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "hamming_loss": "Hamming loss",  # share of the labels of all rows that are wrong
}
LABEL_F1 = "label_f1"  # of the label that `train.metric` names; `scores_of_many` has `label_f1:ID` for every label
ALL_SCORES = {**SCORES, **ORDINAL_SCORES, LABEL_F1: "F1 of one label", **MULTILABEL_SCORES}
INTERVAL_SCORES = ("accuracy", "macro_f1")  # the scores that get an interval and tests, whatever `train.metric` is
LOWER_IS_BETTER = ("mean_absolute_error",)
NOT_FRACTIONS = {"mcc": -1.0, "quadratic_kappa": -1.0}  # their lowest value; the highest is 1


def core(references_N: npt.ArrayLike, predictions_N: npt.ArrayLike, num_labels: int) -> dict[str, float]:
    """Every one of `SCORES`: accuracy, macro-averaged F1, precision and recall, weighted F1, as fractions, and MCC.

    Macro averages run over the labels that occur among references or predictions. A precision or recall without any
    row to count counts as 0.

    Args:
        references_N: label ids.
        predictions_N: label ids, -1 for none.
        num_labels: K.

    Raises:
        ValueError: no rows, unequal lengths, or an id out of range.

    Source:
        scikit-learn's `accuracy_score` and `precision_recall_fscore_support(average="macro", zero_division=0)` over
        those labels, `f1_score(average="weighted")` and `matthews_corrcoef`.
    """
    scores = scores_of_one(confusion(references_N, predictions_N, num_labels))
    return {name: scores[name] for name in SCORES}


def confusion(references_N: npt.ArrayLike, predictions_N: npt.ArrayLike, num_labels: int) -> Ints:
    """Counts of shape K x (K + 1): row is the reference, column the prediction, the last column "no label".

    Raises:
        ValueError: no rows, unequal lengths, or an id out of range.
    """
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
    # Number the cells of the matrix row by row, and count how often each number occurs.
    cells = np.bincount(references * (num_labels + 1) + columns, minlength=num_labels * (num_labels + 1))
    return cells.reshape(num_labels, num_labels + 1)


def reliability_bins(references_N: npt.ArrayLike, probs_NK: npt.ArrayLike, num_bins: int = 15) -> dict[str, Floats]:
    """Per bin of confidence: number of rows `count`, mean `confidence` and `accuracy` (both NaN in an empty bin).

    The confidence of a row is its greatest probability. Bin b of `num_bins` holds the rows whose confidence lies in
    (b / num_bins, (b + 1) / num_bins].
    """
    references, probs = np.asarray(references_N), np.asarray(probs_NK, dtype=np.float64)
    top = probs.max(axis=1)
    bins = np.clip(np.ceil(top * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    count = np.bincount(bins, minlength=num_bins).astype(np.float64)
    correct = (probs.argmax(axis=1) == references).astype(np.float64)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        return {
            "count": count,
            "confidence": np.bincount(bins, weights=top, minlength=num_bins) / count,
            "accuracy": np.bincount(bins, weights=correct, minlength=num_bins) / count,
        }


def expected_calibration_error(references_N: npt.ArrayLike, probs_NK: npt.ArrayLike, num_bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over bins, weighted by rows; in [0, 1], 0 is perfectly calibrated.

    Source:
        Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.
    """
    bins = reliability_bins(references_N, probs_NK, num_bins)
    gaps = np.abs(bins["accuracy"] - bins["confidence"])
    return float(np.nansum(bins["count"] * gaps) / bins["count"].sum())


def brier_score(references_N: npt.ArrayLike, probs_NK: npt.ArrayLike) -> float:
    """Mean squared distance of the probabilities from 1 for the reference label and 0 for the others; in [0, 2].

    Source:
        Brier 1950, "Verification of Forecasts Expressed in Terms of Probability"; scikit-learn's
        `brier_score_loss(scale_by_half=False)`.
    """
    references, probs = np.asarray(references_N), np.asarray(probs_NK, dtype=np.float64)
    return float(((probs - np.eye(probs.shape[1])[references]) ** 2).sum(axis=1).mean())


def log_loss(references_N: npt.ArrayLike, probs_NK: npt.ArrayLike) -> float:
    """Mean negative log-probability of the reference label, in nats."""
    references, probs = np.asarray(references_N), np.asarray(probs_NK, dtype=np.float64)
    chosen = probs[np.arange(len(references)), references]
    # A probability that underflowed to 0 counts as the smallest float (708 nats), not as an infinite loss.
    return float(-np.log(np.maximum(chosen, np.finfo(np.float64).tiny)).mean())


def classification_metric(num_labels: int) -> Any:
    """`core` as a metric of the `evaluate` library: `compute(predictions=..., references=...)`; downloads nothing."""
    import datasets
    import evaluate

    class ClassificationMetric(evaluate.Metric):
        """Every one of `SCORES`; a prediction of -1 is no label."""

        def _info(self) -> Any:
            whole = datasets.Value("int64")
            return evaluate.MetricInfo(
                description="accuracy and macro averages in which an answer that is no label is wrong",
                citation="",
                inputs_description="predictions: label ids, -1 for none; references: label ids",
                features=datasets.Features({"predictions": whole, "references": whole}),
            )

        def _build_data_dir(self) -> str:
            """Its own makes a folder in HF_HOME, which may be read-only; kept in memory, nothing is written there."""
            return str(self._data_dir_root)

        def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
            return core(references, predictions, num_labels)

    return ClassificationMetric(keep_in_memory=True)


def scores_of_one(counts_KK: Ints) -> dict[str, float]:
    """The scores of `scores_of_many` for one confusion matrix of shape K x (K + 1)."""
    return {name: float(values[0]) for name, values in scores_of_many(counts_KK[None]).items()}


def scores_of_many(counts_SKK: Ints) -> dict[str, Floats]:
    """Every score, each of shape (S,), for S confusion matrices of shape K x (K + 1).

    These are `SCORES`, `ORDINAL_SCORES` for the labels in their order, and `label_f1:ID` for each label.
    """
    precision_SK, recall_SK, f1_SK, occurs_SK = per_label(counts_SKK)
    right_S, total_S = np.trace(counts_SKK, axis1=1, axis2=2), counts_SKK.sum(axis=(1, 2))
    support_SK = counts_SKK.sum(axis=2)

    def macro(values_SK: Floats) -> Floats:
        return np.asarray((values_SK * occurs_SK).sum(axis=1) / occurs_SK.sum(axis=1))

    return {
        "accuracy": right_S / total_S,
        "macro_f1": macro(f1_SK),
        "macro_precision": macro(precision_SK),
        "macro_recall": macro(recall_SK),
        "weighted_f1": (f1_SK * support_SK).sum(axis=1) / total_S,
        "mcc": _mcc(counts_SKK),
        **_ordinal(counts_SKK),
        **{f"{LABEL_F1}:{k}": f1_SK[:, k] for k in range(f1_SK.shape[1])},
    }


def _mcc(counts_SKK: Ints) -> Floats:
    """Matthews' correlation of references and predictions, in [-1, 1]; "no label" is one more class that never is true.

    0 where all references, or all predictions, are one class.

    Source:
        Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient".
    """
    right_S, total_S = (x.astype(float) for x in (np.trace(counts_SKK, axis1=1, axis2=2), counts_SKK.sum(axis=(1, 2))))
    true_SK, predicted_SK = counts_SKK.sum(axis=2).astype(float), counts_SKK.sum(axis=1).astype(float)
    both_S = right_S * total_S - (true_SK * predicted_SK[:, :-1]).sum(axis=1)
    spread_S = (total_S**2 - (true_SK**2).sum(axis=1)) * (total_S**2 - (predicted_SK**2).sum(axis=1))
    return np.asarray(both_S / np.sqrt(np.where(spread_S > 0, spread_S, np.inf)))


def _ordinal(counts_SKK: Ints) -> dict[str, Floats]:
    """Quadratic weighted kappa, in [-1, 1], and the mean absolute error in steps of labels.

    An answer that is no label counts as the label farthest from the reference, the largest error; of two equally far
    ones as the last label. Kappa is 0 where references and predictions are all one label.

    Source:
        Cohen 1968, "Weighted kappa"; scikit-learn's `cohen_kappa_score(weights="quadratic")`.
    """
    ids_K = np.arange(counts_SKK.shape[1])
    counts_SKK, none_SK = counts_SKK[:, :, :-1].copy(), counts_SKK[:, :, -1]
    counts_SKK[:, ids_K, np.where(2 * ids_K < len(ids_K), len(ids_K) - 1, 0)] += none_SK
    steps_KK, total_S = np.abs(ids_K[:, None] - ids_K).astype(float), counts_SKK.sum(axis=(1, 2))
    true_SK, predicted_SK = counts_SKK.sum(axis=2).astype(float), counts_SKK.sum(axis=1).astype(float)
    seen_S = np.einsum("sij,ij->s", counts_SKK, steps_KK**2)
    by_chance_S = np.einsum("si,sj,ij->s", true_SK, predicted_SK, steps_KK**2, optimize=True) / total_S
    kappa_S = np.where(by_chance_S > 0, 1 - seen_S / np.where(by_chance_S > 0, by_chance_S, 1), 0.0)
    return {
        "quadratic_kappa": kappa_S,
        "mean_absolute_error": np.einsum("sij,ij->s", counts_SKK, steps_KK) / total_S,
    }


def per_label(counts_SKK: Ints) -> tuple[Floats, Floats, Floats, npt.NDArray[np.bool_]]:
    """Precision, recall, F1, and whether the label occurs, each of shape (..., K)."""
    hits = np.diagonal(counts_SKK, axis1=-2, axis2=-1)
    references = counts_SKK.sum(axis=-1)
    predictions = counts_SKK.sum(axis=-2)[..., :-1]
    # Where a denominator is 0, its numerator is 0 too: dividing by 1 gives the agreed value 0.
    precision = hits / np.maximum(predictions, 1)
    recall = hits / np.maximum(references, 1)
    f1 = 2 * hits / np.maximum(references + predictions, 1)
    return precision, recall, f1, references + predictions > 0
