"""What a trainer does besides its steps: the last evaluation, and less walking through modules."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback


class EvaluateAtTheEnd(TrainerCallback):
    """Evaluates and saves after the last step also where it is no multiple of `eval_steps`."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Asks for an evaluation and a checkpoint at the last step."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = True
            control.should_save = True


@contextmanager
def few_walks(model: torch.nn.Module, trained: Sequence[torch.nn.Parameter]) -> Iterator[None]:
    """Inside the block, `model.train()` and `model.zero_grad()` do not look through all modules when nothing changes.

    A trainer calls both at every step.

    Args:
        model: all its modules are put into its own mode, training or evaluation, at the beginning.
        trained: the parameters that get gradients.
    """

    def train(mode: bool = True) -> torch.nn.Module:
        return model if model.training == mode else type(model).train(model, mode)

    def zero_grad() -> None:
        for parameter in trained:
            parameter.grad = None

    type(model).train(model, model.training)  # a fresh PeftModel trains while its backbone does not yet
    own = {"train": train, "zero_grad": zero_grad}
    vars(model).update(own)
    try:
        yield
    finally:
        for name in own:
            del vars(model)[name]
