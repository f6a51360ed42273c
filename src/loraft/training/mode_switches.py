"""Cheap versions of two methods of a model that a trainer calls at every step."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


@contextmanager
def cheap_mode_switches(model: torch.nn.Module, trained: Sequence[torch.nn.Parameter]) -> Iterator[None]:
    """Inside the block, `model.train()` and `model.zero_grad()` are cheap; a trainer calls both at every step.

    `train()` does nothing where the mode stays the same; `zero_grad()` clears the trained parameters only.

    Args:
        model: all its modules are put into its own mode, training or evaluation, at the beginning.
        trained: the parameters that get gradients.
    """

    def train(mode: bool = True) -> torch.nn.Module:
        return model if model.training == mode else type(model).train(model, mode)

    def zero_grad() -> None:
        for parameter in trained:
            parameter.grad = None

    # A new PeftModel is in training mode, its backbone still in evaluation mode.
    type(model).train(model, model.training)
    own = {"train": train, "zero_grad": zero_grad}
    vars(model).update(own)
    try:
        yield
    finally:
        for name in own:
            del vars(model)[name]
