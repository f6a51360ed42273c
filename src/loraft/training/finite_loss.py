"""Finds the first step whose loss is not a finite number, and the rows that it was computed on."""

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch

from loraft.errors import BackboneError, listed

MOST_BATCHES = 65_536  # between two logs; of more, only the last ones are known


class FiniteLoss:
    """Watches the loss of every batch without waiting for the device: it is asked for when the trainer logs.

    Args:
        batches: of a step, each with a loss of its own.
        steps: between two logs.
        device: of the losses.
    """

    def __init__(self, batches: int, steps: int, device: torch.device) -> None:
        self.batches, kept = batches, min(batches * steps, MOST_BATCHES)
        self._finite = torch.ones(kept, dtype=torch.bool, device=device)  # of the batches since the last log
        self._trained = 0  # batches since the last log
        # The data loader collates the batches of the next step, and one more, before this step is trained.
        self._collated: deque[Sequence[int]] = deque(maxlen=kept + batches + 2)
        self._ahead = 0  # batches that were collated and not trained yet

    def collated(self, rows: Sequence[int]) -> None:
        """Takes the indices of a batch's rows, in the order in which the batches will be trained."""
        self._collated.append(rows)
        self._ahead += 1

    def trained(self, loss: torch.Tensor) -> None:
        """Takes the loss of the next batch, a scalar on the device."""
        self._finite[self._trained % len(self._finite)] = loss.detach().isfinite()
        self._trained += 1
        self._ahead -= 1

    def check(self, mean: float, step: int, rate: float, numbers: Sequence[int] | np.ndarray) -> None:
        """Begins again after a log.

        Args:
            mean: loss of the steps since the last log, in nats.
            step: the last of them.
            rate: the learning rate.
            numbers: the number in the data of each training row's sentence; empty where not known.

        Raises:
            BackboneError: the mean is not finite; names the first step and its rows.
        """
        trained, self._trained = self._trained, 0
        if math.isfinite(mean):
            return
        kept = min(trained, len(self._finite))
        flags = [bool(self._finite[number % len(self._finite)]) for number in range(trained - kept, trained)]
        back = kept - flags.index(False) if False in flags else 0  # how many batches ago; 0: no batch, but their sum
        first = step - max(back - 1, 0) // self.batches
        collated = list(self._collated)[: len(self._collated) - self._ahead]
        rows = (
            sorted({int(numbers[row]) for row in collated[-back]}) if 0 < back <= len(collated) and len(numbers) else []
        )
        where = f" on rows {listed(rows)} of data.train_split" if rows else ""
        raise BackboneError(
            f"training: the loss is not finite at step {first}{where} (got {mean}); lower train.learning_rate (now"
            f" {rate:g}), or look at these rows; model.dtype=fp32 rules out an overflow"
        )
