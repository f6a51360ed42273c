"""From the labels' scores to probabilities. Read without torch by reports. Letters: N rows, K labels."""

import numpy as np


def to_probs(log_probs_NK: np.ndarray) -> np.ndarray:
    """Returns the labels' probabilities (N, K), normalised over the K labels: each row sums to 1."""
    shifted = log_probs_NK - log_probs_NK.max(axis=1, keepdims=True)
    exp_NK = np.exp(shifted)
    return np.asarray(exp_NK / exp_NK.sum(axis=1, keepdims=True))
