"""A and B of adapters that train together, as one padded matrix for each layer: made once a step, not in every layer.

Products of several adapters are batched products over stacks (`low_rank`). To make a stack takes a kernel for each
matrix, in every layer, forward and backward. Here all stacks of the layers of one name (all `q_proj`) are slices of one
tensor, in the backbone's dtype. The adapters' own matrices lie at equal distances in their optimizer's flat vector, so
one kernel copies those of one adapter in all layers; and one adds their gradients.

Letters as in `low_rank`, and L layers of one name.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice, pairwise
from typing import Any, NamedTuple

import torch
from peft.tuners.lora.layer import LoraLayer


class LayerStack(NamedTuple):
    """The stacks of one layer: leaves of autograd's graph, which take gradients in place of the adapters' matrices.

    Attributes:
        names: of the adapters, in their order in the stacks.
        down: (A, R, I), A of each adapter, padded with zeros.
        up: (A, O, R), B of each adapter, multiplied by its scale.
    """

    names: Sequence[str]
    down: torch.Tensor
    up: torch.Tensor


class _Matrices(NamedTuple):
    """One matrix of one adapter in all L layers.

    Attributes:
        weights: (L, ...), over the optimizer's vector of weights.
        gradients: (L, ...), over its vector of gradients.
        place: of the matrices in the stacks.
        scale: factor in the stacks.
    """

    weights: torch.Tensor
    gradients: torch.Tensor
    place: tuple[Any, ...]
    scale: float


class AdapterStack:
    """The stacks of all layers of a model, which `lora_linear` finds in the attribute `stack` of a layer.

    Args:
        model: a PeftModel; `drop_stacks` takes the stacks away.
        names: of the adapters, the smaller ranks first.
        dtype: of the stacks.
        gradients: by the id of each matrix, the fp32 tensor of its shape to which its gradient is added. It lies in a
            vector of gradients where the matrix lies in one of weights.

    Attributes:
        leaves: A and B of each layer.
    """

    def __init__(
        self, model: torch.nn.Module, names: Sequence[str], dtype: torch.dtype, gradients: Mapping[int, torch.Tensor]
    ) -> None:
        kinds: dict[str, list[Any]] = defaultdict(list)
        for name, module in model.named_modules():
            if isinstance(module, LoraLayer):
                kinds[name.rpartition(".")[2]].append(module)
        self._stacks: list[tuple[torch.Tensor, list[_Matrices]]] = []  # (L, A, R, I) or (L, A, O, R)
        self.leaves: list[torch.Tensor] = []
        for layers in (alike for kind in kinds.values() for alike in _alike(kind, names)):
            leaves = []
            for part in ("lora_A", "lora_B"):
                all_matrices = []
                for number, name in enumerate(names):
                    weights = [getattr(layer, part)[name].weight for layer in layers]
                    height, width = weights[0].shape
                    place = (slice(None), number, slice(height), slice(width))
                    scale = layers[0].scaling[name] if part == "lora_B" else 1.0
                    grads = [gradients[id(weight)] for weight in weights]
                    all_matrices.append(_Matrices(_as_one(weights), _as_one(grads), place, scale))
                largest = all_matrices[-1].weights.shape[1:]  # of the adapter of the largest rank
                stack = torch.zeros(len(layers), len(names), *largest, dtype=dtype, device=weights[0].device)
                self._stacks.append((stack, all_matrices))
                leaves.append([one.detach().requires_grad_() for one in stack])
                self.leaves += leaves[-1]
            for layer, down, up in zip(layers, *leaves, strict=True):
                layer.stack = LayerStack(names, down, up)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Copies the adapters' matrices into the stacks."""
        for stack, all_matrices in self._stacks:
            for matrices in all_matrices:
                torch.mul(matrices.weights, matrices.scale, out=stack[matrices.place])

    @torch.no_grad()
    def add_gradients(self, gradients: Sequence[torch.Tensor]) -> None:
        """Adds the gradients of `leaves` to those of the adapters' matrices."""
        rest = iter(gradients)
        for stack, all_matrices in self._stacks:
            gradient = torch.stack(list(islice(rest, len(stack))))
            for matrices in all_matrices:
                matrices.gradients.add_(gradient[matrices.place], alpha=matrices.scale)


def drop_stacks(model: torch.nn.Module) -> None:
    """Takes the stacks of all layers away; products stack the matrices again."""
    for module in model.modules():
        vars(module).pop("stack", None)


def _alike(layers: Sequence[Any], names: Sequence[str]) -> list[Sequence[Any]]:
    """Returns layers as one list if their matrices are alike and lie at equal distances, else each layer alone."""
    for part in ("lora_A", "lora_B"):
        for name in names:
            weights = [getattr(layer, part)[name].weight for layer in layers]
            kinds = {
                (weight.shape, weight.device, weight.untyped_storage().data_ptr(), layer.scaling[name])
                for weight, layer in zip(weights, layers, strict=True)
            }
            places = [weight.storage_offset() for weight in weights]
            distances = {after - before for before, after in pairwise(places)}
            if len(kinds) > 1 or len(distances) > 1 or min(distances, default=0) < 0:
                return [[layer] for layer in layers]
    return [layers]


def _as_one(matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns matrices at equal distances in a vector as one tensor (L, ...) over the same memory."""
    first = matrices[0].detach()
    distance = matrices[1].storage_offset() - first.storage_offset() if len(matrices) > 1 else 0
    return first.as_strided((len(matrices), *first.shape), (distance, *first.stride()), first.storage_offset())
