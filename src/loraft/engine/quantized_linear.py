"""Linear layers whose weight is stored in 4 bits (bitsandbytes): recognised, dequantised, and kept dequantised."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F


def is_4bit(layer: torch.nn.Module) -> bool:
    """Says whether bitsandbytes has quantised the layer's weight to 4 bits."""
    return quant_state(layer) is not None


def quant_state(layer: Any) -> Any:
    """Returns the constants of the layer's 4-bit weight; None where it is not stored so.

    bitsandbytes keeps them at the layer, too: a weight that FSDP has gathered is without.
    """
    of_weight = getattr(getattr(layer, "weight", None), "quant_state", None)
    return getattr(layer, "quant_state", None) if of_weight is None else of_weight


def dense_weight(layer: Any, dtype: torch.dtype) -> torch.Tensor:
    """Returns the weight (O, I) of a linear layer in the given type, dequantised if it is stored in 4 bits."""
    if not is_4bit(layer):
        weight: torch.Tensor = layer.weight
        return weight.to(dtype)
    kept: torch.Tensor | None = vars(layer).get("kept_dense")
    return (_dequantised(layer) if kept is None else kept).to(dtype)


def _dequantised(layer: Any) -> torch.Tensor:
    from bitsandbytes.functional import dequantize_4bit

    dense: torch.Tensor = dequantize_4bit(layer.weight, quant_state(layer))
    return dense


def keeps_dense(layer: torch.nn.Module) -> bool:
    """Says whether `keep_dense` was called for the layer."""
    return "kept_dense" in vars(layer)


def keep_dense(layer: Any) -> None:
    """Keeps the dequantised weight of a 4-bit layer, in its compute dtype, and multiplies by it from now on.

    bitsandbytes dequantises the weight for every product, to the same numbers.
    """
    # Not as a parameter or buffer: what is saved, counted and hashed stays as it is.
    vars(layer)["kept_dense"] = _dequantised(layer).to(layer.compute_dtype)
    layer.forward = partial(_dense_forward, layer)  # an instance attribute hides the class's method


def _dense_forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
    bias = None if layer.bias is None else layer.bias.to(layer.compute_dtype)
    return F.linear(x.to(layer.compute_dtype), dense_weight(layer, layer.compute_dtype), bias).to(x.dtype)
