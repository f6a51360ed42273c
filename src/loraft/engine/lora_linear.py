"""LoRA layers of a training step: y + scale * (x A^T) B^T and its gradient, for one adapter or several at once.

Two differences from peft's own layers. First, the dtype: peft casts x to fp32, the adapter's dtype. Here
the fp32 weights are cast to the backbone's dtype for the product, as autocast does, and the product is added to the
backbone's output in the same operation. With an fp32 backbone both give the same. Second, several adapters can train
in one pass over the frozen backbone. The batch then holds the rows of adapter 1, of adapter 2, and so on, and each
adapter serves its own rows. Adapters of similar rank share one batched product, padded with zeros to the largest rank.

Letters: A adapters, G adapters of one group, N tokens of one adapter (of the whole batch where there is one adapter),
I inputs, O outputs, R rank. A weight `down` is the LoRA matrix A (R, I), `up` is the LoRA matrix B (O, R).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.lora.layer import LoraLayer

from loraft.engine.quantized_linear import dense_weight

PERTURBATION = 3e-3  # largest change of a weight of B in `perturbed`
MAX_RANK_RATIO = 4  # largest rank of a group, divided by the smallest one


def add_low_rank(
    base: torch.Tensor,
    x: torch.Tensor,
    downs: Sequence[torch.Tensor],
    ups: Sequence[torch.Tensor],
    scales: Sequence[float],
) -> torch.Tensor:
    """Returns base + scale * (x A^T) B^T in the type and shape of `base`, each adapter on its own rows.

    Args:
        base: output of the frozen layer, (..., O).
        x: its input, after dropout, (..., I). The leading dimension holds the adapters' rows, equally many of each.
        downs: A of each adapter, (R, I), the smaller ranks first.
        ups: B of each adapter, (O, R).
        scales: of each adapter, alpha / R or alpha / sqrt(R).

    Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685, equation 3
    """
    x = x.to(base.dtype)
    if len(downs) == 1:
        hidden_NR = F.linear(x.flatten(0, -2), downs[0].to(base.dtype))
        out_NO = torch.addmm(base.flatten(0, -2), hidden_NR, ups[0].to(base.dtype).t(), alpha=scales[0])
        return out_NO.view(base.shape)
    x_ANI, base_ANO = (tensor.reshape(len(downs), -1, tensor.shape[-1]) for tensor in (x, base))
    outputs = []
    for group in rank_groups([len(down) for down in downs]):
        down_GRI, up_GOR = _stacked(downs[group], ups[group], scales[group], base.dtype)
        hidden_GNR = torch.bmm(x_ANI[group], down_GRI.transpose(1, 2))
        outputs.append(torch.baddbmm(base_ANO[group], hidden_GNR, up_GOR.transpose(1, 2)))
    return torch.cat(outputs).view(base.shape)


def rank_groups(ranks: Sequence[int]) -> list[slice]:
    """Returns slices of neighbouring ranks that differ by a factor of at most `MAX_RANK_RATIO`.

    Args:
        ranks: of the adapters, ascending.

    Raises:
        ValueError: the ranks do not ascend.
    """
    if list(ranks) != sorted(ranks):
        raise ValueError(f"low-rank products: the adapters' ranks do not ascend (got {list(ranks)}); sort them by rank")
    starts = [0]
    for i, rank in enumerate(ranks):
        if rank > MAX_RANK_RATIO * ranks[starts[-1]]:
            starts.append(i)
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(ranks)], strict=True)]


def _stacked(
    downs: Sequence[torch.Tensor], ups: Sequence[torch.Tensor], scales: Sequence[float], dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns A (G, R, I) and the scaled B (G, O, R) of a group, padded with zeros to its largest rank."""
    largest = len(downs[-1])
    scaled = [scale * up for scale, up in zip(scales, ups, strict=True)]
    down_GRI = torch.stack([_padded(down, largest, 0) for down in downs])
    up_GOR = torch.stack([_padded(up, largest, 1) for up in scaled])
    return down_GRI.to(dtype), up_GOR.to(dtype)


def _padded(matrix: torch.Tensor, rank: int, dimension: int) -> torch.Tensor:
    """Returns the matrix with zeros appended to dimension 0 or 1, which then counts `rank`."""
    missing = rank - matrix.shape[dimension]
    return F.pad(matrix, (0, 0, 0, missing) if dimension == 0 else (0, missing)) if missing else matrix


