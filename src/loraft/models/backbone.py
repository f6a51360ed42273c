"""The backbone: find and load its tokenizer and its weights, in full precision or NF4, and identify it by hashes."""

import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from loraft import distributed
from loraft.bundled import bundled_backbones
from loraft.config.schema import ModelConfig, QuantConfig
from loraft.errors import BackboneError
from loraft.models.quantization import check_nf4, keep_nf4_layout, nf4_config, no_compiler

transformers_logging.disable_progress_bar()  # transformers would draw one for each file of weights, at every start


def resolve_name(name: str) -> str:
    """Returns the folder of a bundled backbone, a local folder as it is given, or else the name as a hub id.

    Raises:
        BackboneError: the folder has no config.json, or the name is neither a bundled backbone nor a folder nor of the
            form owner/name.
    """
    bundled = bundled_backbones().get(name)
    if bundled is not None:
        return str(bundled)
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").exists():
            raise BackboneError(f"model.name: {name} has no config.json; name a folder saved by save_pretrained")
        return str(path)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        known = ", ".join(bundled_backbones())
        raise BackboneError(
            f"model.name: no such backbone (got {name!r}); bundled: {known}; else a folder, or owner/name on the hub"
        )
    return name


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


def load_tokenizer(section: ModelConfig) -> PreTrainedTokenizerBase:
    """Returns the backbone's tokenizer; where it has no pad token, the end-of-sequence token becomes the pad token.

    Raises:
        BackboneError: it cannot be loaded.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(resolve_name(section.name), **_hub(section))
    except Exception as error:  # a damaged file raises errors of many types
        raise BackboneError(_cannot_load(section.name, error)) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_backbone(model: ModelConfig, quant: QuantConfig) -> PreTrainedModel:
    """Returns the frozen backbone in evaluation mode, on its device, in full precision or in NF4.

    Raises:
        BackboneError: it cannot be loaded, it is an adapter, or it cannot be quantised as `quant` asks.
    """
    device = pick_device(model.device)
    bf16 = model.dtype == "bf16" or (model.dtype == "auto" and has_bf16(device))
    # With NF4, embeddings and head stay unquantised; `auto` gives them the dtype that the other layers compute in.
    bf16 = bf16 or (model.dtype == "auto" and quant.method == "nf4" and quant.compute_dtype == "bf16")
    kwargs: dict[str, Any] = {"dtype": torch.bfloat16 if bf16 else torch.float32, "device_map": {"": device}}
    if quant.method == "nf4":
        kwargs["quantization_config"] = nf4_config(quant)
    folder = Path(resolve_name(model.name))
    if (folder / "adapter_config.json").exists():
        raise BackboneError(
            f"model.name: {model.name} is an adapter, not a backbone; name the backbone it was trained with"
        )
    try:
        if quant.method == "nf4":
            with no_compiler():
                import bitsandbytes  # noqa: F401  # imported here, or transformers would import it with the compiler on
        base = AutoModelForCausalLM.from_pretrained(resolve_name(model.name), **_hub(model), **kwargs)
    except Exception as error:  # a damaged file raises errors of many types
        raise BackboneError(_cannot_load(model.name, error)) from error
    if quant.method == "nf4":
        keep_nf4_layout(base)
        check_nf4(base, double_quant=quant.double_quant)
    base.requires_grad_(False)
    return base  # `from_pretrained` has put it into evaluation mode


def without_weights(section: ModelConfig) -> PreTrainedModel:
    """Returns the backbone on the meta device: its layers have shapes, but no weights.

    Raises:
        OSError, ValueError: its config.json cannot be read.
    """
    config = AutoConfig.from_pretrained(resolve_name(section.name), **_hub(section))
    with torch.device("meta"):
        base: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return base


def fingerprint(model: PreTrainedModel) -> str:
    """Returns a hash that identifies a backbone: of name, shape, dtype and 64 or more spread values of every weight.

    An adapter on the backbone does not change it. Another quantisation or dtype of the same weights does.
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


def weights_hash(base: PreTrainedModel) -> str:
    """Returns the SHA-256 of all weights, quantisation constants and buffers with their names, in hexadecimal.

    Equal hashes mean that two backbones without adapter are bit-identical. `fingerprint` is faster and reads a sample
    of the weights only.
    """
    digest = hashlib.sha256(f"adapter: {hasattr(base, 'peft_config')}".encode())
    tensors = {**base.state_dict(), **dict(base.named_buffers())}
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        digest.update(flat.cpu().numpy().data)
    return digest.hexdigest()


def _hub(section: ModelConfig) -> dict[str, Any]:
    """The arguments of `from_pretrained` that the config sets."""
    given = {"revision": section.revision, "cache_dir": section.cache_dir}
    return {key: value for key, value in given.items() if value is not None}


def _cannot_load(name: str, error: Exception) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") == "1" else ""
    return (
        f"model.name: cannot load {name}{offline}: {first}; check the name, log in with `hf auth login` where the "
        "model is gated, or start with the bundled one: --model loraft-vi-tiny"
    )
