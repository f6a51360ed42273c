"""Cuts a LoRA adapter down to lower ranks: in each layer to the best approximation of its update.

The update of a layer is s B A, with s the scale alpha / r, or alpha / sqrt(r) for rsLoRA. Its best approximation of
rank k in the Frobenius norm keeps the k largest singular values (Eckart and Young 1936, "The approximation of one
matrix by another of lower rank"). The product (O, I) is never formed. With the QR decompositions B = Q_B R_B and
A^T = Q_A R_A it is Q_B (s R_B R_A^T) Q_A^T, and the singular values are those of the small core in brackets.

Letters: I inputs, O outputs, R rank of the adapter, M = min(R, I, O), k rank that is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from loraft.config.names import show
from loraft.errors import ConfigError
from loraft.models.adapter_files import check_weights
from loraft.models.lora_hooks import INITS, UNDERSTOOD, WEIGHT
from loraft.runs.peft_folder import WEIGHTS_FILE, read_peft_folder

# Values under which the update is s B A and nothing else; any other key may only be set if `lora_hooks` understands it.
PLAIN = {"init_lora_weights": INITS, "bias": ("none",)}
REASONS = {
    "use_dora": "DoRA also scales the columns of weight plus update, so that a cut of B A changes more than B A",
    "target_parameters": "stacked experts are not cut",
    "modules_to_save": "modules were trained whole beside B A, and have no rank",
    "init_lora_weights": "a part of the backbone's weights was moved into B A, which is not the update alone",
}


@dataclass(frozen=True)
class Cut:
    """An adapter cut to a lower rank, whose scale is 1 in every layer.

    Attributes:
        rank: k, the same in all layers; where an update has a lower rank, the rest is zero.
        weights: as in an adapter's file, fp32.
        energy: share of the layers' squared Frobenius norms together that is kept, in [0, 1].
    """

    rank: int
    weights: dict[str, torch.Tensor]
    energy: float


@dataclass(frozen=True)
class _Layer:
    """The update of one layer as left (O, M) diag(values) right (M, I), fp64, the largest singular value first."""

    name: str
    left_OM: torch.Tensor
    values_M: torch.Tensor
    right_MI: torch.Tensor


def settings_to_cut(folder: Path) -> dict[str, Any]:
    """The content of adapter_config.json of an adapter that can be cut to lower ranks.

    Raises:
        BackboneError: the folder holds no adapter.
        ConfigError: the update of a layer is not s B A alone; the message says what else there is.
    """
    settings = read_peft_folder(folder).settings
    for key, value in settings.items():
        if value not in PLAIN[key] if key in PLAIN else value and key not in {*UNDERSTOOD, "fan_in_fan_out"}:
            reason = REASONS.get(key, "its update may not be s B A alone")
            raise ConfigError(
                f"{folder}: cannot be cut to lower ranks (got {key}={show(value)}): {reason}; train each rank"
                " (loraft sweep without --from)"
            )
    return settings


def settings_of_cut(settings: Mapping[str, Any], rank: int) -> dict[str, Any]:
    """The adapter_config.json of the same adapter cut to that rank."""
    return {**settings, "r": rank, "lora_alpha": float(rank), "use_rslora": False, "init_lora_weights": True}


def cut(folder: Path, ranks: Sequence[int]) -> list[Cut]:
    """Returns an adapter cut to each of these ranks, exactly but for rounding where a rank is its own.

    Args:
        folder: of the adapter.
        ranks: in any order.

    Raises:
        BackboneError, ConfigError: as in `settings_to_cut`, or weights are no matrices A and B, NaN or infinite.
    """
    settings = settings_to_cut(folder)
    scale = settings["lora_alpha"] / settings["r"] ** (0.5 if settings.get("use_rslora") else 1.0)
    check_weights(folder)
    weights = load_file(folder / WEIGHTS_FILE)
    names = [match["layer"] for match in map(WEIGHT.fullmatch, sorted(weights)) if match and match["part"] == "A"]
    strange = sorted(weights.keys() ^ {_key(name, part) for name in names for part in "AB"})
    if strange:
        raise ConfigError(f"{folder}: cannot be cut to lower ranks (got no pair of A and B: {show(strange[0])})")
    layers = [_decomposed(name, weights[_key(name, "A")], weights[_key(name, "B")], scale) for name in names]
    total = sum(float(layer.values_M.square().sum()) for layer in layers)
    return [_cut(layers, rank, total) for rank in ranks]


def _key(layer: str, part: str) -> str:
    return f"base_model.model.{layer}.lora_{part}.weight"


def _decomposed(name: str, down_RI: torch.Tensor, up_OR: torch.Tensor, scale: float) -> _Layer:
    q_up, r_up = torch.linalg.qr(up_OR.double())
    q_down, r_down = torch.linalg.qr(down_RI.double().T)
    left, values_M, right = torch.linalg.svd(scale * r_up @ r_down.T, full_matrices=False)
    return _Layer(name, q_up @ left, values_M, right @ q_down.T)


def _cut(layers: Sequence[_Layer], rank: int, total: float) -> Cut:
    weights, kept = {}, 0.0
    for layer in layers:
        values_k = layer.values_M[:rank]
        kept += float(values_k.square().sum())
        missing, root_k = rank - len(values_k), values_k.sqrt()  # A and B share each singular value evenly
        down_kI, up_Ok = root_k[:, None] * layer.right_MI[:rank], layer.left_OM[:, :rank] * root_k
        weights[_key(layer.name, "A")] = F.pad(down_kI, (0, 0, 0, missing)).float().contiguous()
        weights[_key(layer.name, "B")] = F.pad(up_Ok, (0, missing)).float().contiguous()
    return Cut(rank, weights, kept / total if total else 1.0)
