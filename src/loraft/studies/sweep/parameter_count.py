"""Counts the weights that an adapter trains from the backbone's `config.json`, without importing torch."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loraft.bundled import bundled_backbones
from loraft.config.schema import Config


def trainable_parameters(config: Config) -> int | None:
    """Number of weights that the adapter trains: the sum of r (d_in + d_out) over its layers.

    DoRA trains a magnitude vector of length d_out more in each layer.

    Returns:
        The count; None where the backbone is neither bundled nor a local folder, its architecture is not known here, a
        target is not one of its linear layers by name, or more than linear layers is trained.

    Source:
        LoRA: Hu et al. 2021, arXiv:2106.09685, section 4.1. DoRA: Liu et al. 2024, arXiv:2402.09353, section 4.1.
    """
    lora, backbone = config.lora, _backbone_config(config.model.name)
    layers = _linear_layers(backbone)
    known = {"all-linear": list(layers), "default": ["q_proj", "v_proj"]}  # peft's choice for these architectures
    targets = known.get(lora.target_modules, []) if isinstance(lora.target_modules, str) else lora.target_modules
    if not targets or not set(targets) <= set(layers) or lora.modules_to_save or lora.target_parameters:
        return None
    per_block = sum(lora.r * sum(layers[name]) + lora.use_dora * layers[name][1] for name in set(targets))
    return int(per_block * backbone["num_hidden_layers"])


def _backbone_config(name: str) -> dict[str, Any]:
    """The content of `config.json` of a bundled backbone or a local folder; empty for any other name."""
    path = Path(os.path.expanduser(bundled_backbones().get(name, name))) / "config.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content


def _linear_layers(backbone: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """(d_in, d_out) of each linear layer in one block, for architectures built like Llama; empty for others."""
    if backbone.get("model_type") not in ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"):
        return {}
    hidden, inner, heads = (backbone[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads"))
    head = backbone.get("head_dim") or hidden // heads
    queries, keys = heads * head, (backbone.get("num_key_value_heads") or heads) * head
    return {
        "q_proj": (hidden, queries), "k_proj": (hidden, keys), "v_proj": (hidden, keys), "o_proj": (queries, hidden),
        "gate_proj": (hidden, inner), "up_proj": (hidden, inner), "down_proj": (inner, hidden),
    }  # fmt: skip
