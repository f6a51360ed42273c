"""Index tables of a packed row: where each token stands, and which slot of an attention product its vectors fill.

A packed row holds the tokens that all examples of a batch begin with once, then the rest of each example:
`[prefix | suffix 1 | suffix 2 | ...]`. Below, P = 5 tokens of prefix and B = 3 suffixes of 3, 2 and 4 tokens. Two extra
tokens (+) fill the row up to T = 16 tokens, and S = 8 is the length of the longest suffix, rounded up (`padded_sizes`).

    index in the row   0  1  2  3  4 |  5  6  7  8  9 | 10 11 | 12 13 14 15
    token              p  p  p  p  p |  a  a  a  +  + |  b  b |  c  c  c  c
    position id        0  1  2  3  4 |  5  6  7  7  7 |  5  6 |  5  6  7  8
    segment            0  0  0  0  0 |  1  1  1  1  1 |  2  2 |  3  3  3  3

A token sees (attends to) the prefix and its own suffix, up to itself, and no other suffix. So attention works on a grid
(B, S) of suffixes padded to the same length. Two tables lead from the grid to the row and back:

    suffix_index (B, S): index in the row of         suffix_slot (T - P,): index in the flattened
    each cell's token, -1 for padding                grid of each suffix token of the row
         5  6  7  8  9 -1 -1 -1                           0  1  2  3  4
        10 11 -1 -1 -1 -1 -1 -1                           8  9
        12 13 14 15 -1 -1 -1 -1                          16 17 18 19

Letters: A packed rows (one for each adapter of a joint training), T tokens of one row, P prefix tokens, B suffixes,
S cells of a suffix, Q queries of a suffix, K tokens of a row that the LM head reads, N = A T tokens in all, C key-value
heads, G query heads for each of them, D head size, F features (heads times D).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

Cache = list[tuple[torch.Tensor, torch.Tensor]]  # of each layer the prefix's keys and values, (C, P, D)


def bucket_size(count: int) -> int:
    """Returns `count` rounded up to a multiple of 8; of 16 above 128, and of 32 above 256.

    On a CPU, oneDNN generates code for every new shape of a bf16 product and keeps it for the next product of that
    shape. Fewer different sizes mean less generated code.

    Source: https://oneapi-src.github.io/oneDNN/v3.0/dev_guide_primitive_cache.html
    """
    step: int = min(32, max(8, 2 ** (count.bit_length() - 4)))
    return -(-count // step) * step


def padded_sizes(lengths: Sequence[int], prefix: int) -> tuple[int, int]:
    """Returns S, the cells of a suffix, and the number of extra tokens that fill the packed row up to a bucket size.

    Extra tokens take padding cells of the grid, so there are at most as many of them as padding cells.

    Args:
        lengths: tokens of each of the B suffixes.
        prefix: tokens of the row before the suffixes.
    """
    longest, used = bucket_size(max(lengths)), sum(lengths)
    return longest, min(bucket_size(prefix + used) - prefix - used, len(lengths) * longest - used)


class HeadCounts(NamedTuple):
    """Number of key-value heads (C), and of query heads for each of them (G)."""

    kv_heads: int
    groups: int


@dataclass(frozen=True)
class HeadIndex:
    """Index tables that copy head vectors (D) from token order (N, F) into the operands of attention, and back.

    The operands lie one after the other in one list of slots, those of the prefix first:
    queries (A, C, G, P) and (A, C, B, G, Q), keys and values (A, C, P) and (A, C, B, S).

    Attributes:
        source_index: (slots,), index of the head vector copied into each slot; arbitrary for padding slots.
        target_index: (vectors,), slot of each head vector.
        prefix_slots: how many of the slots hold the prefix's vectors.
    """

    source_index: torch.Tensor
    target_index: torch.Tensor
    prefix_slots: int

    def to_slots(self, x_NF: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the vectors of the prefix and of the suffixes, (slots, D) each; padding slots hold any vector."""
        slots = x_NF.reshape(-1, size).index_select(0, self.source_index)
        return slots[: self.prefix_slots], slots[self.prefix_slots :]

    def to_zeroed_slots(self, x_NF: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """As `to_slots`, with zeros in padding slots, as gradients need them: padding must add nothing to a sum."""
        slots = x_NF.new_zeros(len(self.source_index), size).index_copy_(0, self.target_index, x_NF.reshape(-1, size))
        return slots[: self.prefix_slots], slots[self.prefix_slots :]

    def to_tokens(self, parts: Sequence[torch.Tensor], features: int) -> torch.Tensor:
        """Returns the vectors in token order, (N, features), from those of the prefix and of the suffixes."""
        size = parts[0].shape[-1]
        slots = [part.reshape(-1, size) for part in parts]
        return (torch.cat(slots) if len(slots) > 1 else slots[0]).index_select(0, self.target_index).view(-1, features)


class PackedSuffixes(NamedTuple):
    """The suffixes of a packed row, as attention treats them.

    Attributes:
        index_BS: index in the row of each cell's token, -1 for padding.
        visible_BSS: whether a token (second dimension) sees a token (third one) of the same suffix.
        kept_BQ: the cells, 0 to S - 1, whose tokens the LM head reads, ascending; -1 for padding.
        prefix: P; 0 if the prefix comes from a cache, or if the whole row is treated as one suffix.
    """

    index_BS: torch.Tensor
    visible_BSS: torch.Tensor
    kept_BQ: torch.Tensor
    prefix: int


@dataclass(frozen=True)
class Layout:
    """The index tables and masks of a packed batch, made once and passed to all layers of the model.

    Attributes:
        sizes: A, C, G and B; B is 0 for a prefix without suffixes.
        queries: slots of all tokens' queries.
        keys: slots of all tokens' keys, and of their values.
        suffix_bias: (A * C * B, G * S, S), added to the logits between tokens of a suffix: 0 or minus infinity.
        prefix_bias: (1, G * P, P), the same between tokens of the prefix.
        kept: (A * K,), the tokens that the LM head reads, as indices into the A * T tokens: answer positions of the
            suffixes, or the last token of a prefix without suffixes.
        last_queries: slots of the queries of the kept tokens, the only ones that the last layer computes.
        last_bias: (A * C * B, G * Q, S), the rows of `suffix_bias` for them.
        cache: keys and values of a prefix that went through the model before.
        record: list to which each layer appends the keys and values of a prefix without suffixes. Such a layout has no
            biases and no last queries.
    """

    sizes: tuple[int, int, int, int]
    queries: HeadIndex
    keys: HeadIndex
    suffix_bias: torch.Tensor | None
    prefix_bias: torch.Tensor | None
    kept: torch.Tensor
    last_queries: HeadIndex | None
    last_bias: torch.Tensor | None
    cache: Cache | None = None
    record: Cache | None = None


def packed_layout(
    suffixes: PackedSuffixes,
    *,
    rows: int,
    tokens: int,
    heads: HeadCounts,
    dtype: torch.dtype,
    cache: Cache | None = None,
) -> Layout:
    """Returns the layout of A packed rows that all hold the same tokens.

    Args:
        suffixes: those of one row.
        rows: A.
        tokens: T.
        heads: C and G of the model.
        dtype: of the attention logits, and so of the biases.
        cache: keys and values of a prefix that is not part of the rows.
    """
    index_BS, visible_BSS, kept_BQ, prefix = suffixes
    device = index_BS.device
    batch, longest = index_BS.shape
    prefix_P = torch.arange(prefix, device=device)

    # The kept tokens of one row: (B, Q) as indices into the row, and (K,) without padding.
    cell_BQ = kept_BQ.clamp(min=0)
    row_index_BQ = torch.where(kept_BQ < 0, -1, index_BS.gather(1, cell_BQ))
    kept_K = row_index_BQ[row_index_BQ >= 0]

    # The last layer computes queries of these K tokens alone. Its grid (B, Q) holds their numbers 0 to K - 1.
    number = torch.full((batch * row_index_BQ.shape[1],), -1, device=device)
    number[(row_index_BQ >= 0).flatten()] = torch.arange(len(kept_K), device=device)

    bias_BSS = torch.zeros(visible_BSS.shape, dtype=dtype, device=device).masked_fill_(~visible_BSS, float("-inf"))
    last_bias_BQS = bias_BSS.gather(1, cell_BQ[:, :, None].expand(-1, -1, longest))
    prefix_bias_1PP = torch.full((1, prefix, prefix), float("-inf"), dtype=dtype, device=device).triu_(1)

    def for_heads(bias: torch.Tensor) -> torch.Tensor:
        """From (B, queries, S) to (A * C * B, G * queries, S); where B is 1, heads share one copy."""
        repeated = bias.repeat(1, heads.groups, 1)
        return repeated.expand(rows * heads.kv_heads, -1, -1, -1).flatten(0, 1)

    first_token_A1 = torch.arange(rows, device=device)[:, None] * tokens
    return Layout(
        sizes=(rows, *heads, batch),
        queries=_head_index(prefix_P, index_BS, rows, tokens, heads),
        keys=_head_index(prefix_P, index_BS, rows, tokens, HeadCounts(heads.kv_heads, 1)),
        suffix_bias=for_heads(bias_BSS),
        prefix_bias=prefix_bias_1PP.repeat(1, heads.groups, 1),
        kept=(first_token_A1 + kept_K).flatten(),
        last_queries=_head_index(prefix_P[:0], number.view_as(row_index_BQ), rows, len(kept_K), heads),
        last_bias=for_heads(last_bias_BQS),
        cache=cache,
    )


def prefix_layout(prefix: int, heads: HeadCounts, device: torch.device) -> Layout:
    """Returns the layout of a prefix without suffixes, whose keys and values are recorded."""
    prefix_P = torch.arange(prefix, device=device)
    no_suffixes = torch.zeros(0, 0, dtype=torch.long, device=device)
    queries = _head_index(prefix_P, no_suffixes, 1, prefix, heads)
    keys = _head_index(prefix_P, no_suffixes, 1, prefix, HeadCounts(heads.kv_heads, 1))
    return Layout((1, *heads, 0), queries, keys, None, None, prefix_P[-1:], None, None, record=[])


def _head_index(
    prefix_P: torch.Tensor, suffix_BS: torch.Tensor, rows: int, tokens: int, heads: HeadCounts
) -> HeadIndex:
    """Returns the slots of the queries, or with G = 1 of the keys, of A rows of T tokens.

    Args:
        prefix_P: index in the row of each prefix token.
        suffix_BS: index in the row of each suffix token, -1 for padding.
        rows: A.
        tokens: T.
        heads: C and G.
    """
    device = prefix_P.device
    kv_heads, groups = heads
    # Token t of row a has C * G head vectors; that of key-value head c and group g is number ((a T + t) C + c) G + g.
    row, head, group = (torch.arange(count, device=device) for count in (rows, kv_heads, groups))
    first_vector_AC1G1 = ((row[:, None] * tokens * kv_heads + head)[:, :, None] * groups + group)[:, :, None, :, None]
    prefix_AC1GP = first_vector_AC1G1 + prefix_P * (kv_heads * groups)
    suffix_ACBGS = first_vector_AC1G1 + suffix_BS[:, None, :] * (kv_heads * groups)
    real_ACBGS = (suffix_BS >= 0)[:, None, :].expand_as(suffix_ACBGS)

    # Padding slots copy vector 0. target_index is the inverse map: the slot of each head vector.
    source_index = torch.cat([prefix_AC1GP.flatten(), torch.where(real_ACBGS, suffix_ACBGS, 0).flatten()])
    real = torch.cat([torch.ones_like(prefix_AC1GP, dtype=torch.bool).flatten(), real_ACBGS.flatten()])
    target_index = torch.zeros(rows * tokens * kv_heads * groups, dtype=torch.long, device=device)
    target_index[source_index[real]] = torch.arange(len(source_index), device=device)[real]
    return HeadIndex(source_index, target_index, prefix_AC1GP.numel())


def no_mask(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Returns a dummy attention mask that no layer reads; transformers builds no mask where it is given a 4-D one."""
    return torch.zeros(1, 1, 1, 1, dtype=dtype, device=device)


def head_counts(model: Any) -> HeadCounts:
    """Returns the numbers of heads of a model's attention."""
    config = unwrap(model).config.get_text_config()
    return HeadCounts(config.num_key_value_heads, config.num_attention_heads // config.num_key_value_heads)


def unwrap(model: Any) -> Any:
    """Returns the transformers model without the wrappers of data parallelism and peft."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def is_spread(model: Any) -> bool:
    """Says whether the layers lie on several devices, between which accelerate's hooks carry what a layer is given."""
    return len(set((getattr(unwrap(model), "hf_device_map", None) or {}).values())) > 1


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Returns how many leading token ids all rows share (0 for no rows)."""
    if not rows:
        return 0
    # In lexicographic order all rows lie between the smallest and the largest, so what these two share, all share.
    lists = [row if isinstance(row, list) else list(row) for row in rows]
    first, last = min(lists), max(lists)
    length = 0
    for a, b in zip(first, last, strict=False):
        if a != b:
            break
        length += 1
    return length
