"""Pick the device and the dtypes that a backbone computes in, from the config and what the hardware has."""

import platform

import torch

from loraft import distributed
from loraft.config.dtypes import TORCH_NAMES
from loraft.config.schema import ModelConfig, QuantConfig
from loraft.errors import BackboneError

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, full) for name, full in TORCH_NAMES.items()}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def pick_device(wanted: str) -> torch.device:
    """Returns the device of that name; for `auto` the accelerator if there is one, else the CPU.

    In distributed training, it is the accelerator whose index is this process's local rank.

    Raises:
        BackboneError: this machine has no such device.
    """
    if wanted == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        if found is None:
            return torch.device("cpu")
        return torch.device(found.type, distributed.local_rank()) if distributed.is_distributed() else found
    available = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "xpu": torch.xpu.is_available}
    if wanted in available and not available[wanted]():
        raise BackboneError(f"model.device: {wanted} is not available on this machine; use auto or cpu")
    if wanted in available and distributed.is_distributed():
        return torch.device(wanted, distributed.local_rank())
    return torch.device(wanted)


def has_bf16(device: torch.device) -> bool:
    """Returns whether the device has instructions for products of bf16 matrices; without them, bf16 is slow."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        if platform.machine() in ("arm64", "aarch64"):
            return False
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(device.type == "xpu")


def pick_dtype(model: ModelConfig, quant: QuantConfig, device: torch.device) -> torch.dtype:
    """Returns the dtype of the backbone's weights that are not quantised; `auto` asks the hardware.

    It is bf16 where the device multiplies it, else fp16 on a CUDA card (T4, V100) and fp32 elsewhere. With NF4,
    embeddings and head stay unquantised; `auto` gives them the dtype that the other layers compute in.
    """
    if model.dtype != "auto":
        return DTYPES[model.dtype]
    if has_bf16(device):
        return torch.bfloat16
    if quant.method == "nf4":
        return pick_compute_dtype(model, quant, device)
    return torch.float16 if device.type == "cuda" else torch.float32


def pick_compute_dtype(model: ModelConfig, quant: QuantConfig, device: torch.device) -> torch.dtype:
    """Returns the dtype in which dequantised weights are multiplied.

    `auto` is the backbone's dtype where that is given, since fused layers need both equal (`lora_linear.supports`);
    else bf16, and on a CUDA card without it fp16.
    """
    given = model.dtype if quant.compute_dtype == "auto" else quant.compute_dtype
    if given != "auto":
        return DTYPES[given]
    return torch.float16 if device.type == "cuda" and not has_bf16(device) else torch.bfloat16
