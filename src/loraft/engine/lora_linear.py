"""The low-rank products of a training step, for one adapter or for several at once over one frozen backbone.

peft multiplies in the adapter's fp32, on a copy of the layer's input. Here the weights stay in fp32 and are multiplied
in the backbone's own type, as under autocast, and the product is added to the backbone's output in the same call; with
an fp32 backbone nothing is rounded otherwise than in peft. Several adapters train at once when their rows stand behind
each other in the batch, adapter by adapter: those of like rank are multiplied in one batched product, padded with zeros
to the largest of them.

Suffixes: A adapters, G adapters of one group, N tokens of an adapter, I inputs, O outputs, R rank.
"""

from collections.abc import Iterable, Iterator, Sequence
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
        down_GRI, up_GOR = _stacked(downs[group], ups[group], scales[group], base.dtype)
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


def _stacked(
    downs: Sequence[torch.Tensor], ups: Sequence[torch.Tensor], scales: Sequence[float], dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns A (G, R, I) and the scaled B (G, O, R) of a group, padded to its largest rank."""
    largest = len(downs[-1])
    scaled = [scale * up for scale, up in zip(scales, ups, strict=True)]
    down_GRI = torch.stack([_padded(down, largest, 0) for down in downs])
    up_GOR = torch.stack([_padded(up, largest, 1) for up in scaled])
    return down_GRI.to(dtype), up_GOR.to(dtype)


def _padded(matrix: torch.Tensor, rank: int, dimension: int) -> torch.Tensor:
    missing = rank - matrix.shape[dimension]
    return F.pad(matrix, (0, 0, 0, missing) if dimension == 0 else (0, missing)) if missing else matrix


def project(
    layer: torch.nn.Module, x_NI: torch.Tensor, adapters: Sequence[str] | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Returns a layer's output, with the low-rank products if it is adapted, and what LoRA dropout kept of its input.

    Args:
        layer: any; an adapted one is of a kind that `enabled` takes.
        adapters: as in `enabled`.
    """
    if not isinstance(layer, LoraLayer):
        return layer(x_NI), None
    names = adapters or layer.active_adapters
    dropout: Any = layer.lora_dropout[names[0]]
    x, kept_NI = x_NI, None
    if dropout.training and not isinstance(dropout, torch.nn.Identity):
        x, kept_NI = torch.native_dropout(x_NI, dropout.p, True)
    return add_low_rank(layer.base_layer(x_NI), x, *_of(layer, names)), kept_NI


def _of(layer: Any, names: Sequence[str]) -> tuple[list[torch.Tensor], list[torch.Tensor], list[float]]:
    """Returns A, B and scale of each adapter of a layer."""
    downs, ups = ([part[name].weight for name in names] for part in (layer.lora_A, layer.lora_B))
    return downs, ups, [layer.scaling[name] for name in names]


def weights(layers: Iterable[torch.nn.Module], adapters: Sequence[str] | None) -> list[torch.nn.Parameter]:
    """Returns A and B of each adapter, layer after layer: what `pull` returns the gradients of."""
    adapted: list[Any] = [layer for layer in layers if isinstance(layer, LoraLayer)]
    return [
        part[name].weight
        for layer in adapted
        for name in adapters or layer.active_adapters
        for part in (layer.lora_A, layer.lora_B)
    ]


def pull(
    layer: Any,
    grad_NO: torch.Tensor,
    x_NI: torch.Tensor,
    kept_NI: torch.Tensor | None,
    adapters: Sequence[str] | None,
    *,
    onto: torch.Tensor | None = None,
    below: bool = True,
) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
    """Returns the gradients of `project` with respect to its input, None if not `below`, and to the adapters' weights.

    Args:
        grad_NO: with respect to its output.
        x_NI, kept_NI: the input that it had, and what dropout kept of it.
        onto: what the input's gradient is added to, in place.
    """
    adapted = isinstance(layer, LoraLayer)
    d_x = onto
    if below:
        weight_OI = _dense(layer.base_layer if adapted else layer, grad_NO.dtype)
        d_x = torch.mm(grad_NO, weight_OI) if onto is None else onto.addmm_(grad_NO, weight_OI)
    if not adapted:
        return d_x, []
    names = adapters or layer.active_adapters
    downs, ups, scales = _of(layer, names)
    if kept_NI is None:
        return d_x, _low_rank_gradients(grad_NO, x_NI, downs, ups, scales, d_x)
    kept_NI = kept_NI.to(x_NI.dtype)
    scales = [scale / (1 - layer.lora_dropout[names[0]].p) for scale in scales]
    share = None if d_x is None else torch.zeros_like(x_NI)
    out = _low_rank_gradients(grad_NO, x_NI * kept_NI, downs, ups, scales, share)
    return (None if d_x is None or share is None else d_x.addcmul_(share, kept_NI)), out


def _low_rank_gradients(
    grad_NO: torch.Tensor,
    x_NI: torch.Tensor,
    downs: Sequence[torch.Tensor],
    ups: Sequence[torch.Tensor],
    scales: Sequence[float],
    onto: torch.Tensor | None,
) -> list[torch.Tensor]:
    """Returns the gradients of A and B of each adapter, in fp32, and adds that of the input to `onto`."""
    dtype, out = grad_NO.dtype, []
    if len(downs) == 1:
        down_RI, up_OR = downs[0].to(dtype), ups[0].to(dtype)
        d_hidden = torch.mm(grad_NO, up_OR).mul_(scales[0])
        if onto is not None:
            onto.addmm_(d_hidden, down_RI)
        d_up = torch.mm(grad_NO.t(), torch.mm(x_NI, down_RI.t()))
        return [torch.mm(d_hidden.t(), x_NI).float(), d_up.float().mul_(scales[0])]
    x_ANI, grad_ANO = (tensor.reshape(len(downs), -1, tensor.shape[-1]) for tensor in (x_NI, grad_NO))
    onto_ANI = None if onto is None else onto.view_as(x_ANI)
    for group in grouped([len(down) for down in downs]):
        down_GRI, up_GOR = _stacked(downs[group], ups[group], scales[group], dtype)
        d_hidden = torch.bmm(grad_ANO[group], up_GOR)
        if onto_ANI is not None:
            onto_ANI[group].baddbmm_(d_hidden, down_GRI)
        hidden = torch.bmm(x_ANI[group], down_GRI.transpose(1, 2))
        d_down_GRI = torch.bmm(d_hidden.transpose(1, 2), x_ANI[group]).float()
        d_up_GOR = torch.bmm(grad_ANO[group].transpose(1, 2), hidden).float()
        for number, (down, scale) in enumerate(zip(downs[group], scales[group], strict=True)):
            out += [d_down_GRI[number, : len(down)], d_up_GOR[number, :, : len(down)] * scale]
    return out


def _dense(layer: Any, dtype: torch.dtype) -> torch.Tensor:
    """The weight (O, I) of a linear layer, dequantised if it is NF4."""
    state = getattr(layer.weight, "quant_state", None)
    if state is None:
        weight: torch.Tensor = layer.weight
        return weight
    from bitsandbytes.functional import dequantize_4bit

    dense: torch.Tensor = dequantize_4bit(layer.weight, state).to(dtype)
    return dense


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


def suits(model: Any) -> bool:
    """Says whether `project` and `pull` are right for a PeftModel: plain layers that multiply in the model's type."""
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    dtypes = {getattr(layer.get_base_layer(), "compute_dtype", None) for layer in layers}  # of 4-bit layers
    return all(map(_is_plain, layers)) and dtypes <= {None, model.get_base_model().dtype}


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
        return add_low_rank(layer.base_layer(x), layer.lora_dropout[names[0]](x), *_of(layer, names))

    return forward
