"""Attention over packed rows by ranges of keys that a query sees, without index tables: the form for GPUs.

A packed row is `[prefix | stretch 1 | stretch 2 | ...]`, as in `layout`. In training a stretch is one example. In
scoring it is a suffix with its branches, of which a branch sees the suffix but no other branch. Query m stands at place
`own` among the keys and sees key k if k is not behind it, and

    k < P                    the prefix, or
    begin <= k               its own stretch, or its own branch, or
    first <= k < stop        the suffix that its branch belongs to; empty for other queries

Below, a prefix of 3 tokens (p), a suffix of 2 (s), and its branches of 2 tokens (x y) and of 1 (z):

    key       0  1  2 |  3  4 |  5  6 |  7
    token     p  p  p |  s  s |  x  y |  z
    begin     0  0  0 |  3  3 |  5  5 |  7
    first     0  0  0 |  0  0 |  3  3 |  3
    stop      0  0  0 |  0  0 |  5  5 |  5

All ranges are numbers in small tensors, so a CUDA graph of one size serves every batch of that size. On a CUDA device
the functions below run as kernels (`triton_attention`), which skip blocks of keys that no query of a block sees.
Elsewhere they hold a dense mask and are the reference for the kernels.

Letters: A copies of the row (one for each adapter of a joint training), M queries of a copy, L keys of a copy,
C key-value heads, G query heads for each of them, D head size, F features (heads times D), P prefix tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from loraft.engine.fused_operations import has_kernels
from loraft.engine.layout import HeadCounts

# Of each layer the prefix's keys and values in token order, (P, C * D).
FlatCache = list[tuple[torch.Tensor, torch.Tensor]]


class KeyRanges(NamedTuple):
    """Which keys each query of a row sees, and between which queries those that see a key lie; the same for all copies.

    Attributes:
        queries_4M: int32: `own`, `begin`, `first` and `stop` of each query, see the picture above. `own` ascends.
        keys_2L: int32: the first query that may see each key, and the one behind the last.
        prefix_1: int32: P.
    """

    queries_4M: torch.Tensor
    keys_2L: torch.Tensor
    prefix_1: torch.Tensor


@dataclass(frozen=True)
class RangedLayout:
    """Packed rows as fused layers take them on a GPU; for `layout.Layout` elsewhere.

    Attributes:
        heads: C and G.
        copies: A.
        ranges: of the queries of all tokens.
        kept: (A * K,), the tokens that the LM head reads, as indices into all tokens of all copies.
        last_ranges: of the queries of the kept tokens, the only ones that the last layer computes.
        cache: keys and values of a prefix that went through the model before; they stand before the row's own keys.
        record: list to which each layer appends the keys and values of all tokens.
    """

    heads: HeadCounts
    copies: int
    ranges: KeyRanges
    kept: torch.Tensor
    last_ranges: KeyRanges
    cache: FlatCache | None = None
    record: FlatCache | None = None


def visible(ranges: KeyRanges) -> torch.Tensor:
    """Returns a boolean (M, L): whether a query sees a key."""
    own_M1, begin_M1, first_M1, stop_M1 = ranges.queries_4M[:, :, None]
    key_L = torch.arange(ranges.keys_2L.shape[1], device=own_M1.device)
    in_suffix_ML = (first_M1 <= key_L) & (key_L < stop_M1)
    return (key_L <= own_M1) & ((key_L < ranges.prefix_1) | (begin_M1 <= key_L) | in_suffix_ML)


def query_bounds(queries_4M: torch.Tensor, keys: int, prefix: int) -> torch.Tensor:
    """Returns `KeyRanges.keys_2L`, on the CPU.

    Args:
        queries_4M: of the row, on the CPU.
        keys: L.
        prefix: P.
    """
    own_M, begin_M, first_M, stop_M = queries_4M.long()
    # A query of a branch sees its suffix from `first` on, another one its stretch from `begin` on.
    start_M = torch.where(stop_M > first_M, first_M, begin_M)
    key_L = torch.arange(keys)
    low_L = torch.searchsorted(own_M, key_L)
    # Starts ascend as queries do, so those that see key k end before the first one whose stretch begins behind k.
    high_L = torch.searchsorted(start_M, key_L, right=True)
    high_L[:prefix] = len(own_M)
    return torch.stack([low_L, torch.maximum(low_L, high_L)]).int()


def attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, layout: RangedLayout, *, scale: float, last: bool
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Returns softmax(scale q k^T) v over the visible keys, (A * M, C * G * D), and what `attention_backward` needs.

    Args:
        queries: (A * M, C * G * D).
        keys: (A * L, C * D), those of a cached prefix first.
        values: as the keys.
        layout: of the rows.
        scale: factor of the logits.
        last: the queries are those of the kept tokens.
    """
    ranges = layout.last_ranges if last else layout.ranges
    if has_kernels(queries.device):
        from loraft.engine import triton_attention

        out, log_sums = triton_attention.attention(queries, keys, values, ranges, layout.copies, layout.heads, scale)
        return out, [queries, keys, values, out, log_sums]
    q_ACGMD, k_AC1LD, v_AC1LD = _by_head(queries, keys, values, layout)
    logits_ACGML = scale * (q_ACGMD @ k_AC1LD.transpose(-1, -2)).float()
    probs_ACGML = logits_ACGML.masked_fill(~visible(ranges), float("-inf")).softmax(-1).to(queries.dtype)
    return _by_token(probs_ACGML @ v_AC1LD), [queries, keys, values, probs_ACGML]


