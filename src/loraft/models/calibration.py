"""What turns the labels' scores into calibrated probabilities: a temperature, and perhaps a bias for each label.

Letters: N rows, K labels.
"""

import math
from dataclasses import dataclass

import numpy as np

from loraft.engine.probabilities import to_probs

MOST_BIASES = 5  # that a sentence lists


@dataclass(frozen=True)
class Calibration:
    """Calibrated probabilities are softmax(score / temperature + bias).

    `evaluation.calibration.fit` chooses the numbers; the default changes nothing.

    Attributes:
        temperature: above 0; above 1 it lowers confidence. By itself it changes no label.
        bias: of each label, in nats, sums to 0; None for none. It can change labels.
        rows: that the numbers were fitted on.
        set_aside: validation rows that they were not fitted on, for promises; see `data.calibration_share`.

    Source:
        Guo et al. 2017, "On Calibration of Modern Neural Networks".
    """

    temperature: float = 1.0
    bias: tuple[float, ...] | None = None
    rows: int = 0
    set_aside: int = 0

    def __post_init__(self) -> None:
        """Refuses numbers that no fit gives, as a damaged or foreign file may hold them."""
        if not (0 < self.temperature < math.inf and all(map(math.isfinite, self.bias or ()))):
            raise ValueError("the temperature must be above 0, and all numbers finite")

    @property
    def words(self) -> str:
        """The numbers and where they are from, in one sentence."""
        biases = "" if self.bias is None else f", biases {', '.join(f'{one:+.2f}' for one in self.bias[:MOST_BIASES])}"
        biases += ", ..." if len(self.bias or ()) > MOST_BIASES else ""
        aside = f"; {self.set_aside:,} more are set aside for promises" if self.set_aside else ""
        return f"temperature {self.temperature:.3f}{biases}, fitted on {self.rows:,} validation rows{aside}"

    def adjusted(self, log_probs_NK: np.ndarray) -> np.ndarray:
        """The labels' scores as calibrated probabilities are computed from them, in nats up to a constant a row."""
        scaled = log_probs_NK / self.temperature
        return np.asarray(scaled if self.bias is None else scaled + np.asarray(self.bias))

    def probabilities(self, log_probs_NK: np.ndarray) -> np.ndarray:
        """The calibrated probabilities, (N, K), of scores in nats; each row sums to 1."""
        return to_probs(self.adjusted(log_probs_NK))

    def raw(self, probs_NK: np.ndarray) -> np.ndarray:
        """The probabilities before calibration, (N, K), of calibrated ones; one of 0 counts as the smallest float."""
        log_NK = np.log(np.maximum(probs_NK, np.finfo(np.float64).tiny))
        return to_probs(self.temperature * (log_NK - (0.0 if self.bias is None else np.asarray(self.bias))))

    def of_yes(self, probs: np.ndarray) -> np.ndarray:
        """Calibrated probabilities of yes against no, of those before: for the thresholds of several labels a row."""
        if self.temperature == 1:  # bit for bit
            return np.asarray(probs)
        with np.errstate(divide="ignore"):  # 0 and 1 stay what they are
            log_odds = np.log(probs) - np.log1p(-np.asarray(probs))
        return np.asarray(np.exp(-np.logaddexp(0.0, -log_odds / self.temperature)))


NONE = Calibration()
