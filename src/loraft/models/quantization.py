"""NF4 quantisation of a backbone: its settings, the check that they took effect, and work-arounds for bitsandbytes."""

import math
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from transformers import BitsAndBytesConfig

from loraft.config.schema import ModelConfig, QuantConfig
from loraft.distributed import is_sharded
from loraft.engine.quantized_linear import is_4bit, keep_dense
from loraft.errors import BackboneError, Note, listed
from loraft.models.device import pick_compute_dtype

QUANT_TYPE = "nf4"  # 4-bit levels at the quantiles of a normal distribution (Dettmers et al. 2023, "QLoRA")
LEAST_SHARE = 0.5  # of the layers' weights in 4 bits; with less, nf4 saves little and costs time
CACHE_SHARE = 0.3  # of the free memory that dequantised weights may take
BLOCK = 64  # weights with one scale
SHARE_TO_TELL = 0.9  # below it a note says how much is quantised


def nf4_config(model: ModelConfig, section: QuantConfig, device: torch.device) -> BitsAndBytesConfig:
    """Returns the settings that transformers hands to bitsandbytes; its own defaults are FP4 and fp32 computation.

    The block size is bitsandbytes' own, 64 weights; transformers has no setting for it. The compute dtype also decides
    the backbone's dtype (`backbone.load_backbone`) and whether fused layers can be used (`lora_linear.supports`).

    Args:
        model: its dtype is that of the products where `compute_dtype` is auto.
        section: whether the block scales are quantised too (`double_quant`), and the dtype in which the dequantised
            weights are multiplied (`compute_dtype`).
        device: that computes; `compute_dtype: auto` depends on it.
    """
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=QUANT_TYPE,
        bnb_4bit_use_double_quant=section.double_quant,
        bnb_4bit_compute_dtype=pick_compute_dtype(model, section, device),
    )


def check_nf4(model: torch.nn.Module, *, double_quant: bool) -> int:
    """Returns the number of linear layers that are stored in NF4.

    Raises:
        BackboneError: no layer is quantised, or one is stored otherwise than `nf4_config` asks for.
    """
    import bitsandbytes as bnb

    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, bnb.nn.Linear4bit)}
    if not layers:
        raise BackboneError("quant.method: nf4 quantised no layer of this backbone; use --quant none")
    for name, layer in layers.items():
        state = layer.weight.quant_state
        if not is_4bit(layer) or state.quant_type != QUANT_TYPE or bool(state.nested) != double_quant:
            raise BackboneError(
                f"quant: the layer {name} is not stored as NF4 with double_quant={double_quant}; use --quant none"
            )
    return len(layers)


def decoder_matrices(model: torch.nn.Module) -> dict[str, int]:
    """Returns the number of weights in each matrix of the layers: linear ones, and stacked ones of experts.

    Embeddings and the LM head are left out: nf4 never quantises them, and in a small model they are most weights. 4-bit
    weights are counted one by one.

    Args:
        model: a backbone without adapter.
    """
    outside = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, torch.nn.Embedding) or module is model.get_output_embeddings()
    }
    counts = {}
    for name, weight in model.named_parameters():
        state = getattr(weight, "quant_state", None)
        if weight.ndim >= 2 and id(weight) not in outside:
            counts[name] = weight.numel() if state is None else math.prod(state.shape)
    return counts


def quantised_share(model: torch.nn.Module, counts: Mapping[str, int]) -> float:
    """Returns the share of the weights of `decoder_matrices` that is stored in 4 bits."""
    packed = {f"{name}.weight" for name, layer in model.named_modules() if is_4bit(layer)}
    return sum(count for name, count in counts.items() if name in packed) / sum(counts.values())


def check_share(model: torch.nn.Module, *, allow_partial: bool) -> None:
    """Checks that at least half of the layers' weights are quantised; bitsandbytes quantises linear layers only.

    Raises:
        BackboneError: fewer are, and `allow_partial` is false.
    """
    share = quantised_share(model, decoder_matrices(model))
    if share < LEAST_SHARE and not allow_partial:
        raise BackboneError(
            f"quant.method: nf4 quantises only {share:.0%} of the weights in this backbone's layers: bitsandbytes"
            " quantises linear layers, no stacked experts; use --quant none, or go on: --set quant.allow_partial=true"
        )
    if share < SHARE_TO_TELL:
        warnings.warn(f"nf4 quantises {share:.0%} of the weights in the layers; the others stay", Note, stacklevel=3)


def warn_of_widths(model: torch.nn.Module) -> None:
    """Warns of layers on a CPU whose 4-bit weights bitsandbytes 0.50 dequantises wrongly there.

    Its kernel takes the scale of a row's first block for a block that begins in the row before. That happens where a
    layer has a multiple of 16 inputs that is no multiple of 64, the block size (measured: the error of the round trip
    is 3 to 4 times that of other widths). Training and prediction on a CPU agree with each other, not with a GPU.
    """
    layers = [layer for layer in model.modules() if is_4bit(layer) and layer.weight.device.type == "cpu"]
    widths = sorted({w for layer in layers if (w := layer.weight.quant_state.shape[-1]) % 16 == 0 and w % BLOCK})
    if widths:
        warnings.warn(
            f"nf4: on a CPU bitsandbytes reads 4-bit weights of layers with {listed(map(str, widths))} inputs wrongly,"
            f" since that is no multiple of {BLOCK}; use --quant none, or a GPU for training and prediction",
            stacklevel=3,
        )


def cache_weights(model: torch.nn.Module, section: QuantConfig) -> None:
    """Keeps the dequantised weights where `quant.cache` asks for it; auto: on a GPU with much free memory.

    Args:
        model: in NF4, on its device.
        section: of the config.
    """
    layers = [layer for layer in model.modules() if is_4bit(layer)]
    size = sum(layer.compute_dtype.itemsize * math.prod(layer.weight.quant_state.shape) for layer in layers)  # bytes
    device = layers[0].weight.device
    fits = device.type == "cuda" and size <= CACHE_SHARE * torch.cuda.mem_get_info(device)[0]
    if section.cache == "off" or is_sharded() or (section.cache == "auto" and not fits):
        return
    for layer in layers:
        keep_dense(layer)
    warnings.warn(
        f"nf4: the dequantised weights stay in memory, {size / 2**30:.1f} GiB, which is faster; --set quant.cache=off"
        " saves it",
        Note,
        stacklevel=3,
    )


def keep_nf4_layout(model: torch.nn.Module) -> None:
    """Stops bitsandbytes from repacking the weights of a backbone on a CPU at its first evaluation.

    Repacking rounds the block scales to bf16 and undoes the double quantisation. The frozen backbone, and with it the
    scores, would change between the evaluation before training and the training.
    """
    import bitsandbytes as bnb

    for layer in model.modules():
        if isinstance(layer, bnb.nn.Linear4bit):
            layer.support_avx512bf16_for_cpu = False


@contextmanager
def no_compiler() -> Iterator[None]:
    """Switches torch.compile off inside the block, for importing bitsandbytes or peft (which imports bitsandbytes).

    At import, bitsandbytes passes some helper functions to torch.compile, for which torch imports its whole compiler:
    a noticeable part of a cold start. Those helpers serve devices and shapes without a kernel, and work uncompiled.
    """
    switch = "TORCHDYNAMO_DISABLE"
    before = os.environ.get(switch)
    os.environ[switch] = "1"
    try:
        yield
    finally:
        os.environ.pop(switch)
        if before is not None:
            os.environ[switch] = before
