"""Triton kernels for what a decoder layer computes element by element: norm, rotary embedding and gated activation.

Each function is one launch; `fused_operations` says what they compute, and is their reference. They read and write the
tensors' own type and compute in fp32. Block sizes follow from the sizes alone: nothing is tuned while a graph is
captured, and token counts make no new compilations.

Letters: N tokens, H hidden size, F features, D head size.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl


def rms_norm(
    x_NH: torch.Tensor, weight_H: torch.Tensor, eps: float, residual_NH: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns w * t / rms(t) for t = x + residual, t itself (x where there is no residual), and 1 / rms(t) (N,)."""
    x_NH = x_NH.contiguous()
    total_NH = x_NH if residual_NH is None else torch.empty_like(x_NH)
    residual_NH = x_NH if residual_NH is None else residual_NH.contiguous()
    normed_NH = torch.empty_like(x_NH, dtype=torch.promote_types(x_NH.dtype, weight_H.dtype))
    rstd_N = torch.empty(len(x_NH), dtype=torch.float32, device=x_NH.device)
    _rms_norm_kernel[(len(x_NH),)](
        x_NH, residual_NH, weight_H, total_NH, normed_NH, rstd_N, eps, ADDS=total_NH is not x_NH, **_row(x_NH)
    )
    return normed_NH, total_NH, rstd_N


def rms_norm_backward(
    grad_NH: torch.Tensor,
    x_NH: torch.Tensor,
    rstd_N: torch.Tensor,
    weight_H: torch.Tensor,
    residual_NH: torch.Tensor | None = None,
) -> torch.Tensor:
    """Returns the gradient of the normed tensor plus `residual_NH`, the gradient that reaches it by another way."""
    grad_NH = grad_NH.contiguous()
    d_x_NH = torch.empty_like(x_NH)
    has_residual = residual_NH is not None
    residual_NH = grad_NH if residual_NH is None else residual_NH.contiguous()
    _rms_norm_grad_kernel[(len(x_NH),)](
        grad_NH, x_NH, rstd_N, weight_H, residual_NH, d_x_NH, ADDS=has_residual, **_row(x_NH)
    )
    return d_x_NH


