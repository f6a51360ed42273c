"""What a fused decoder layer computes between its linear layers, with gradients.

On a CUDA device norm, rotary embedding and activation run as one kernel each (`triton_kernels`).

Inputs and outputs are in token order, (N, F). Attention copies them into the slots that a `Layout` describes. `d_x` is
the gradient of the loss with respect to x; its formula stands on the line that computes it.

Letters: N tokens of all packed rows, H hidden size, F features (heads times D), h heads, D head size.
Operands of attention, with A, C, G, P, B, S and Q of `layout`:
    X = A C: key-value heads of all rows, each with a prefix of its own
    Y = A C B: the same for each suffix
    M = G P: queries of the prefix for one key-value head
    R = G S: queries of one suffix for one key-value head; G Q in the last layer
    U = B R: queries of all suffixes for one key-value head
"""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F

from loraft.engine.layout import Layout


def has_kernels(device: torch.device) -> bool:
    """Says whether Triton's kernels compute on this device: a CUDA device, where torch comes with Triton."""
    return device.type == "cuda" and _triton_is_there()


@cache
def _triton_is_there() -> bool:
    """Says whether Triton can be imported; torch for Windows comes without it."""
    return find_spec("triton") is not None


def rms_norm(
    x_NH: torch.Tensor, norm: Any, residual_NH: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Returns w * t / rms(t) for t = x + residual, t itself, and what the gradient needs; x may be overwritten.

    Args:
        x_NH: input.
        norm: the module, with weight w.
        residual_NH: added to x first, if given.

    Source: Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467, equation 4
    """
    if has_kernels(x_NH.device):
        from loraft.engine import triton_kernels

        normed_NH, total_NH, rstd_N = triton_kernels.rms_norm(x_NH, norm.weight, norm.variance_epsilon, residual_NH)
        return normed_NH, total_NH, (total_NH, rstd_N)
    total_NH = x_NH if residual_NH is None else x_NH.add_(residual_NH)
    wide_NH = total_NH.float()
    rstd_N1 = torch.rsqrt(wide_NH.square().mean(-1, keepdim=True) + norm.variance_epsilon)
    hat_NH = (wide_NH * rstd_N1).to(x_NH.dtype)
    return norm.weight * hat_NH, total_NH, (hat_NH, rstd_N1)


def rms_norm_backward(
    grad_NH: torch.Tensor, saved: Sequence[torch.Tensor], norm: Any, residual_NH: torch.Tensor | None = None
) -> torch.Tensor:
    """Returns d_t = rstd * (w g - hat * mean(w g * hat)) + `residual_NH` for the gradient g of the output, in fp32.

    Args:
        grad_NH: g.
        saved: what `rms_norm` returned.
        norm: the module.
        residual_NH: gradient that reaches t by another way, if given.
    """
    if has_kernels(grad_NH.device):
        from loraft.engine import triton_kernels

        return triton_kernels.rms_norm_backward(grad_NH, saved[0], saved[1], norm.weight, residual_NH)
    hat_NH, rstd_N1 = saved
    wide_NH, wide_hat_NH = (grad_NH * norm.weight).float(), hat_NH.float()
    mean_N1 = (wide_NH * wide_hat_NH).mean(-1, keepdim=True)
    d_total_NH = torch.addcmul(wide_NH, wide_hat_NH, mean_N1, value=-1).mul_(rstd_N1).to(grad_NH.dtype)
    return d_total_NH if residual_NH is None else d_total_NH.add_(residual_NH)


def rotate(
    queries_KF: torch.Tensor,
    keys_NF: torch.Tensor,
    for_queries: Sequence[torch.Tensor],
    for_keys: Sequence[torch.Tensor],
    sign: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the rotary embedding of queries and keys, x cos + rotate_half(x) sin in each head; may overwrite them.

    Args:
        queries_KF: queries.
        keys_NF: keys.
        for_queries: cosines and sines of the tokens' angles, the same for all heads, (K, 1, D) each. For several
            copies of a row those of one copy are enough.
        for_keys: the same for the keys.
        sign: -1 multiplies by the transposed matrix, which turns the output's gradient into the input's.

    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864, in the form of transformers' `apply_rotary_pos_emb`
    """
    if has_kernels(keys_NF.device):
        from loraft.engine import triton_kernels

        return triton_kernels.rotate_(queries_KF, keys_NF, for_queries, for_keys, sign)
    return _rotated(queries_KF, for_queries, sign), _rotated(keys_NF, for_keys, sign)


def _rotated(x_NF: torch.Tensor, tables: Sequence[torch.Tensor], sign: int) -> torch.Tensor:
    """Returns the rotary embedding of A copies of T tokens."""
    cos_T1D, sin_T1D = tables
    x_AThD = x_NF.view(-1, len(cos_T1D), x_NF.shape[1] // cos_T1D.shape[-1], cos_T1D.shape[-1])
    left, right = x_AThD.chunk(2, -1)
    return torch.addcmul(x_AThD * cos_T1D, torch.cat([-right, left], -1), sin_T1D, value=sign).view_as(x_NF)


def gated_silu(gate_NF: torch.Tensor, up_NF: torch.Tensor) -> torch.Tensor:
    """Returns silu(gate) * up."""
    if has_kernels(gate_NF.device):
        from loraft.engine import triton_kernels

        return triton_kernels.gated_silu(gate_NF, up_NF)
    return F.silu(gate_NF).mul_(up_NF)


def gated_silu_backward(
    grad_NF: torch.Tensor, gate_NF: torch.Tensor, up_NF: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns d_gate = g * up * silu'(gate) and d_up = g * silu(gate) for the gradient g, which may be overwritten."""
    if has_kernels(grad_NF.device):
        from loraft.engine import triton_kernels

        return triton_kernels.gated_silu_backward(grad_NF, gate_NF, up_NF)
    d_up_NF = F.silu(gate_NF).mul_(grad_NF)
    return torch.ops.aten.silu_backward(grad_NF.mul_(up_NF), gate_NF), d_up_NF


def attention(
    queries_NF: torch.Tensor,
    keys_NF: torch.Tensor,
    values_NF: torch.Tensor,
    layout: Layout,
    *,
    layer_index: int,
    scale: float,
    last: bool,
) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    """Returns softmax(scale q k^T + bias) v of each head, (N, F), and what `attention_backward` needs.

    Args:
        queries_NF: of all tokens, in the last layer of `layout.kept` alone.
        keys_NF: of all tokens.
        values_NF: of all tokens.
        layout: where the tokens stand, and which see which.
        layer_index: number of the layer, from 0.
        scale: factor of the logits.
        last: the layer is the last one.
    """
    rows, heads, groups, batch = layout.sizes
    size = keys_NF.shape[1] // heads
    all_heads = rows * heads
    query_index, suffix_bias = (layout.last_queries, layout.last_bias) if last else (layout.queries, layout.suffix_bias)

    # 1. Token order to slots: the prefix's keys and values (X, P, D), and those of the suffixes. With a cached
    #    prefix the layout has no prefix slots: its keys and values come from the cache.
    prefix_k, suffix_k = layout.keys.to_slots(keys_NF, size)
    prefix_v, suffix_v = layout.keys.to_slots(values_NF, size)
    if layout.cache is not None:
        prefix_k_XPD, prefix_v_XPD = layout.cache[layer_index]
    else:
        prefix_k_XPD, prefix_v_XPD = prefix_k.view(all_heads, -1, size), prefix_v.view(all_heads, -1, size)
    prefix_length = prefix_k_XPD.shape[1]

    # A prefix alone is run only to store its keys and values. It may be long, so SDPA is used, which does not hold all
    # attention logits. The last layer's attention output is not used, so the queries are returned in its place.
    if layout.record is not None:
        layout.record.append((prefix_k_XPD, prefix_v_XPD))
        if query_index is None:
            return queries_NF, []
        queries = query_index.to_slots(queries_NF, size)[0].view(1, all_heads * groups, -1, size)
        keys, values = (t[None].repeat_interleave(groups, 1) for t in (prefix_k_XPD, prefix_v_XPD))
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=scale)
        return query_index.to_tokens([mixed], heads * groups * size), []
    assert query_index is not None

    prefix_q, suffix_q = query_index.to_slots(queries_NF, size)
    outputs: list[torch.Tensor] = []
    prefix_q_XMD = prefix_probs_XMP = None
    suffix_q_YRD = suffix_k_YSD = suffix_v_YSD = suffix_probs = None

    # 2. The prefix attends to itself. The last layer has no such queries.
    if len(prefix_q):
        prefix_q_XMD = prefix_q.view(all_heads, -1, size)
        logits_XMP = torch.baddbmm(layout.prefix_bias, prefix_q_XMD, prefix_k_XPD.transpose(1, 2), alpha=scale)
        prefix_probs_XMP = logits_XMP.softmax(-1)
        outputs.append(torch.bmm(prefix_probs_XMP, prefix_v_XPD))

    # 3. Each suffix attends to itself (Y, R, S), and all of them to the one prefix in one product a head (X, U, P).
    #    One softmax runs over both, (Y, R, P + S).
    if batch:
        suffix_q_YRD, suffix_k_YSD, suffix_v_YSD = (
            t.view(all_heads * batch, -1, size) for t in (suffix_q, suffix_k, suffix_v)
        )
        logits_YRS = torch.baddbmm(suffix_bias, suffix_q_YRD, suffix_k_YSD.transpose(1, 2), alpha=scale)
        if prefix_length:
            suffix_q_XUD = suffix_q_YRD.view(all_heads, -1, size)
            to_prefix_XUP = _scaled_bmm(suffix_q_XUD, prefix_k_XPD.transpose(1, 2), scale)
            to_prefix_YRP = to_prefix_XUP.view(*logits_YRS.shape[:2], prefix_length)
            suffix_probs = torch.cat([to_prefix_YRP, logits_YRS], -1).softmax(-1)
            probs_XUP = suffix_probs[..., :prefix_length].view(all_heads, -1, prefix_length)
            mixed_YRD = torch.bmm(probs_XUP, prefix_v_XPD).view_as(suffix_q_YRD)
            outputs.append(mixed_YRD.baddbmm_(suffix_probs[..., prefix_length:], suffix_v_YSD))
        else:
            suffix_probs = logits_YRS.softmax(-1)
            outputs.append(torch.bmm(suffix_probs, suffix_v_YSD))

    mixed_NF = query_index.to_tokens(outputs, heads * groups * size)
    return mixed_NF, [
        prefix_q_XMD, prefix_k_XPD, prefix_v_XPD, prefix_probs_XMP,
        suffix_q_YRD, suffix_k_YSD, suffix_v_YSD, suffix_probs,
    ]  # fmt: skip


def attention_backward(
    grad_NF: torch.Tensor, layout: Layout, saved: Sequence[Any], *, scale: float, last: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the gradients of queries, keys and values in token order.

    For O = probs V and probs = softmax(L) with L = scale Q K^T + bias, and g the gradient of O:
    d_V = probs^T g, d_probs = g V^T, d_L = probs * (d_probs - sum(d_probs * probs)), d_Q = scale d_L K and
    d_K = scale d_L^T Q. The keys and values of the prefix collect gradients from its own queries and all suffixes.

    Args:
        grad_NF: gradient of the output of `attention`.
        layout: as in the forward pass.
        saved: what `attention` returned.
        scale: as in the forward pass.
        last: as in the forward pass.
    """
    prefix_q_XMD, prefix_k_XPD, prefix_v_XPD, prefix_probs_XMP = saved[:4]
    suffix_q_YRD, suffix_k_YSD, suffix_v_YSD, suffix_probs = saved[4:]
    rows, heads, groups, batch = layout.sizes
    size, prefix_length, all_heads = prefix_k_XPD.shape[2], prefix_k_XPD.shape[1], rows * heads
    query_index = layout.last_queries if last else layout.queries
    assert query_index is not None
    grad_prefix, grad_suffix = query_index.to_zeroed_slots(grad_NF, size)
    d_queries, d_keys, d_values = [], [], []
    d_prefix_k = d_prefix_v = None

    if prefix_probs_XMP is not None:
        grad_XMD = grad_prefix.view(all_heads, -1, size)
        d_prefix_v = torch.bmm(prefix_probs_XMP.transpose(1, 2), grad_XMD)  # probs^T g
        d_logits_XMP = _softmax_backward(torch.bmm(grad_XMD, prefix_v_XPD.transpose(1, 2)), prefix_probs_XMP)
        d_queries.append(_scaled_bmm(d_logits_XMP, prefix_k_XPD, scale))  # scale d_L K
        d_prefix_k = _scaled_bmm(d_logits_XMP.transpose(1, 2), prefix_q_XMD, scale)  # scale d_L^T Q

    if batch:
        grad_YRD = grad_suffix.view_as(suffix_q_YRD)
        d_probs = torch.bmm(grad_YRD, suffix_v_YSD.transpose(1, 2))  # g V^T, (Y, R, S)
        d_values.append(torch.bmm(suffix_probs[..., prefix_length:].transpose(1, 2), grad_YRD))  # probs^T g
        if prefix_length:
            # The same for the columns of the prefix, where all suffixes of a head are one matrix (X, U, ...).
            grad_XUD, suffix_q_XUD = (t.view(all_heads, -1, size) for t in (grad_YRD, suffix_q_YRD))
            d_probs_XUP = torch.bmm(grad_XUD, prefix_v_XPD.transpose(1, 2))
            d_probs = torch.cat([d_probs_XUP.view(*d_probs.shape[:2], prefix_length), d_probs], -1)
            probs_XUP = suffix_probs[..., :prefix_length].view(all_heads, -1, prefix_length)
            d_prefix_v = _add_bmm(d_prefix_v, probs_XUP.transpose(1, 2), grad_XUD, 1.0)  # += probs^T g
        d_logits = _softmax_backward(d_probs, suffix_probs)
        d_logits_YRS = d_logits[..., prefix_length:]
        d_suffix_q = _scaled_bmm(d_logits_YRS, suffix_k_YSD, scale)  # scale d_L K over the suffix's columns
        if prefix_length:
            d_logits_XUP = d_logits[..., :prefix_length].view(all_heads, -1, prefix_length)
            d_suffix_q = d_suffix_q.view(all_heads, -1, size).baddbmm_(d_logits_XUP, prefix_k_XPD, alpha=scale)
            d_prefix_k = _add_bmm(d_prefix_k, d_logits_XUP.transpose(1, 2), suffix_q_XUD, scale)  # += scale d_L^T Q
        d_queries.append(d_suffix_q)
        d_keys.append(_scaled_bmm(d_logits_YRS.transpose(1, 2), suffix_q_YRD, scale))

    if prefix_length:
        d_keys.insert(0, d_prefix_k)
        d_values.insert(0, d_prefix_v)
    features = heads * size
    return (
        query_index.to_tokens(d_queries, features * groups),
        layout.keys.to_tokens(d_keys, features),
        layout.keys.to_tokens(d_values, features),
    )


def _scaled_bmm(left: torch.Tensor, right: torch.Tensor, scale: float) -> torch.Tensor:
    """Returns scale * left @ right, scaled inside the product."""
    return torch.baddbmm(left.new_zeros(1, 1, 1), left, right, beta=0, alpha=scale)


def _add_bmm(total: torch.Tensor | None, left: torch.Tensor, right: torch.Tensor, scale: float) -> torch.Tensor:
    """Returns total + scale * left @ right, in place where there is a total."""
    return _scaled_bmm(left, right, scale) if total is None else total.baddbmm_(left, right, alpha=scale)


def _softmax_backward(d_probs: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
    """Returns d_L = probs * (d_probs - sum(d_probs * probs)) over the last dimension."""
    return torch._softmax_backward_data(d_probs, probs, -1, probs.dtype)
