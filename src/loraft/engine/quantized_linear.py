"""Says whether a linear layer is stored in 4 bits (bitsandbytes), and returns its weight as a dense matrix."""

from typing import Any

import torch


def is_4bit(layer: torch.nn.Module) -> bool:
    """Says whether bitsandbytes has quantised the layer's weight to 4 bits."""
    return getattr(getattr(layer, "weight", None), "quant_state", None) is not None


def dense_weight(layer: Any, dtype: torch.dtype) -> torch.Tensor:
    """Returns the weight (O, I) of a linear layer in the given type, dequantised if it is stored in 4 bits."""
    if not is_4bit(layer):
        weight: torch.Tensor = layer.weight
        return weight.to(dtype)
    from bitsandbytes.functional import dequantize_4bit

    dense: torch.Tensor = dequantize_4bit(layer.weight, layer.weight.quant_state).to(dtype)
    return dense
