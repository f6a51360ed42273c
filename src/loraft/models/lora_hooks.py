"""Evaluate a plain LoRA adapter without peft: forward hooks add its contribution to the outputs of linear layers.

Importing peft imports bitsandbytes too, which is a noticeable part of a cold start, while `loraft predict` needs one
formula of it: y + scale * (x A^T) B^T, where scale is alpha / r, or alpha / sqrt(r) for rsLoRA (Kalajdzievski 2023,
"A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA").

The formula is computed with the dtypes and in the order of operations of peft (version 0.21, tuners/lora/layer.py and
bnb.py), so that the scores are equal to the last bit. Every other kind of adapter is left to peft.

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

from loraft.engine.quantized_linear import is_4bit
from loraft.models.adapter_targets import matches
from loraft.runs.peft_folder import CONFIG_FILE, WEIGHTS_FILE

# Keys of adapter_config.json that are part of the formula or do not matter for it. An adapter in which any other key is
# set may need another formula.
UNDERSTOOD = {
    "base_model_name_or_path", "bias", "inference_mode", "init_lora_weights", "lora_alpha", "lora_dropout",
    "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r", "revision", "target_modules", "task_type",
    "use_rslora",
}  # fmt: skip
# The other initialisations change the backbone's weights when the adapter is loaded.
INITS = (True, "gaussian", "orthogonal")
WEIGHT = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<part>[AB])\.weight")


def attach(model: torch.nn.Module, folder: Path) -> bool:
    """Adds the adapter in `folder` to the model's linear layers by hooks, its weights in fp32 on the layers' devices.

    Returns:
        False, with the model unchanged, if the adapter is not plain LoRA on linear layers of this model, or if its
        files are not in the format of peft 0.21.
    """
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    scale, path = _scale(config), folder / WEIGHTS_FILE
    if scale is None or not path.is_file():
        return False
    weights = load_file(path)
    named = {name: WEIGHT.fullmatch(name) for name in weights}
    found = {match["layer"] for match in named.values() if match}
    targets = config["target_modules"]
    layers = {name: layer for name, layer in model.named_modules() if name and matches(targets, name)}
    # Every weight must be an A or a B, and every layer that the config names must have exactly one of each.
    if None in named.values() or set(layers) != found or len(weights) != 2 * len(found):
        return False
    pairs = {name: [weights[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB"] for name in layers}
    if not all(_is_linear(layer) and _fits(layer, config["r"], *pairs[name]) for name, layer in layers.items()):
        return False
    for name, layer in layers.items():
        down_RI, up_OR = (weight.to(layer.weight.device, torch.float32) for weight in pairs[name])
        layer.register_forward_hook(partial(_add, down_RI, up_OR, scale))
    return True


def _scale(config: dict[str, Any]) -> float | None:
    """Returns the factor of the low-rank product, or None if the adapter is not plain LoRA."""
    beyond = [key for key, value in config.items() if value and key not in UNDERSTOOD]
    plain = (config.get("peft_type"), config.get("bias")) == ("LORA", "none")
    if beyond or not plain or config.get("init_lora_weights") not in INITS:
        return None
    return float(config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"]))


def _is_linear(layer: torch.nn.Module) -> bool:
    """Returns whether peft computes the formula above for this layer; for other classes it has other formulas."""
    return type(layer) is torch.nn.Linear or is_4bit(layer)


def _fits(layer: Any, rank: int, down_RI: torch.Tensor, up_OR: torch.Tensor) -> bool:
    """Returns whether the shapes of A and B are those of an adapter of this rank on this layer."""
    return [*down_RI.shape, *up_OR.shape] == [rank, layer.in_features, layer.out_features, rank]


def _add(
    down_RI: torch.Tensor,
    up_OR: torch.Tensor,
    scale: float,
    layer: torch.nn.Module,
    given: tuple[torch.Tensor],
    output: torch.Tensor,
) -> torch.Tensor:
    """The forward hook: returns the layer's output plus the adapter's contribution, in the output's dtype."""
    share = F.linear(F.linear(given[0].float(), down_RI), up_OR) * scale
    if is_4bit(layer):  # here peft rounds the contribution before it adds it, elsewhere the sum only
        share = share.to(output.dtype)
    return (output + share).to(output.dtype)
