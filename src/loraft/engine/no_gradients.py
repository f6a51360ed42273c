"""A decorator for functions that run a model to read scores or tokens, and never compute gradients."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from loraft import distributed

Given = ParamSpec("Given")
Result = TypeVar("Result")


def no_gradients(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Returns the function in torch's inference mode, or where FSDP shards the model without gradients.

    FSDP gathers the weights of a layer into tensors that it keeps for later passes, also those of a training, and
    training cannot write to tensors that were made in inference mode.
    """

    @wraps(function)
    def without(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        with torch.no_grad() if distributed.is_sharded() else torch.inference_mode():
            return function(*args, **kwargs)

    return without
