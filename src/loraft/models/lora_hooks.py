"""A plain LoRA adapter that is only asked, without peft: what it adds to a layer's output, hooked onto the layer.

Importing peft brings bitsandbytes along and is a noticeable part of a cold start, and `loraft predict` needs one
formula of it: y + scale * (x A^T) B^T, with scale alpha / r, or alpha / sqrt(r) for rsLoRA (Kalajdzievski 2023). It is
computed here in peft's own types and order (peft 0.21, tuners/lora/layer.py and bnb.py), so that the scores are the
same to the last bit. An adapter with anything more is left to peft.

Suffixes: I inputs, O outputs, R rank.
"""

import json
import math
import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

# Keys of adapter_config.json that do not change the formula, or that it takes; any other one must be unset.
UNDERSTOOD = {
    "base_model_name_or_path", "bias", "inference_mode", "init_lora_weights", "lora_alpha", "lora_dropout",
    "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r", "revision", "target_modules", "task_type",
    "use_rslora",
}  # fmt: skip
INITS = (True, "gaussian", "orthogonal")  # the others move weights out of the backbone, at loading too
WEIGHT = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<part>[AB])\.weight")


def attach(model: torch.nn.Module, folder: Path) -> bool:
    """Hooks the adapter in `folder` onto the model's linear layers, its weights in fp32 on the layers' devices.

    Returns:
        False, with the model untouched, if the adapter is more than plain LoRA on linear layers, or is not stored as
        peft stores it today.
    """
    scale = _scale(json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")))
    path = folder / "adapter_model.safetensors"
    if scale is None or not path.is_file():
        return False
    weights = load_file(path)
    named = {name: WEIGHT.fullmatch(name) for name in weights}
    found = {match["layer"] for match in named.values() if match}
    layers = {name: layer for name, layer in model.named_modules() if name in found and _is_linear(layer)}
    if None in named.values() or set(layers) != found or len(weights) != 2 * len(found):
        return False
    for name, layer in layers.items():
        down_RI, up_OR = (
            weights[f"base_model.model.{name}.lora_{part}.weight"].to(layer.weight.device, torch.float32)
            for part in "AB"
        )
        layer.register_forward_hook(partial(_add, down_RI, up_OR, scale))
    return True


def _scale(config: dict[str, Any]) -> float | None:
    """Returns what the low-rank product is multiplied by, or None if the adapter is more than plain LoRA."""
    beyond = [key for key, value in config.items() if value and key not in UNDERSTOOD]
    plain = (config.get("peft_type"), config.get("bias")) == ("LORA", "none") and config.get(
        "init_lora_weights"
    ) in INITS
    if beyond or not plain:
        return None
    return float(config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"]))


def _is_linear(layer: torch.nn.Module) -> bool:
    """Says whether peft would use its linear layer, or its 4-bit one; for other classes it has other formulas."""
    return type(layer) is torch.nn.Linear or _is_4bit(layer)


def _is_4bit(layer: torch.nn.Module) -> bool:
    return getattr(getattr(layer, "weight", None), "quant_state", None) is not None


def _add(
    down_RI: torch.Tensor,
    up_OR: torch.Tensor,
    scale: float,
    layer: torch.nn.Module,
    given: tuple[torch.Tensor],
    output: torch.Tensor,
) -> torch.Tensor:
    """Returns the layer's output with the adapter's share, in the output's type."""
    share = F.linear(F.linear(given[0].float(), down_RI), up_OR) * scale
    if _is_4bit(layer):  # peft rounds here first
        share = share.to(output.dtype)
    return (output + share).to(output.dtype)
