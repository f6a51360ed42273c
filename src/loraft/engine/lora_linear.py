"""LoRA layers of a training step: a layer's output and gradient together with its adapters, one or several at once.

`low_rank` has the products, and says how they differ from peft's own. This file knows peft's layers: which weights and
scales they have, their dropout, and how their forward method is replaced.

Letters as in `low_rank`.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.lora.layer import LoraLayer

from loraft.engine.low_rank import add_low_rank, low_rank_gradients
from loraft.engine.quantized_linear import dense_weight

PERTURBATION = 3e-3  # largest change of a weight of B in `perturbed`


def lora_forward(
    layer: torch.nn.Module, x_NI: torch.Tensor, adapters: Sequence[str] | None
) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    """Returns a layer's output (N, O) with the low-rank product of its adapters, if any, and what its gradient needs.

    Args:
        layer: a linear layer, or a peft layer that `supports` accepts.
        x_NI: its input, of all adapters' rows.
        adapters: as in `enabled`.

    Returns:
        The output, and for `lora_backward` nothing where there is no adapter, else the boolean mask (N, I) of the
        inputs that LoRA dropout kept, the input after dropout (None each without dropout), and the products x A^T.
    """
    if not isinstance(layer, LoraLayer):
        return layer(x_NI), []
    names = adapters or layer.active_adapters
    dropout: Any = layer.lora_dropout[names[0]]  # adapters that train together have the same dropout
    x, kept_NI = x_NI, None
    if dropout.training and not isinstance(dropout, torch.nn.Identity):
        x, kept_NI = torch.native_dropout(x_NI, dropout.p, True)
    out_NO, hiddens = add_low_rank(layer.base_layer(x_NI), x, *_weights_of(layer, names))
    if kept_NI is None:
        return out_NO, [None, None, *hiddens]
    # Memory is short on a CPU and launches are on a GPU: here the mask alone is saved, there the products as well.
    return out_NO, [kept_NI, x, *hiddens] if x.is_cuda else [kept_NI, None]


def _weights_of(layer: Any, names: Sequence[str]) -> tuple[list[torch.Tensor], list[torch.Tensor], list[float]]:
    """Returns A, B and scale of each adapter of a peft layer, or the stacks of all of them if the layer keeps any."""
    stack = vars(layer).get("stack")
    if stack is not None and list(stack.names) == list(names):
        return [stack.down], [stack.up], [1.0]
    downs, ups = ([_trained(part[name].weight) for name in names] for part in (layer.lora_A, layer.lora_B))
    return downs, ups, [layer.scaling[name] for name in names]


def _trained(weight: torch.Tensor) -> torch.Tensor:
    """Returns the tensor that a layer computes with: a copy in the backbone's type if a step keeps one, else `weight`.

    Such a copy is a leaf of its own in the attribute `low_precision`. The step fills it, and reads its gradient.
    """
    if torch.is_inference_mode_enabled():  # scoring, between two steps: the copy is older than the weight
        return weight
    found: torch.Tensor = getattr(weight, "low_precision", weight)
    return found


def adapter_weights(layers: Iterable[torch.nn.Module], adapters: Sequence[str] | None) -> list[torch.Tensor]:
    """Returns A and B of each adapter, layer after layer, in the order of the gradients of `lora_backward`."""
    adapted: list[Any] = [layer for layer in layers if isinstance(layer, LoraLayer)]
    pairs = (zip(*_weights_of(layer, adapters or layer.active_adapters)[:2], strict=True) for layer in adapted)
    return [weight for layer_pairs in pairs for pair in layer_pairs for weight in pair]


def lora_backward(
    layer: Any,
    grad_NO: torch.Tensor,
    x_NI: torch.Tensor | None,
    saved: Sequence[torch.Tensor | None],
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
        x_NI: the input of the forward pass; not needed without an adapter.
        saved: what it returned.
        adapters: as in `enabled`.
        add_to: another gradient (N, I) of the same input, to which this one is added in place.
        input_grad: whether the input's gradient is needed; if not, `add_to` must be None.

    Returns:
        The input's gradient (N, I), or None; and [dA, dB] of each adapter in their type, empty without an adapter.
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
    assert x_NI is not None
    kept_NI, dropped_NI, *hiddens = saved
    if kept_NI is None:
        return d_x, low_rank_gradients(grad_NO, x_NI, hiddens, downs, ups, scales, d_x)
    # The mask multiplies x before the product, and the input's gradient after it. Where the input after dropout is not
    # saved, 1 / (1 - p) goes into the scale.
    keep = 1 - layer.lora_dropout[names[0]].p
    factor = 1 / keep
    if dropped_NI is None:
        kept_NI = kept_NI.to(x_NI.dtype)
        dropped_NI, scales, factor = x_NI * kept_NI, [scale / keep for scale in scales], 1.0
    d_dropped = None if d_x is None else torch.zeros_like(x_NI)
    d_weights = low_rank_gradients(grad_NO, dropped_NI, hiddens, downs, ups, scales, d_dropped)
    return (None if d_x is None or d_dropped is None else d_x.addcmul_(d_dropped, kept_NI, value=factor)), d_weights


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


def plain_weights(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Returns A and B of all adapters of the layers that `enabled` takes: what `low_precision` may stand in for."""
    layers: list[Any] = [m for m in model.modules() if isinstance(m, LoraLayer) and _is_plain(m)]
    return [part.weight for layer in layers for parts in (layer.lora_A, layer.lora_B) for part in parts.values()]


def drop_low_precision(model: torch.nn.Module) -> None:
    """Takes the low-precision copies of all weights away; products cast the weights again."""
    for weight in plain_weights(model):
        vars(weight).pop("low_precision", None)


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
        return add_low_rank(layer.base_layer(x), layer.lora_dropout[names[0]](x), *_weights_of(layer, names))[0]

    return forward
