"""Stacks of adapters that train together give the losses and gradients of the adapters' own matrices."""

from typing import Any

import pytest
import torch
from helpers.tiny import awaken, backbone
from helpers.training import SECTIONS, rows

from loraft.engine import fused_layer, lora_linear
from loraft.engine.adapter_stack import AdapterStack, drop_stacks
from loraft.engine.collator import pack
from loraft.engine.loss import BatchMethod, answer_loss_sums
from loraft.models.adapter import add_adapters


def flattened(weights: list[torch.nn.Parameter]) -> dict[int, torch.Tensor]:
    """Moves the weights into one vector, as the flat optimizer does; returns a vector of zeros in the same parts."""
    vector = torch.cat([weight.detach().flatten() for weight in weights])
    sizes = [weight.numel() for weight in weights]
    grads = torch.zeros_like(vector).split(sizes)
    for weight, part in zip(weights, vector.split(sizes), strict=True):
        weight.data = part.view(weight.shape)
    return {id(weight): grad.view(weight.shape) for weight, grad in zip(weights, grads, strict=True)}


def losses(model: Any, names: list[str], method: BatchMethod) -> torch.Tensor:
    torch.manual_seed(2)
    return answer_loss_sums(model, pack(rows()), torch.float32, len(names), method=method)


@pytest.mark.parametrize("method", [BatchMethod.FUSED, BatchMethod.MASK])
@pytest.mark.parametrize("even", [True, False])
def test_losses_and_gradients_are_those_of_the_matrices(method: BatchMethod, even: bool) -> None:
    model, names = add_adapters(backbone(), SECTIONS, seed=1)
    awaken(model)
    model.train()
    of_adapter = [[p for n, p in model.named_parameters() if f".{name}." in n] for name in names]
    if not even:  # one matrix lies elsewhere, so no layers share a stack
        of_adapter = [[*weights[1:], weights[0]] for weights in of_adapter]
    gradients: dict[int, torch.Tensor] = {}
    for weights in of_adapter:
        gradients |= flattened(weights)
    with lora_linear.enabled(model, names), fused_layer.enabled(model, names):
        plain_A = losses(model, names, method)
        plain_A.sum().backward()
        stack = AdapterStack(model, names, torch.float32, gradients)
        for weights in of_adapter:
            for weight in weights:
                weight.detach().mul_(2)
        stack.refresh()  # reads what the weights are now
        assert not torch.allclose(losses(model, names, method), plain_A)
        for weights in of_adapter:
            for weight in weights:
                weight.detach().mul_(0.5)
        stack.refresh()
        losses_A = losses(model, names, method)
        found = torch.autograd.grad(losses_A.sum(), stack.leaves)
        stack.add_gradients(found)
        stack.add_gradients(found)  # they add up
    assert len(stack.leaves) == 2 * 14
    torch.testing.assert_close(losses_A, plain_A)
    for weight in (weight for weights in of_adapter for weight in weights):
        assert weight.grad is not None
        torch.testing.assert_close(gradients[id(weight)], 2 * weight.grad, rtol=1e-4, atol=1e-5)
    drop_stacks(model)
    assert not any(hasattr(module, "stack") for module in model.modules())
