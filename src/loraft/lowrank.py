"""The low-rank products of a training step, for one adapter or for several at once over one frozen backbone.

peft multiplies in the adapter's fp32, on a copy of the layer's input. Here the weights stay in fp32 and are multiplied
in the backbone's own type, as under autocast, and the product is added to the backbone's output in the same call; with
an fp32 backbone nothing is rounded otherwise than in peft. Several adapters train at once when their rows stand behind
each other in the batch, adapter by adapter: those of like rank are multiplied in one batched product, padded with zeros
to the largest of them.

Suffixes: A adapters, G adapters of one group, N tokens of an adapter, I inputs, O outputs, R rank.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.lora.layer import LoraLayer

STIR = 3e-3
WASTE = 4  # ranks of one group differ by no more than this factor


def add_low_rank(
    base: torch.Tensor,
    x: torch.Tensor,
    downs: Sequence[torch.Tensor],
    ups: Sequence[torch.Tensor],
    scales: Sequence[float],
) -> torch.Tensor:
    """Returns base + scale * (x A^T) B^T, each adapter on its own share of the rows, in the type and shape of `base`.

    Args:
        base: output of the frozen layer, (..., O).
        x: its input, after dropout, (..., I); the leading dimension holds the adapters' rows in equal parts.
        downs: A of each adapter, (R, I), the smaller ranks first.
        ups: B of each adapter, (O, R).
        scales: alpha / R of each adapter, or what stands for it.
    """
    x = x.to(base.dtype)
    if len(downs) == 1:
        hidden_NR = F.linear(x.flatten(0, -2), downs[0].to(base.dtype))
        out_NO = torch.addmm(base.flatten(0, -2), hidden_NR, ups[0].to(base.dtype).t(), alpha=scales[0])
        return out_NO.view(base.shape)
    x_ANI, base_ANO = (tensor.reshape(len(downs), -1, tensor.shape[-1]) for tensor in (x, base))
    made = []
    for group in grouped([len(down) for down in downs]):
        largest = len(downs[group][-1])
        down_GRI = torch.stack([_padded(down, largest, 0) for down in downs[group]]).to(base.dtype)
        scaled = [scale * up for scale, up in zip(scales[group], ups[group], strict=True)]
        up_GOR = torch.stack([_padded(up, largest, 1) for up in scaled]).to(base.dtype)
        hidden_GNR = torch.bmm(x_ANI[group], down_GRI.transpose(1, 2))
        made.append(torch.baddbmm(base_ANO[group], hidden_GNR, up_GOR.transpose(1, 2)))
    return torch.cat(made).view(base.shape)


def grouped(ranks: Sequence[int]) -> list[slice]:
    """Returns neighbours among ascending ranks that are close enough to be padded to the largest of them.

    Raises:
        ValueError: the ranks do not ascend.
    """
    if list(ranks) != sorted(ranks):
        raise ValueError(f"ranks must ascend (got {list(ranks)})")
    starts = [0]
    for i, rank in enumerate(ranks):
        if rank > WASTE * ranks[starts[-1]]:
            starts.append(i)
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(ranks)], strict=True)]


def _padded(matrix: torch.Tensor, rank: int, dimension: int) -> torch.Tensor:
    missing = rank - matrix.shape[dimension]
    return F.pad(matrix, (0, 0, 0, missing) if dimension == 0 else (0, missing)) if missing else matrix


@contextmanager
def enabled(model: torch.nn.Module, adapters: Sequence[str] | None = None) -> Iterator[bool]:
    """Lets peft's plain LoRA layers use this product while the model is in training mode, inside the block.

    Args:
        model: a PeftModel; its layers are as before afterwards.
        adapters: names of the adapters whose rows stand behind each other in the batch, the smaller ranks first; None
            is the active one alone.

    Yields:
        Whether all adapted layers can: none is DoRA, biased, merged, or of another kind than linear.
    """
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    suited = [layer for layer in layers if _is_plain(layer)]
    for layer in suited:
        layer.forward = _forward_of(layer, adapters)  # an attribute of the instance comes before the class's method
    try:
        yield len(suited) == len(layers) > 0
    finally:
        withdraw(model)


def withdraw(model: torch.nn.Module) -> None:
    """Gives all layers their own forward back."""
    for module in model.modules():
        if isinstance(module, LoraLayer):
            vars(module).pop("forward", None)


@contextmanager
def active(model: torch.nn.Module) -> Iterator[None]:
    """Inside `enabled`: lets a model in evaluation mode, without dropout, use this product as well."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        layer.training = True  # of this module alone: its dropout stays off
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False


@contextmanager
def stirred(model: torch.nn.Module) -> Iterator[None]:
    """Inside the block every B differs from what it was, and from zero, so that the products can be compared."""
    ups = [parameter for name, parameter in model.named_parameters() if "lora_B" in name]
    before = [up.detach().clone() for up in ups]
    with torch.no_grad():
        for up in ups:
            up.add_(STIR * torch.arange(up.numel(), dtype=up.dtype, device=up.device).cos().view_as(up))
    try:
        yield
    finally:
        with torch.no_grad():
            for up, own in zip(ups, before, strict=True):
                up.copy_(own)


def _is_plain(layer: LoraLayer) -> bool:
    kinds: list[type] = [LoraLinear]
    try:
        from peft.tuners.lora.bnb import Linear4bit

        kinds.append(Linear4bit)
    except ImportError:  # no bitsandbytes on this platform
        pass
    biased = any(up.bias is not None for up in layer.lora_B.values())
    return type(layer) in kinds and not (layer.lora_variant or biased or layer.merged or layer.fan_in_fan_out)


def _forward_of(layer: Any, adapters: Sequence[str] | None) -> Any:
    plain = layer.forward

    def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        names = adapters or layer.active_adapters
        if not layer.training or layer.disable_adapters or (adapters is None and len(names) != 1) or args or kwargs:
            result: torch.Tensor = plain(x, *args, **kwargs)
            return result
        return add_low_rank(
            layer.base_layer(x),
            layer.lora_dropout[names[0]](x),
            [layer.lora_A[name].weight for name in names],
            [layer.lora_B[name].weight for name in names],
            [layer.scaling[name] for name in names],
        )

    return forward
