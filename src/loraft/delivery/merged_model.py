"""A run's adapter merged into its backbone: plain layers of W + scale * B A, computed in fp32 and rounded once.

peft can merge into 4-bit weights, but rounds the sum to 4 bits again, which changes answers; in 16 bits, W is rounded
more coarsely than B A is large. Here the backbone is dequantised first, so that the merged weights are those that the
adapter was trained over. One layer at a time is in fp32, so that memory holds the backbone once.
"""

import warnings
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from loraft.config.schema import Config, QuantConfig
from loraft.errors import BackboneError, Note
from loraft.models.adapter import load_adapter
from loraft.models.adapter_files import errors_named
from loraft.models.backbone import load_backbone, load_config
from loraft.models.device import DTYPE_NAMES, DTYPES
from loraft.models.encoder import Encoder
from loraft.models.load import load_base
from loraft.models.source import located
from loraft.runs.run import Run

Base = Literal["dequantised", "original"]


def merged_model(
    run: Run, config: Config, *, base: Base = "dequantised", dtype: str = "fp32"
) -> tuple[Encoder, PreTrainedModel]:
    """Returns the encoder of a finished run, and its backbone with the adapter merged into the weights.

    Args:
        run: the adapter is checked against its backbone, as for a prediction.
        config: the run's own.
        base: for QLoRA, the weights under the adapter: those of NF4, dequantised, over which it was trained, or the
            ones before quantisation. Without quantisation both are the same.
        dtype: of the merged weights, a key of `device.DTYPES`. Weights of NF4 are dequantised to it, as a prediction
            with `model.dtype` does; the sum is computed in fp32 and rounded once.

    Raises:
        RunError, BackboneError: as `load_run` and `merge`.
    """
    return merged_and_measured(run, config, base, dtype)[:2]


def merged_and_measured(
    run: Run, config: Config, base: Base, dtype: str
) -> tuple[Encoder, PreTrainedModel, dict[str, float]]:
    """Returns what `merged_model` does, and the rounding errors as `merge` does."""
    config = located(run.adapter, config, needed=True)
    section = config.model.model_copy(update={"dtype": dtype})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)  # that `dtype` is another one than that of the training
        encoder, model = load_base(run, config.model_copy(update={"model": section}))
        if config.quant.method != "none" and base == "original":
            stored = DTYPE_NAMES.get(load_config(section).dtype, "fp32")  # in which no weight is rounded
            del model
            model = load_backbone(section.model_copy(update={"dtype": stored}), QuantConfig(method="none"))
    dequantise(model)
    return encoder, *merge(model, run.adapter, DTYPES[dtype])


def dequantise(base: PreTrainedModel) -> None:
    """Replaces the 4-bit layers of a backbone by linear layers with the weights that they are multiplied by."""
    quantizer = getattr(base, "hf_quantizer", None)
    if quantizer is None:
        return
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # it warns of the dtype
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
    """Returns the backbone with an adapter in its weights, and how much of the update each dtype rounds away.

    Weights that transformers keeps in fp32 stay so. Tied weights are tied no longer where one of them is adapted.

    Args:
        base: the backbone without adapter, not quantised; it is changed.
        folder: of the adapter.
        dtype: of the merged weights.

    Returns:
        The model, and for each dtype the size of the changed weights' rounding errors as a fraction of the size of
        their change from the backbone's (Frobenius norms, over all changed weights): at 0.1, a tenth of it is noise.

    Raises:
        BackboneError: the adapter does not fit the backbone, or cannot be merged, or the dtype overflows.
    """
    kept = {name for name, one in base.named_parameters() if one.dtype != base.dtype}
    given = {name: one.data for name, one in base.named_parameters(remove_duplicate=False)}
    model = load_adapter(base, folder)  # which may move a part of the weights into the adapter

    from peft.tuners.lora.layer import LoraLayer

    owners = Counter(id(one) for module in model.modules() for one in module._parameters.values() if one is not None)
    update, errors = 0.0, dict.fromkeys(DTYPES, 0.0)  # sums of squares

    def count(before: torch.Tensor, after: torch.Tensor) -> None:
        nonlocal update
        update += _square(after - before.to(after))
        for key, one in DTYPES.items():
            errors[key] += _square(after.to(one).float() - after)

    with errors_named(folder, "cannot be merged", "use it as an adapter"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peft: about tied weights, and about layers that are merged already
        for path, layer in [(path, one) for path, one in model.named_modules() if isinstance(one, LoraLayer)]:
            owner, name = layer.get_base_layer(), getattr(layer, "parameter_name", "weight")
            weight: Any = getattr(owner, name)
            if owners[id(weight)] > 1:  # the other layer keeps the weight as it is
                owners[id(weight)] -= 1
                weight = torch.nn.Parameter(weight.detach().clone(), requires_grad=False)
                setattr(owner, name, weight)
            weight.data = weight.data.float()
            layer.merge(safe_merge=True)  # puts a new tensor there
            count(given.pop(f"{path.removeprefix('base_model.model.').replace('.base_layer', '')}.{name}"), weight.data)
            weight.data = weight.data.to(dtype)
        merged: Any = model.merge_and_unload()  # takes peft's layers away, and puts copies of whole modules in place
    for name, parameter in merged.named_parameters():
        if name in given and given[name].data_ptr() != parameter.data_ptr():  # a copy, or with other rows
            count(given[name], parameter.data.float())
        if name not in kept:
            parameter.data = parameter.data.to(dtype)
        if not parameter.isfinite().all():
            raise BackboneError(
                f"--dtype: cannot hold the merged weights (got {DTYPE_NAMES[dtype]}, where {name} has infinities);"
                " allowed: bf16, fp32"
            )
    head, embeddings = merged.get_output_embeddings(), merged.get_input_embeddings()
    for part in (merged.config, merged.config.get_text_config()):
        part.dtype = dtype
        if getattr(part, "tie_word_embeddings", False):
            part.tie_word_embeddings = head.weight is embeddings.weight
    merged.eval().requires_grad_(False)
    return merged, {name: (error / update) ** 0.5 if update else 0.0 for name, error in errors.items()}


def _square(tensor: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64) ** 2)
