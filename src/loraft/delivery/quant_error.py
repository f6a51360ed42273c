"""Measures what 4-bit and 8-bit storage changes in a backbone's weights, by type of layer, for `loraft plan`.

nf4 and fp4 are bitsandbytes' kernels with blocks of 64 weights, as `quant.method=nf4` has them, and with or without
double quantisation as `quant.double_quant` says. int8 is the row-wise absmax formula of LLM.int8() in torch, without
its 16-bit columns for outliers, which depend on the activations: round(127 w / max |w|) of each row.

Sources: Dettmers et al. 2023, "QLoRA", section 3; Dettmers et al. 2022, "LLM.int8()", section 2.1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.table import Table

from loraft.config.schema import Config, QuantConfig
from loraft.display.table import add_row, number_table
from loraft.models.backbone import load_backbone
from loraft.models.quantization import no_compiler

BLOCK = 64  # weights with one scale
METHODS = ("nf4", "fp4", "int8")


@dataclass(frozen=True)
class LayerError:
    """The error of the round trip through a storage method, of all linear layers of one type.

    Attributes:
        layer: last part of their names, such as q_proj.
        method: nf4, fp4 or int8.
        weights: number of weights in the layers.
        bits: stored for a weight, its share of the scales included.
        rms: root mean square of the error, as a share of the weights' own.
        largest: the largest error, as a share of the same.
    """

    layer: str
    method: str
    weights: int
    bits: float
    rms: float
    largest: float


def measure(config: Config) -> list[LayerError]:
    """The errors by type of layer, in the order of the backbone, and by method.

    Args:
        config: its `model` and `quant.double_quant`; the weights are loaded in `model.dtype`, from which nf4 starts.

    Raises:
        BackboneError: the weights cannot be loaded.
    """
    base = load_backbone(config.model, QuantConfig())
    head, parts = base.get_output_embeddings(), dict[tuple[str, str], list[tuple[float, ...]]]()
    for name, layer in base.named_modules():
        if isinstance(layer, torch.nn.Linear) and layer is not head:
            weight = layer.weight.data.float()
            for method in METHODS:
                back, bits = round_trip(weight, method, double_quant=config.quant.double_quant)
                error = back - weight
                squares = (float(tensor.double().square().sum()) for tensor in (weight, error))
                of_layer = (weight.numel(), bits, float(error.abs().max()), *squares)
                parts.setdefault((name.rpartition(".")[2], method), []).append(of_layer)
    found = []
    for (kind, method), layers in parts.items():
        counts, all_bits, largest, squares_of_weights, squares_of_errors = zip(*layers, strict=True)
        weights, size = int(sum(counts)), math.sqrt(sum(squares_of_weights) / sum(counts))
        rms = math.sqrt(sum(squares_of_errors) / sum(squares_of_weights))
        found.append(LayerError(kind, method, weights, sum(all_bits) / weights, rms, max(largest) / size))
    return found


def round_trip(weight: torch.Tensor, method: str, *, double_quant: bool) -> tuple[torch.Tensor, int]:
    """The fp32 weight (rows, columns) after it was stored and read again, and the bits that were stored."""
    if method == "int8":
        scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-30) / 127  # not 0 in a row of zeros
        return (weight / scale).round() * scale, 8 * weight.numel() + 32 * len(weight)
    with no_compiler():
        from bitsandbytes import functional

    given = {"blocksize": BLOCK, "quant_type": method, "compress_statistics": double_quant}
    packed, state = functional.quantize_4bit(weight, **given)
    stored = [packed, state.absmax, *([state.state2.absmax] if state.nested else [])]
    bits = sum(8 * part.numel() * part.element_size() for part in stored)
    return functional.dequantize_4bit(packed, state), bits


def table(found: Sequence[LayerError]) -> Table:
    """A row for each type of layer: weights, and of each method bits a weight and RMS error."""
    heads = [head for method in METHODS for head in (f"{method} bits", "error")]
    made = number_table("layers", "weights", *heads)
    for layer in dict.fromkeys(one.layer for one in found):
        of = [one for one in found if one.layer == layer]
        cells = [cell for one in of for cell in (f"{one.bits:.3f}", f"{one.rms:.2%}")]
        add_row(made, layer, f"{of[0].weights:,}", *cells)
    return made