def rotate_(
    queries_KF: torch.Tensor,
    keys_NF: torch.Tensor,
    for_queries: Sequence[torch.Tensor],
    for_keys: Sequence[torch.Tensor],
    sign: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotates queries and keys in place, and returns them.

    Args:
        queries_KF: queries.
        keys_NF: keys.
        for_queries: cosines and sines, (K, 1, D), or (T, 1, D) if K counts tokens of several copies of a row.
        for_keys: the same for the keys.
        sign: -1 for the transposed rotation.
    """
    queries_KF, keys_NF = queries_KF.contiguous(), keys_NF.contiguous()
    half = for_keys[0].shape[-1] // 2
    query_heads, key_heads = queries_KF.shape[1] // (2 * half), keys_NF.shape[1] // (2 * half)
    tables = [table.contiguous() for table in (*for_queries, *for_keys)]
    _rotate_kernel[(len(queries_KF) + len(keys_NF),)](
        queries_KF, keys_NF, *tables, float(sign), len(queries_KF), len(for_queries[0]), len(for_keys[0]),
        QUERY_HEADS=query_heads, QUERY_BLOCK=triton.next_power_of_2(query_heads), KEY_HEADS=key_heads,
        KEY_BLOCK=triton.next_power_of_2(key_heads), HALF=half, BLOCK=triton.next_power_of_2(half), num_warps=4,
    )  # fmt: skip
    return queries_KF, keys_NF


def gated_silu(gate_NF: torch.Tensor, up_NF: torch.Tensor) -> torch.Tensor:
    """Returns silu(gate) * up."""
    gate_NF, up_NF = gate_NF.contiguous(), up_NF.contiguous()
    out_NF = torch.empty_like(gate_NF)
    _gated_silu_kernel[_elements(gate_NF)](gate_NF, up_NF, out_NF, gate_NF.numel(), BLOCK=ELEMENTS, num_warps=4)
    return out_NF


def gated_silu_backward(
    grad_NF: torch.Tensor, gate_NF: torch.Tensor, up_NF: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the gradients of gate and up."""
    grad_NF, gate_NF, up_NF = grad_NF.contiguous(), gate_NF.contiguous(), up_NF.contiguous()
    d_gate_NF, d_up_NF = torch.empty_like(gate_NF), torch.empty_like(gate_NF)
    _gated_silu_grad_kernel[_elements(gate_NF)](
        grad_NF, gate_NF, up_NF, d_gate_NF, d_up_NF, gate_NF.numel(), BLOCK=ELEMENTS, num_warps=4
    )
    return d_gate_NF, d_up_NF


ELEMENTS = 1024  # of one program: 8 a thread, 16 bytes of a 16-bit type


def _elements(tensor: torch.Tensor) -> tuple[int]:
    """Returns how many programs serve all elements of a tensor."""
    return (triton.cdiv(tensor.numel(), ELEMENTS),)


def _row(x_NH: torch.Tensor) -> dict[str, int]:
    """Returns the sizes of a kernel of which one program serves one row."""
    block = triton.next_power_of_2(x_NH.shape[1])
    return {"H": x_NH.shape[1], "BLOCK": block, "num_warps": min(16, max(1, block // 512))}


@triton.jit
def _rms_norm_kernel(
    x_ptr, residual_ptr, weight_ptr, total_ptr, normed_ptr, rstd_ptr, eps,
    ADDS: tl.constexpr, H: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: one token. Rounds where transformers' module rounds: the sum, and t / rms(t) before the weight."""
    row = tl.program_id(0)
    start = row.to(tl.int64) * H
    column = tl.arange(0, BLOCK)
    inside = column < H
    x = tl.load(x_ptr + start + column, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        residual = tl.load(residual_ptr + start + column, mask=inside, other=0.0).to(tl.float32)
        total = (x + residual).to(total_ptr.dtype.element_ty)
        tl.store(total_ptr + start + column, total, mask=inside)
        x = total.to(tl.float32)
    rstd = tl.rsqrt(tl.sum(x * x, 0) / H + eps)
    tl.store(rstd_ptr + row, rstd)
    hat = (x * rstd).to(x_ptr.dtype.element_ty).to(tl.float32)
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed_ptr + start + column, (weight * hat).to(normed_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _rms_norm_grad_kernel(
    grad_ptr, x_ptr, rstd_ptr, weight_ptr, residual_ptr, d_x_ptr,
    ADDS: tl.constexpr, H: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: one token. d_x = rstd * (w g - hat * mean(w g * hat)) with hat = x * rstd."""
    row = tl.program_id(0)
    start = row.to(tl.int64) * H
    column = tl.arange(0, BLOCK)
    inside = column < H
    rstd = tl.load(rstd_ptr + row)
    hat = tl.load(x_ptr + start + column, mask=inside, other=0.0).to(tl.float32) * rstd
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(grad_ptr + start + column, mask=inside, other=0.0).to(tl.float32) * weight
    d_x = rstd * (grad - hat * (tl.sum(grad * hat, 0) / H))
    if ADDS:
        d_x += tl.load(residual_ptr + start + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(d_x_ptr + start + column, d_x.to(d_x_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _rotate_row(
    x_ptr, cos_ptr, sin_ptr, row, table_rows, sign,
    HEADS: tl.constexpr, HEADS_BLOCK: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Rotates all heads of one token in place; tiles are (heads, half a head)."""
    head, feature = tl.arange(0, HEADS_BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    left_at = x_ptr + row.to(tl.int64) * (HEADS * 2 * HALF) + head * (2 * HALF) + feature
    inside = (head < HEADS) & (feature < HALF)
    left = tl.load(left_at, mask=inside, other=0.0).to(tl.float32)
    right = tl.load(left_at + HALF, mask=inside, other=0.0).to(tl.float32)
    table = (row % table_rows) * (2 * HALF) + feature
    valid = feature < HALF
    cos_left = tl.load(cos_ptr + table, mask=valid, other=0.0).to(tl.float32)
    cos_right = tl.load(cos_ptr + table + HALF, mask=valid, other=0.0).to(tl.float32)
    sin_left = tl.load(sin_ptr + table, mask=valid, other=0.0).to(tl.float32) * sign
    sin_right = tl.load(sin_ptr + table + HALF, mask=valid, other=0.0).to(tl.float32) * sign
    tl.store(left_at, (left * cos_left - right * sin_left).to(x_ptr.dtype.element_ty), mask=inside)
    tl.store(left_at + HALF, (right * cos_right + left * sin_right).to(x_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["query_count", "query_rows", "key_rows"])
def _rotate_kernel(
    q_ptr, k_ptr, q_cos_ptr, q_sin_ptr, k_cos_ptr, k_sin_ptr, sign, query_count, query_rows, key_rows,
    QUERY_HEADS: tl.constexpr, QUERY_BLOCK: tl.constexpr, KEY_HEADS: tl.constexpr, KEY_BLOCK: tl.constexpr,
    HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: the queries of one token, or the keys of one token."""
    row = tl.program_id(0)
    if row < query_count:
        _rotate_row(q_ptr, q_cos_ptr, q_sin_ptr, row, query_rows, sign, QUERY_HEADS, QUERY_BLOCK, HALF, BLOCK)
    else:
        _rotate_row(k_ptr, k_cos_ptr, k_sin_ptr, row - query_count, key_rows, sign, KEY_HEADS, KEY_BLOCK, HALF, BLOCK)


@triton.jit
def _gated_silu_kernel(gate_ptr, up_ptr, out_ptr, count, BLOCK: tl.constexpr):
    """One program: BLOCK elements. Rounds silu(gate) to the type, as transformers does."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    gate = tl.load(gate_ptr + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + at, mask=inside, other=0.0).to(tl.float32)
    silu = (gate * tl.sigmoid(gate)).to(out_ptr.dtype.element_ty).to(tl.float32)
    tl.store(out_ptr + at, (silu * up).to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _gated_silu_grad_kernel(grad_ptr, gate_ptr, up_ptr, d_gate_ptr, d_up_ptr, count, BLOCK: tl.constexpr):
    """One program: BLOCK elements. silu'(x) = s (1 + x (1 - s)) with s = sigmoid(x)."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    grad = tl.load(grad_ptr + at, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(gate_ptr + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + at, mask=inside, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    d_gate = grad * up * sigmoid * (1.0 + gate * (1.0 - sigmoid))
    tl.store(d_gate_ptr + at, d_gate.to(d_gate_ptr.dtype.element_ty), mask=inside)
    tl.store(d_up_ptr + at, (grad * gate * sigmoid).to(d_up_ptr.dtype.element_ty), mask=inside)
