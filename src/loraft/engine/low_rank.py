"""Low-rank products of a training step: y + scale * (x A^T) B^T and its gradient, for one adapter or several at once.

Two differences from peft's own layers. First, the dtype: peft casts x to fp32, the adapter's dtype. Here
the fp32 weights are cast to the backbone's dtype for the product, as autocast does, and the product is added to the
backbone's output in the same operation. With an fp32 backbone both give the same. Second, several adapters can train
in one pass over the frozen backbone. The batch then holds the rows of adapter 1, of adapter 2, and so on, and each
adapter serves its own rows. Adapters of similar rank share one batched product, padded with zeros to the largest rank.

Letters: A adapters, G adapters of one group, N tokens of one adapter (of the whole batch where there is one adapter),
I inputs, O outputs, R rank. A weight `down` is the LoRA matrix A (R, I), `up` is the LoRA matrix B (O, R).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F

MAX_RANK_RATIO = 4  # largest rank of a group, divided by the smallest one


def add_low_rank(
    base: torch.Tensor,
    x: torch.Tensor,
    downs: Sequence[torch.Tensor],
    ups: Sequence[torch.Tensor],
    scales: Sequence[float],
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Returns base + scale * (x A^T) B^T in the type and shape of `base`, each adapter on its own rows, and x A^T.

    Where no gradient is recorded, `base` is overwritten.

    Args:
        base: output of the frozen layer, (..., O).
        x: its input, after dropout, (..., I). The leading dimension holds the adapters' rows, equally many of each.
        downs: A of each adapter, (R, I), the smaller ranks first; or one stack for all, (A, R, I), see `AdapterStack`.
        ups: B of each adapter, (O, R); or the one stack of scaled ones, (A, O, R).
        scales: of each adapter, alpha / R or alpha / sqrt(R); not read with stacks.

    Returns:
        The sum, and x A^T of each of the `rank_groups`: (N, R) of one adapter, (G, N, R) of several.

    Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685, equation 3
    """
    x = x.to(base.dtype)
    if len(downs) == 1 and downs[0].dim() == 2:
        hidden_NR = F.linear(x.flatten(0, -2), downs[0].to(base.dtype))
        base_NO = base.flatten(0, -2)
        add = base_NO.addmm if torch.is_grad_enabled() else base_NO.addmm_
        return add(hidden_NR, ups[0].to(base.dtype).t(), alpha=scales[0]).view(base.shape), [hidden_NR]
    x_ANI, base_ANO = _by_adapter(x, downs), _by_adapter(base, downs)
    outputs, hiddens = [], []
    for group, down_GRI, up_GOR in _groups(downs, ups, scales, base.dtype):
        hiddens.append(torch.bmm(x_ANI[group], down_GRI.transpose(1, 2)))
        add = base_ANO[group].baddbmm if torch.is_grad_enabled() else base_ANO[group].baddbmm_
        outputs.append(add(hiddens[-1], up_GOR.transpose(1, 2)))
    return (torch.cat(outputs) if torch.is_grad_enabled() else base_ANO).view(base.shape), hiddens


def _by_adapter(tensor: torch.Tensor, downs: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns (A, N, F) of (..., F), for the adapters that `downs` belong to."""
    return tensor.reshape(len(downs[0]) if downs[0].dim() == 3 else len(downs), -1, tensor.shape[-1])


def _groups(
    downs: Sequence[torch.Tensor], ups: Sequence[torch.Tensor], scales: Sequence[float], dtype: torch.dtype
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Yields which adapters make a group, A (G, R, I) and the scaled B (G, O, R) of each group."""
    if downs[0].dim() == 3:
        yield slice(None), downs[0].to(dtype), ups[0].to(dtype)
        return
    for group in rank_groups([len(down) for down in downs]):
        yield group, *_stacked(downs[group], ups[group], scales[group], dtype)


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


def low_rank_gradients(
    grad_NO: torch.Tensor,
    x_NI: torch.Tensor,
    hiddens: Sequence[Any],
    downs: Sequence[torch.Tensor],
    ups: Sequence[torch.Tensor],
    scales: Sequence[float],
    add_to: torch.Tensor | None,
) -> list[torch.Tensor]:
    """Returns [dA, dB] of each adapter in its type, or of the stacks; adds the gradient of x to `add_to` in place.

    Where `hiddens` is empty, x A^T is computed again.
    """
    dtype, wide = grad_NO.dtype, downs[0].dtype
    if len(downs) == 1 and downs[0].dim() == 2:
        down_RI, up_OR = downs[0].to(dtype), ups[0].to(dtype)
        d_hidden_NR = _scaled_mm(grad_NO, up_OR, scales[0], dtype)  # scale g B
        if add_to is not None:
            add_to.addmm_(d_hidden_NR, down_RI)  # dx += (scale g B) A
        hidden_NR = hiddens[0] if hiddens else torch.mm(x_NI, down_RI.t())
        d_up_OR = _scaled_mm(grad_NO.t(), hidden_NR, scales[0], wide)  # scale g^T (x A^T)
        return [torch.mm(d_hidden_NR.t(), x_NI).to(wide), d_up_OR]
    x_ANI, grad_ANO = _by_adapter(x_NI, downs), _by_adapter(grad_NO, downs)
    add_to_ANI = None if add_to is None else add_to.view_as(x_ANI)
    out: list[torch.Tensor] = []
    for i, (group, down_GRI, up_GOR) in enumerate(_groups(downs, ups, scales, dtype)):  # B is scaled in here
        d_hidden_GNR = torch.bmm(grad_ANO[group], up_GOR)
        if add_to_ANI is not None:
            add_to_ANI[group].baddbmm_(d_hidden_GNR, down_GRI)
        hidden_GNR = hiddens[i] if hiddens else torch.bmm(x_ANI[group], down_GRI.transpose(1, 2))
        d_down_GRI = torch.bmm(d_hidden_GNR.transpose(1, 2), x_ANI[group]).to(wide)
        d_up_GOR = torch.bmm(grad_ANO[group].transpose(1, 2), hidden_GNR).to(wide)
        if downs[0].dim() == 3:
            return [d_down_GRI, d_up_GOR]
        for number, (down, scale) in enumerate(zip(downs[group], scales[group], strict=True)):
            rank = len(down)  # the rest is padding
            out += [d_down_GRI[number, :rank], d_up_GOR[number, :, :rank] * scale]
    return out


def _scaled_mm(left: torch.Tensor, right: torch.Tensor, scale: float, dtype: torch.dtype) -> torch.Tensor:
    """Returns scale * left @ right in a type; on a GPU scaled inside the product where that is its own type."""
    if left.is_cuda and dtype == left.dtype:
        return torch.addmm(left.new_empty(1, 1), left, right, beta=0, alpha=scale)
    return torch.mm(left, right).to(dtype).mul_(scale)
