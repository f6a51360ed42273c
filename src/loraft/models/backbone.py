"""The backbone: tokenizer, base model, quantisation and the adapter on top of it."""

import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from loraft import distributed
from loraft.bundled import bundled_backbones
from loraft.config.schema import ModelConfig, QuantConfig
from loraft.errors import BackboneError
from loraft.models.quantization import check_nf4, keep_nf4_layout, no_compiler

transformers_logging.disable_progress_bar()  # a bar for each file of weights, at every start


def resolve_name(name: str) -> str:
    """Returns the folder of a bundled backbone, an existing local folder as it is, or the hub id.

    Raises:
        BackboneError: if the name looks like a path but no folder with a config.json is there.
    """
    bundled = bundled_backbones().get(name)
    if bundled is not None:
        return str(bundled)
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").exists():
            raise BackboneError(f"model.name: {name} holds no config.json; name a folder saved by save_pretrained")
        return str(path)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        known = ", ".join(bundled_backbones())
        raise BackboneError(
            f"model.name: no such backbone (got {name!r}); bundled: {known}; else a folder, or owner/name on the hub"
        )
    return name


def pick_device(wanted: str) -> torch.device:
    """Returns the device; `auto` takes the first accelerator there is, else the CPU."""
    if wanted == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        if found is None:
            return torch.device("cpu")
        return torch.device(found.type, distributed.place()) if distributed.several() else found
    available = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "xpu": torch.xpu.is_available}
    if wanted in available and not available[wanted]():
        raise BackboneError(f"model.device: {wanted} is not available here; use auto or cpu")
    return (
        torch.device(wanted, distributed.place())
        if wanted in available and distributed.several()
        else torch.device(wanted)
    )


def has_bf16(device: torch.device) -> bool:
    """Says whether the device multiplies bf16 matrices natively."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        if platform.machine() in ("arm64", "aarch64"):
            return False
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return device.type == "xpu"


def load_tokenizer(section: ModelConfig) -> PreTrainedTokenizerBase:
    """Returns the backbone's tokenizer; the pad token is the end of sequence where there is none, as upstream."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(resolve_name(section.name), **_hub(section))
    except Exception as error:  # a damaged file fails in as many ways as there are formats
        raise BackboneError(_cannot_load(section.name, error)) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_backbone(model: ModelConfig, quant: QuantConfig) -> PreTrainedModel:
    """Returns the frozen base model in evaluation mode, on its device, in full precision or in NF4.

    Raises:
        BackboneError: if it cannot be loaded, or if it is an adapter already, or if quantisation did not take.
    """
    device = pick_device(model.device)
    bf16 = model.dtype == "bf16" or (model.dtype == "auto" and has_bf16(device))
    kwargs: dict[str, Any] = {"dtype": torch.bfloat16 if bf16 else torch.float32, "device_map": {"": device}}
    if quant.method == "nf4":
        # transformers' own defaults are fp4, no double quantisation and fp32 compute
        kwargs["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=quant.double_quant,
            bnb_4bit_compute_dtype=torch.bfloat16 if quant.compute_dtype == "bf16" else torch.float32,
        )
        if quant.compute_dtype == "bf16" and model.dtype == "auto":
            kwargs["dtype"] = torch.bfloat16
    folder = Path(resolve_name(model.name))
    if (folder / "adapter_config.json").exists():
        raise BackboneError(
            f"model.name: {model.name} is an adapter, not a backbone; name the base model it was trained on"
        )
    try:
        if quant.method == "nf4":
            with no_compiler():
                import bitsandbytes  # noqa: F401  # before transformers does it
        base = AutoModelForCausalLM.from_pretrained(resolve_name(model.name), **_hub(model), **kwargs)
    except Exception as error:  # a damaged file fails in as many ways as there are formats
        raise BackboneError(_cannot_load(model.name, error)) from error
    if quant.method == "nf4":
        keep_nf4_layout(base)
        check_nf4(base, double_quant=quant.double_quant)
    base.requires_grad_(False)
    base.eval()
    return base


def fingerprint(model: PreTrainedModel) -> str:
    """Returns a hash that tells two backbones apart: the shape and 64 evenly spaced values of every weight.

    An adapter on top does not count; the same weights in another quantisation or dtype are another backbone.
    """
    digest = hashlib.sha256()
    plain = {
        name.removeprefix("base_model.model.").replace(".base_layer", ""): p for name, p in model.named_parameters()
    }
    for name in sorted(name for name in plain if "lora_" not in name):
        weight = plain[name]
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        flat = weight.detach().flatten()
        digest.update(flat[:: max(1, flat.numel() // 64)].to("cpu").contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _hub(section: ModelConfig) -> dict[str, Any]:
    kwargs: dict[str, Any] = {}
    if section.revision is not None:
        kwargs["revision"] = section.revision
    if section.cache_dir is not None:
        kwargs["cache_dir"] = section.cache_dir
    return kwargs


def _cannot_load(name: str, error: Exception) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") == "1" else ""
    return (
        f"model.name: cannot load {name}{offline}: {first}; check the name, log in with `hf auth login` where the "
        "model is gated, or start with the bundled one: --model loraft-vi-tiny"
    )


def weights_hash(base: PreTrainedModel) -> str:
    """Returns SHA-256 over every weight, quantisation constant and buffer, with names, in hexadecimal.

    Equal hashes mean bit-identical backbones without any adapter. `backbone.fingerprint` is the quick one: it samples
    the embedding, to tell two backbones apart.
    """
    digest = hashlib.sha256(f"adapter: {hasattr(base, 'peft_config')}".encode())
    tensors = {**base.state_dict(), **dict(base.named_buffers())}
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        digest.update(flat.cpu().numpy().data)
    return digest.hexdigest()


def without_weights(section: ModelConfig) -> PreTrainedModel:
    """Returns the backbone with its shapes only.

    Raises:
        OSError, ValueError: its config cannot be read.
    """
    given = {"revision": section.revision, "cache_dir": section.cache_dir}
    config = AutoConfig.from_pretrained(
        resolve_name(section.name), **{key: value for key, value in given.items() if value is not None}
    )
    with torch.device("meta"):
        base: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return base
