"""Fit a temperature, and where they help a bias for each label, on validation rows.

Letters: N rows, K labels.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from loraft.evaluation.metrics import log_loss
from loraft.models.calibration import NONE, Calibration

LEAST_ROWS = 50  # a temperature from fewer is noise: nothing is fitted
LEAST_ROWS_OF_A_LABEL = 50  # from which on biases are tried
FOLDS = 5
# Standard deviation of log(temperature) before any row is seen. It keeps rows without a mistake, whose likelihood
# grows for ever as the temperature falls, from giving 0; from 100 rows on it hardly moves the result.
PRIOR = 1.0


def fit(log_probs_NK: np.ndarray, references_N: npt.ArrayLike, *, seed: int = 0) -> Calibration:
    """Returns the calibration with the least log loss on these rows; `NONE` where they are too few.

    Biases are taken where every label has `LEAST_ROWS_OF_A_LABEL` rows and they lower the log loss under
    cross-validation by more than its standard error over the rows, so that chance alone seldom changes a label.

    Args:
        log_probs_NK: scores in nats.
        references_N: label ids.
        seed: of the folds.
    """
    references = np.asarray(references_N)
    counts_K = np.bincount(references, minlength=log_probs_NK.shape[1])
    if len(references) < LEAST_ROWS:
        return NONE
    alone = _fitted(log_probs_NK, references, biased=False)
    if counts_K.min() < LEAST_ROWS_OF_A_LABEL:
        return alone
    # The gain of biases on rows that they were not fitted on.
    gain_N = np.zeros(len(references))
    fold_N = np.random.default_rng(seed).permutation(len(references)) % FOLDS
    for fold in range(FOLDS):
        out_N = fold_N == fold
        losses = [
            -np.log(np.maximum(found.probabilities(log_probs_NK[out_N])[np.arange(out_N.sum()), references[out_N]],
                               np.finfo(np.float64).tiny))
            for biased in (False, True)
            for found in [_fitted(log_probs_NK[~out_N], references[~out_N], biased=biased)]
        ]  # fmt: skip
        gain_N[out_N] = losses[0] - losses[1]
    helps = gain_N.mean() > gain_N.std(ddof=1) / np.sqrt(len(gain_N))
    return _fitted(log_probs_NK, references, biased=True) if helps else alone


def fit_answers(log_odds_NK: np.ndarray, references_NK: np.ndarray) -> Calibration:
    """Returns one temperature for the answers yes or no of N rows with any number of K labels.

    Args:
        log_odds_NK: log-probability of yes minus that of no.
        references_NK: whether each label applies.
    """
    if len(log_odds_NK) < LEAST_ROWS:
        return NONE
    both = np.stack([np.zeros(log_odds_NK.size), log_odds_NK.ravel()], axis=1)
    return Calibration(_fitted(both, references_NK.ravel().astype(np.int64), biased=False).temperature,
                       rows=len(log_odds_NK))  # fmt: skip


def _fitted(log_probs_NK: np.ndarray, references_N: np.ndarray, *, biased: bool) -> Calibration:
    """The calibration with the highest likelihood, and the prior on the temperature."""
    from scipy.optimize import minimize

    num_labels = log_probs_NK.shape[1]

    def calibration(values: Sequence[float]) -> Calibration:
        if not biased:
            return Calibration(float(np.exp(values[0])), None, len(references_N))
        bias = np.asarray(values[1:]) - np.mean(values[1:])
        return Calibration(float(np.exp(values[0])), tuple(map(float, bias)), len(references_N))

    def loss(values: Sequence[float]) -> float:
        found = log_loss(references_N, calibration(values).probabilities(log_probs_NK))
        # The mean of the biases changes nothing; the last term holds it at 0.
        return found + (values[0] / PRIOR) ** 2 / (2 * len(references_N)) + float(np.mean(values[1:] or [0.0])) ** 2

    start = [0.0] * (1 + num_labels * biased)
    return calibration(minimize(lambda values: loss([*values]), start, method="L-BFGS-B").x)
