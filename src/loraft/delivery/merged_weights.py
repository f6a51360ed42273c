"""Add an adapter to its backbone's weights: in fp32, one layer after the other, and rounded once.

Merging in 4 or 16 bits rounds the sum W + BA, which can be coarser than BA itself. So 4-bit layers become linear layers
first, and only the result is rounded. How much of the update that costs is measured for each dtype.
"""

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from loraft.errors import BackboneError
from loraft.models.adapter import load_adapter
from loraft.models.adapter_files import errors_named
from loraft.models.device import DTYPE_NAMES, DTYPES


def dequantise(base: PreTrainedModel) -> None:
    """Replaces the 4-bit layers of a backbone by linear layers with the weights that they are multiplied by."""
    quantizer = getattr(base, "hf_quantizer", None)
    if quantizer is None:
        return
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # it would report the dtype of the new layers
    try:
        if getattr(base, "is_loaded_in_4bit", False):
            base.dequantize(dtype=base.dtype)
        else:  # the weights of a GGUF file are dequantised already
            quantizer.remove_quantization_config(base)
    finally:
        transformers_logging.set_verbosity(verbosity)
    base.is_loaded_in_4bit = False
    base.requires_grad_(False)


def merge(base: PreTrainedModel, folder: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, dict[str, float]]:
    """Returns the backbone with an adapter in its weights, and what rounding these would cost.

    Weights that transformers keeps in fp32 stay so. Tied weights of which one is adapted are tied no longer.

    Args:
        base: the backbone without adapter, not quantised; it is changed.
        folder: of the adapter.
        dtype: of the merged weights.

    Returns:
        The model, and for each dtype the size of the rounding errors of the adapted weights relative to the size of
        their update by the adapter (both Frobenius norms, over all adapted weights): 0.1 means that a tenth is noise.

    Raises:
        BackboneError: the adapter does not fit the backbone, cannot be merged, or `dtype` cannot hold a merged weight.
    """
    kept = {name for name, one in base.named_parameters() if one.dtype != base.dtype}
    model = load_adapter(base, folder)

    from peft.tuners.lora.layer import LoraLayer

    owners = Counter(id(one) for module in model.modules() for one in module._parameters.values() if one is not None)
    update, errors = 0.0, dict.fromkeys(DTYPES, 0.0)  # sums of squares
    with errors_named(folder, "cannot be merged", "use it as an adapter"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peft: about tied weights, and that layers are merged already
        for layer in [one for one in model.modules() if isinstance(one, LoraLayer)]:
            owner, name = layer.get_base_layer(), getattr(layer, "parameter_name", "weight")
            weight = getattr(owner, name)
            if owners[id(weight)] > 1:  # the other owner keeps its weight
                owners[id(weight)] -= 1
                weight = torch.nn.Parameter(weight.detach().clone(), requires_grad=False)
                setattr(owner, name, weight)
            before = weight.data = weight.data.float()
            layer.merge(safe_merge=True)  # type: ignore[operator]  # puts a new tensor there
            update += _square(weight.data - before)
            for key, one in DTYPES.items():
                errors[key] += _square(weight.data.to(one).float() - weight.data)
            weight.data = weight.data.to(dtype)
        merged: Any = model.merge_and_unload()  # takes peft's layers away, and puts copies of whole modules in place
    for name, parameter in merged.named_parameters():
        if name not in kept:
            parameter.data = parameter.data.to(dtype)
    _refuse_infinite(merged, dtype)
    merged.config.dtype = dtype
    merged.eval().requires_grad_(False)
    return merged, {name: (error / update) ** 0.5 if update else 0.0 for name, error in errors.items()}


def _square(tensor: torch.Tensor) -> float:
    """The sum of squares."""
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64) ** 2)


def _refuse_infinite(merged: torch.nn.Module, dtype: torch.dtype) -> None:
    wrong = [name for name, one in merged.named_parameters() if one.is_floating_point() and not one.isfinite().all()]
    if wrong:
        raise BackboneError(
            f"--dtype: cannot hold the merged weights (got {DTYPE_NAMES[dtype]}, which overflows in {wrong[0]});"
            " allowed: bf16, fp32"
        )
