"""The learning rate: the config's, or one that follows the size of the backbone."""

import numpy as np
from peft import PeftModel

from loraft.config.schema import TrainConfig
from loraft.models.adapter import parameter_counts

# Weights of the backbone and the rate of a LoRA training; docs/decisions/0008-learning-rate.md says where each is from.
ANCHORS = {10e6: 2e-3, 135e6: 1e-3, 1e9: 2e-4, 13e9: 2e-4, 33e9: 1e-4}


def learning_rate(section: TrainConfig, model: PeftModel) -> float:
    """Returns the rate that is given, else the one for the backbone under these adapters; see `rate_for`."""
    if section.learning_rate is not None:
        return section.learning_rate
    trainable, total = parameter_counts(model)
    return rate_for(total - trainable)


def rate_for(weights: int) -> float:
    """Returns the learning rate for a backbone of so many weights, rounded to one digit.

    Between two of `ANCHORS`, the logarithm of the rate is linear in that of the weights; beyond the ends it stays.
    """
    log_rate = np.interp(np.log(weights), np.log(list(ANCHORS)), np.log(list(ANCHORS.values())))
    return float(f"{np.exp(log_rate):.0e}")
