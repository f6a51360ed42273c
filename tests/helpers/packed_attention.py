"""Attention over packed rows by one dense masked softmax: the reference for the faster implementations."""

import torch

from loraft.engine.layout import HeadCounts, Layout, PackedSuffixes, packed_layout
from loraft.engine.loss import visible

# Two packed rows of the same 9 tokens: a prefix of 3, a suffix of 4 and one of 2, padded to 5 cells.
ROWS, TOKENS, PREFIX = 2, 9, 3
SEGMENTS = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2])
INDEX_BS = torch.tensor([[3, 4, 5, 6, -1], [7, 8, -1, -1, -1]])
KEPT_BQ = torch.tensor([[1, 3], [0, -1]])  # the LM head reads tokens 4, 6 and 7
KEPT = [4, 6, 7]
HEADS = HeadCounts(kv_heads=2, groups=3)
SIZE = 4  # numbers of a head vector


def example_layout(dtype: torch.dtype = torch.float64, *, whole_row: bool = False) -> Layout:
    """The layout of the two rows, with the prefix and suffixes apart or the whole row as one suffix."""
    causal_55 = torch.ones(5, 5, dtype=torch.bool).tril()
    suffixes = PackedSuffixes(INDEX_BS, causal_55.expand(2, -1, -1), KEPT_BQ, PREFIX)
    if whole_row:
        suffixes = PackedSuffixes(torch.arange(TOKENS)[None], visible(SEGMENTS)[None], torch.tensor([KEPT]), 0)
    return packed_layout(suffixes, rows=ROWS, tokens=TOKENS, heads=HEADS, dtype=dtype)


def drawn_qkv() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random queries, keys and values of the two rows in token order, (N, F), which take gradients."""
    torch.manual_seed(0)
    heads = HEADS.kv_heads * HEADS.groups, HEADS.kv_heads, HEADS.kv_heads
    return tuple(  # type: ignore[return-value]
        torch.randn(ROWS * TOKENS, count * SIZE, dtype=torch.float64, requires_grad=True) for count in heads
    )


def dense_attention(q_NF: torch.Tensor, k_NF: torch.Tensor, v_NF: torch.Tensor, scale: float) -> torch.Tensor:
    """The output of all tokens, (N, F): softmax(scale q k^T) v over the tokens that each one sees."""
    q_ATCGD = q_NF.view(ROWS, TOKENS, *HEADS, SIZE)
    k_ATCD, v_ATCD = (t.view(ROWS, TOKENS, HEADS.kv_heads, SIZE) for t in (k_NF, v_NF))
    logits_ACGTU = scale * torch.einsum("atcgd,aucd->acgtu", q_ATCGD, k_ATCD)
    probs_ACGTU = logits_ACGTU.masked_fill(~visible(SEGMENTS), float("-inf")).softmax(-1)
    return torch.einsum("acgtu,aucd->atcgd", probs_ACGTU, v_ATCD).reshape(ROWS * TOKENS, -1)
