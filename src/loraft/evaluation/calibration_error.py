"""The confidence interval of the calibration error.

The error is a sum of absolute values, so noise raises it: a resample's error lies above that of all rows, and
percentiles of resamples would leave out 0 where the model is calibrated. The interval holds what a test does not
reject instead. Shapes: N rows, B bins, S scales, R draws of noise.
"""

import numpy as np
import numpy.typing as npt

from loraft.evaluation.metrics import expected_calibration_error
from loraft.evaluation.shares import Interval

SCALES = np.linspace(0, 3, 61)
BINS = 15


def calibration_error_interval(
    references_N: npt.ArrayLike, probs_NK: npt.ArrayLike, samples: int, confidence: float, seed: int
) -> Interval:
    """The interval of `metrics.expected_calibration_error`; it contains the value.

    Each bin's signed gap between accuracy and confidence is nearly normal around its true gap. The candidates for the
    true gaps are the measured ones times a scale: at 0 the model is calibrated. A scale is kept where the measured
    error lies within the central share `confidence` of the errors that it would give with noise, and stands for the
    error that it has without.

    Args:
        references_N: label ids.
        probs_NK: probabilities.
        samples: R, draws of noise.
        confidence: coverage, in (0, 1).
        seed: of the noise.

    Source:
        Test inversion: Carpenter 1999, "Test Inversion Bootstrap Confidence Intervals"; along one direction of gaps.
    """
    references, probs = np.asarray(references_N), np.asarray(probs_NK, dtype=np.float64)
    top_N, total = probs.max(axis=1), len(references)
    bin_N = np.clip(np.ceil(top_N * BINS).astype(np.int64) - 1, 0, BINS - 1)
    gap_N = (probs.argmax(axis=1) == references) - top_N
    count_B = np.maximum(np.bincount(bin_N, minlength=BINS), 1)
    mean_B = np.bincount(bin_N, gap_N, BINS) / count_B
    variance_B = np.bincount(bin_N, (gap_N - mean_B[bin_N]) ** 2, BINS) / total**2  # of the bin's share of the error
    share_B, error = mean_B * count_B / total, expected_calibration_error(references, probs, BINS)
    noise_RB = np.random.default_rng(seed).standard_normal((samples, BINS)) * np.sqrt(variance_B)
    tail = (1 - confidence) / 2
    kept = []
    for scale in SCALES:
        low, high = np.quantile(np.abs(scale * share_B + noise_RB).sum(axis=1), [tail, 1 - tail])
        if low <= error <= high:
            kept.append(float(scale) * error)
    return min([*kept, error]), max([*kept, error])
