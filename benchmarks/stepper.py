"""A trainer's own `train()`, one step at a time: so trainers as they are can take turns with others.

`train()` runs in a greenlet, which hands over before every step until it is told to go on. A thread would do, too, but
each thread has a pool of OpenMP workers of its own, and with more workers than processors all of them go to sleep after
every operation: steps of 0.07 s took 0.12 s then.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from greenlet import GreenletExit, greenlet
from transformers import Trainer, TrainerCallback


class Paced(TrainerCallback):
    """Steps of a trainer over chosen rows, in order.

    A step lasts from the moment that the trainer is let go at the step's beginning until it stands at the next one:
    forward, backward, clipping, optimizer, callbacks, and the collating of another batch.

    Args:
        trainer: ready to train, as many steps as there are batches at least.
        batches: indices of its training rows, as many as its batch size each; the first batch is a warm-up, done when
            this returns.
    """

    def __init__(self, trainer: Trainer, batches: Sequence[Sequence[int]]) -> None:
        self._around: AbstractContextManager[Any] = nullcontext()
        self._losses: list[torch.Tensor] = []
        # the last batch once more, for a step that is no contest, and once again, so that the trainer never stands at
        # its end, where it would evaluate and save
        order = (*batches, batches[-1], batches[-1])
        rows = [row for batch in order for row in batch]
        trainer._get_train_sampler = lambda *given: rows  # the trainer's own loader, as it would be
        trainer.args.max_steps = len(order)
        trainer.training_step = self._remembering(trainer.training_step)
        trainer.add_callback(self)
        self._training = greenlet(trainer.train)
        self._training.switch()
        self.step()

    def step(self, around: AbstractContextManager[Any] | None = None) -> float:
        """Makes the next step, inside a context if given; returns the loss before its update, in nats a token."""
        self._training.switch(around or nullcontext())
        return float(self._losses[-1])

    def close(self) -> None:
        """Ends the training; nothing is saved."""
        self._training.throw(GreenletExit)

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Hands over when the step before is done, and goes on when it is asked to."""
        if self._losses:
            self._around.__exit__(None, None, None)
        self._around = self._training.parent.switch()
        self._around.__enter__()

    def _remembering(self, training_step: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def remembered(*args: Any, **kwargs: Any) -> torch.Tensor:
            loss = training_step(*args, **kwargs)
            self._losses.append(loss.detach())
            return loss

        return remembered
