"""What a fused decoder layer computes between its linear layers: norm, rotary embedding and attention, with gradients.

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
from typing import Any

import torch
import torch.nn.functional as F

from loraft.engine.layout import Layout


def rms_norm(x_NH: torch.Tensor, norm: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns w * x / rms(x), and for the gradient x / rms(x) in the type of x and 1 / rms(x) (N, 1) in fp32.

    Source: Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467, equation 4
    """
    wide_NH = x_NH.float()
    rstd_N1 = torch.rsqrt(wide_NH.square().mean(-1, keepdim=True) + norm.variance_epsilon)
    hat_NH = (wide_NH * rstd_N1).to(x_NH.dtype)
    return norm.weight * hat_NH, hat_NH, rstd_N1


def rms_norm_backward(grad_NH: torch.Tensor, hat_NH: torch.Tensor, rstd_N1: torch.Tensor, norm: Any) -> torch.Tensor:
    """Returns d_x = rstd * (w g - hat * mean(w g * hat)) for the gradient g of the output; computed in fp32."""
    wide_NH, wide_hat_NH = (grad_NH * norm.weight).float(), hat_NH.float()
    mean_N1 = (wide_NH * wide_hat_NH).mean(-1, keepdim=True)
    return torch.addcmul(wide_NH, wide_hat_NH, mean_N1, value=-1).mul_(rstd_N1).to(grad_NH.dtype)


def rotate(x_NF: torch.Tensor, cos_N1D: torch.Tensor, sin_N1D: torch.Tensor, sign: int = 1) -> torch.Tensor:
    """Returns the rotary embedding of queries or keys, x cos + rotate_half(x) sin in each head.

    Args:
        x_NF: queries or keys.
        cos_N1D: cosines of the tokens' angles, the same for all heads.
        sin_N1D: sines.
        sign: -1 multiplies by the transposed matrix, which turns the output's gradient into the input's.

    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864, in the form of transformers' `apply_rotary_pos_emb`
    """
    x_NhD = x_NF.view(len(x_NF), -1, cos_N1D.shape[-1])
    left, right = x_NhD.chunk(2, -1)
    return torch.addcmul(x_NhD * cos_N1D, torch.cat([-right, left], -1), sin_N1D, value=sign).view_as(x_NF)


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