def lora_forward(
    layer: torch.nn.Module, x_NI: torch.Tensor, adapters: Sequence[str] | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Returns a layer's output (N, O), with the low-rank product if the layer has an adapter, and the dropout mask.

    Args:
        layer: a linear layer, or a peft layer that `supports` accepts.
        x_NI: its input, of all adapters' rows.
        adapters: as in `enabled`.

    Returns:
        The output, and the boolean mask (N, I) of the inputs that LoRA dropout kept; None without dropout.
    """
    if not isinstance(layer, LoraLayer):
        return layer(x_NI), None
    names = adapters or layer.active_adapters
    dropout: Any = layer.lora_dropout[names[0]]  # adapters that train together have the same dropout
    x, kept_NI = x_NI, None
    if dropout.training and not isinstance(dropout, torch.nn.Identity):
        x, kept_NI = torch.native_dropout(x_NI, dropout.p, True)
    return add_low_rank(layer.base_layer(x_NI), x, *_weights_of(layer, names)), kept_NI


def _weights_of(layer: Any, names: Sequence[str]) -> tuple[list[torch.Tensor], list[torch.Tensor], list[float]]:
    """Returns A, B and scale of each adapter of a peft layer."""
    downs, ups = ([part[name].weight for name in names] for part in (layer.lora_A, layer.lora_B))
    return downs, ups, [layer.scaling[name] for name in names]


def adapter_weights(layers: Iterable[torch.nn.Module], adapters: Sequence[str] | None) -> list[torch.nn.Parameter]:
    """Returns A and B of each adapter, layer after layer, in the order of the gradients of `lora_backward`."""
    adapted: list[Any] = [layer for layer in layers if isinstance(layer, LoraLayer)]
    return [
        part[name].weight
        for layer in adapted
        for name in adapters or layer.active_adapters
        for part in (layer.lora_A, layer.lora_B)
    ]


def lora_backward(
    layer: Any,
    grad_NO: torch.Tensor,
    x_NI: torch.Tensor,
    kept_NI: torch.Tensor | None,
    adapters: Sequence[str] | None,
    *,
    add_to: torch.Tensor | None = None,
    input_grad: bool = True,
) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
    """Returns the gradients of `lora_forward` with respect to the input, and to A and B of each adapter.

    With W the frozen weight, M the dropout mask divided by 1 - p, and g the gradient of the output:
    dx = g W + M * (scale g B) A, dA = (scale g B)^T (M * x), dB = scale g^T ((M * x) A^T).

    Args:
        layer: as in `lora_forward`.
        grad_NO: gradient with respect to the output.
        x_NI: the input of the forward pass.
        kept_NI: the dropout mask that it returned.
        adapters: as in `enabled`.
        add_to: another gradient (N, I) of the same input, to which this one is added in place.
        input_grad: whether the input's gradient is needed; if not, `add_to` must be None.

    Returns:
        The input's gradient (N, I), or None; and [dA, dB] of each adapter in fp32, empty without an adapter.
    """
    adapted = isinstance(layer, LoraLayer)
    d_x = add_to
    if input_grad:
        weight_OI = dense_weight(layer.base_layer if adapted else layer, grad_NO.dtype)
        d_x = torch.mm(grad_NO, weight_OI) if add_to is None else add_to.addmm_(grad_NO, weight_OI)  # g W
    if not adapted:
        return d_x, []
    names = adapters or layer.active_adapters
    downs, ups, scales = _weights_of(layer, names)
    if kept_NI is None:
        return d_x, _low_rank_gradients(grad_NO, x_NI, downs, ups, scales, d_x)
    # 1 / (1 - p) goes into the scale. The mask multiplies x before the product, and the input's gradient after it.
    kept_NI = kept_NI.to(x_NI.dtype)
    scales = [scale / (1 - layer.lora_dropout[names[0]].p) for scale in scales]
    d_dropped = None if d_x is None else torch.zeros_like(x_NI)
    d_weights = _low_rank_gradients(grad_NO, x_NI * kept_NI, downs, ups, scales, d_dropped)
    return (None if d_x is None or d_dropped is None else d_x.addcmul_(d_dropped, kept_NI)), d_weights


def _low_rank_gradients(
    grad_NO: torch.Tensor,
    x_NI: torch.Tensor,
    downs: Sequence[torch.Tensor],
    ups: Sequence[torch.Tensor],
    scales: Sequence[float],
    add_to: torch.Tensor | None,
) -> list[torch.Tensor]:
    """Returns [dA, dB] of each adapter in fp32, and adds the gradient of x to `add_to` in place."""
    dtype = grad_NO.dtype
    if len(downs) == 1:
        down_RI, up_OR = downs[0].to(dtype), ups[0].to(dtype)
        d_hidden_NR = torch.mm(grad_NO, up_OR).mul_(scales[0])  # scale g B
        if add_to is not None:
            add_to.addmm_(d_hidden_NR, down_RI)  # dx += (scale g B) A
        d_up_OR = torch.mm(grad_NO.t(), torch.mm(x_NI, down_RI.t()))  # g^T (x A^T), scaled below in fp32
        return [torch.mm(d_hidden_NR.t(), x_NI).float(), d_up_OR.float().mul_(scales[0])]
    x_ANI, grad_ANO = (tensor.reshape(len(downs), -1, tensor.shape[-1]) for tensor in (x_NI, grad_NO))
    add_to_ANI = None if add_to is None else add_to.view_as(x_ANI)
    out: list[torch.Tensor] = []
    for group in rank_groups([len(down) for down in downs]):
        down_GRI, up_GOR = _stacked(downs[group], ups[group], scales[group], dtype)  # B is scaled in here
        d_hidden_GNR = torch.bmm(grad_ANO[group], up_GOR)
        if add_to_ANI is not None:
            add_to_ANI[group].baddbmm_(d_hidden_GNR, down_GRI)
        hidden_GNR = torch.bmm(x_ANI[group], down_GRI.transpose(1, 2))
        d_down_GRI = torch.bmm(d_hidden_GNR.transpose(1, 2), x_ANI[group]).float()
        d_up_GOR = torch.bmm(grad_ANO[group].transpose(1, 2), hidden_GNR).float()
        for number, (down, scale) in enumerate(zip(downs[group], scales[group], strict=True)):
            rank = len(down)  # the rest is padding
            out += [d_down_GRI[number, :rank], d_up_GOR[number, :, :rank] * scale]
    return out


@contextmanager
def enabled(model: torch.nn.Module, adapters: Sequence[str] | None = None) -> Iterator[bool]:
    """Inside the block, peft's plain LoRA layers compute `add_low_rank` while they are in training mode.

    Args:
        model: a PeftModel; its layers are restored on exit. The block may stand inside of another one.
        adapters: names of the adapters that train together, in the order of their rows in the batch, the smaller ranks
            first; None is the active adapter alone.

    Yields:
        Whether all layers with an adapter do so. A layer does not if it has a LoRA variant such as DoRA, a bias in its
        adapter, `fan_in_fan_out`, is merged, or is of another class than peft's linear and 4-bit linear ones.
    """
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    plain_layers = [layer for layer in layers if _is_plain(layer)]
    before = [vars(layer).get("forward") for layer in plain_layers]
    for layer in plain_layers:
        layer.forward = _forward_of(layer, adapters)  # an instance attribute hides the class's method
    try:
        yield len(plain_layers) == len(layers) > 0
    finally:
        restore_forwards(model)
        for layer, forward in zip(plain_layers, before, strict=True):
            if forward is not None:
                layer.forward = forward


def restore_forwards(model: torch.nn.Module) -> None:
    """Gives all peft layers the forward method of their class again."""
    for module in model.modules():
        if isinstance(module, LoraLayer):
            vars(module).pop("forward", None)


def supports(model: Any) -> bool:
    """Says whether `lora_forward` and `lora_backward` are right for all layers of a PeftModel.

    True if `enabled` takes every layer with an adapter, and 4-bit layers have the model's dtype as compute dtype.
    """
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    compute_dtypes = {getattr(layer.get_base_layer(), "compute_dtype", None) for layer in layers}
    return all(map(_is_plain, layers)) and compute_dtypes <= {None, model.get_base_model().dtype}


@contextmanager
def active_in_evaluation(model: torch.nn.Module) -> Iterator[None]:
    """Inside the block, and inside `enabled`, a model in evaluation mode computes `add_low_rank`, without dropout."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        layer.training = True  # of this module alone: its dropout module stays in evaluation mode
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False


@contextmanager
def perturbed(model: torch.nn.Module) -> Iterator[None]:
    """Inside the block every weight of every B is changed a little, and restored to the bit afterwards.

    A fresh adapter's B is zero, which would hide a wrong product in a comparison.
    """
    ups = [parameter for name, parameter in model.named_parameters() if "lora_B" in name]
    before = [up.detach().clone() for up in ups]
    with torch.no_grad():
        for up in ups:
            up.add_(PERTURBATION * torch.arange(up.numel(), dtype=up.dtype, device=up.device).cos().view_as(up))
    try:
        yield
    finally:
        with torch.no_grad():
            for up, own in zip(ups, before, strict=True):
                up.copy_(own)


def _is_plain(layer: LoraLayer) -> bool:
    """Says whether peft's formula for the layer is that of `add_low_rank`."""
    classes: list[type] = [LoraLinear]
    try:
        from peft.tuners.lora.bnb import Linear4bit

        classes.append(Linear4bit)
    except ImportError:  # no bitsandbytes on this platform
        pass
    biased = any(up.bias is not None for up in layer.lora_B.values())
    return type(layer) in classes and not (layer.lora_variant or biased or layer.merged or layer.fan_in_fan_out)


def _forward_of(layer: Any, adapters: Sequence[str] | None) -> Any:
    """Returns a forward method for a peft layer that falls back to its own one outside of training."""
    own_forward = layer.forward

    def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        names = adapters or layer.active_adapters
        if not layer.training or layer.disable_adapters or (adapters is None and len(names) != 1) or args or kwargs:
            result: torch.Tensor = own_forward(x, *args, **kwargs)
            return result
        return add_low_rank(layer.base_layer(x), layer.lora_dropout[names[0]](x), *_weights_of(layer, names))

    return forward