def attention_backward(
    grad: torch.Tensor, layout: RangedLayout, saved: Sequence[torch.Tensor], *, scale: float, last: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the gradients of queries, keys and values; formulas as in `fused_operations.attention_backward`."""
    queries, keys, values = saved[:3]
    if has_kernels(grad.device):
        from loraft.engine import triton_attention

        ranges = layout.last_ranges if last else layout.ranges
        return triton_attention.attention_backward(grad, saved, ranges, layout.copies, layout.heads, scale)
    q_ACGMD, k_AC1LD, v_AC1LD = _by_head(queries, keys, values, layout)
    probs_ACGML = saved[3]
    grad_ACGMD = _by_head(grad, keys, values, layout)[0]
    d_probs_ACGML = grad_ACGMD @ v_AC1LD.transpose(-1, -2)
    d_logits_ACGML = torch._softmax_backward_data(d_probs_ACGML, probs_ACGML, -1, probs_ACGML.dtype) * scale
    d_queries = _by_token(d_logits_ACGML @ k_AC1LD)
    # Query heads that share a key-value head add up.
    d_keys = _by_token((d_logits_ACGML.transpose(-1, -2) @ q_ACGMD).sum(2, keepdim=True))
    d_values = _by_token((probs_ACGML.transpose(-1, -2) @ grad_ACGMD).sum(2, keepdim=True))
    return d_queries, d_keys, d_values


def _by_head(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, layout: RangedLayout
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns queries (A, C, G, M, D), keys and values (A, C, 1, L, D)."""
    kv_heads, groups = layout.heads

    def split(tensor: torch.Tensor, groups: int) -> torch.Tensor:
        return tensor.view(layout.copies, -1, kv_heads, groups, tensor.shape[1] // (kv_heads * groups)).permute(
            0, 2, 3, 1, 4
        )

    return split(queries, groups), split(keys, 1), split(values, 1)


def _by_token(by_head: torch.Tensor) -> torch.Tensor:
    """Returns (A, C, G, M, D) as (A * M, C * G * D)."""
    copies, kv_heads, groups, count, size = by_head.shape
    return by_head.permute(0, 3, 1, 2, 4).reshape(copies * count, kv_heads * groups * size)
