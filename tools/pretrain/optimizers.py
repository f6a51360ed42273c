"""The optimizers of both stages: Muon for the matrices of the blocks, fused AdamW for embeddings and norms."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration; Jordan et al. 2024
MOMENTUM = 0.95


def orthogonalised(matrices: torch.Tensor) -> torch.Tensor:
    """Returns roughly U V^T of each matrix U S V^T of a batch (n, rows, columns), in bf16, by five Newton-Schulz steps.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """torch.optim.Muon with Nesterov momentum and `match_rms_adamw`, all matrices of one shape in one batch.

    torch's goes matrix by matrix: some 800 small kernels a step for the 42 matrices of the bundled shape, which a GPU
    takes longer to launch than the rest of the step takes to compute. Here they are about 100.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Updates every matrix; all of them must have a gradient."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                shapes.setdefault(parameter.shape, []).append(parameter)
            for shape, alike in shapes.items():
                gradients = torch.stack([parameter.grad for parameter in alike])
                state = self.state[alike[0]]  # one momentum for the batch, kept with its first matrix
                if not state:
                    state["momentum"] = torch.zeros_like(gradients)
                state["momentum"].lerp_(gradients, 1 - MOMENTUM)
                update = orthogonalised(gradients.lerp(state["momentum"], MOMENTUM)).to(gradients.dtype)
                torch._foreach_mul_(alike, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(alike, list(update), alpha=-0.2 * max(shape) ** 0.5 * group["lr"])


def optimizers_for(
    model: nn.Module, lr: float, embedding_lr: float, weight_decay: float
) -> tuple[torch.optim.Optimizer, ...]:
    """Returns Muon for the matrices of the blocks and AdamW, without weight decay, for everything else."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    adamw = torch.optim.AdamW(rest, lr=embedding_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    return Muon(matrices, lr, weight_decay), adamw
