"""How good predictions are, and how sure one can be of it.

Shapes: N examples, K labels, S resamples, U distinct rows. Label ids run from 0 to K - 1; a prediction of -1 is an
answer that is no label and is always wrong. Accuracy, precision, recall and F1 are fractions.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from loraft.evaluation.intervals import bootstrap
from loraft.evaluation.metrics import classification_metric, confusion, expected_calibration_error, log_loss, per_label


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
    precision, recall, f1, _ = per_label(counts_KK)
    support = counts_KK.sum(axis=1)
    probs = None if probs_NK is None else np.asarray(probs_NK, dtype=np.float64)
    return {
        **classification_metric(len(labels)).compute(predictions=predictions_N, references=references_N),
        "n": int(support.sum()),
        "confidence": confidence,
        "intervals": bootstrap(counts_KK, bootstrap_samples, confidence, seed),
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
