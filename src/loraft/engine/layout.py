"""What stands where in packed rows `[prefix | suffix 1 | suffix 2 | ...]`, worked out once for all layers of a model.

Suffixes: A packed rows, T tokens of one, P prefix tokens, B suffixes, S tokens of the longest suffix, Q queries of a
suffix, K tokens that the head looks at, N tokens in all, C key-value heads, G query heads for each of them, D head
size, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

Cache = list[tuple[torch.Tensor, torch.Tensor]]


def rounded(count: int) -> int:
    """Returns the next size up of the few that batches are given: multiples of 8, above 128 of 16, above 256 of 32.

    On a CPU every new shape of a bf16 product costs the generation of its code, which is kept for shapes that come
    back (https://oneapi-src.github.io/oneDNN/v3.0/dev_guide_primitive_cache.html).
    """
    step = min(32, max(8, 2 ** (count.bit_length() - 4)))
    return -(-count // step) * step


def room(lengths: Sequence[int], ahead: int) -> tuple[int, int]:
    """Returns how much room a batch is given: S, and the number of tokens beyond its own that round its N.

    Those stand behind suffixes that are shorter than S, and are fewer where there is no more room.

    Args:
        lengths: of the B suffixes.
        ahead: tokens of N that stand before them.
    """
    longest, used = rounded(max(lengths)), sum(lengths)
    return longest, min(rounded(ahead + used) - ahead - used, len(lengths) * longest - used)


@dataclass(frozen=True)
class Heads:
    """Where the heads' vectors of D numbers go, from token after token to what attention multiplies.

    There the prefix comes first, then the padded suffixes: (A, C, G, P) and (A, C, B, G, Q) for queries, (A, C, P) and
    (A, C, B, S) for keys and values.

    Attributes:
        there: the vector that comes to each place, any one for padding.
        back: the place of each vector.
        prefix: how many of the places are the prefix's.
    """

    there: torch.Tensor
    back: torch.Tensor
    prefix: int

    def spread(self, x_NF: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the vectors of prefix and suffixes; what stands at padding means nothing."""
        rows = x_NF.reshape(-1, size).index_select(0, self.there)
        return rows[: self.prefix], rows[self.prefix :]

    def scatter(self, x_NF: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """As `spread`, with zeros at padding: gradients must not come from there."""
        rows = x_NF.new_zeros(len(self.there), size).index_copy_(0, self.back, x_NF.reshape(-1, size))
        return rows[: self.prefix], rows[self.prefix :]

    def gather(self, parts: Sequence[torch.Tensor], features: int) -> torch.Tensor:
        """Returns the vectors token after token again, (N, features)."""
        size = parts[0].shape[-1]
        rows = [part.reshape(-1, size) for part in parts]
        return (torch.cat(rows) if len(rows) > 1 else rows[0]).index_select(0, self.back).view(-1, features)


@dataclass(frozen=True)
class Layout:
    """What stands where in packed rows `[prefix | suffix 1 | suffix 2 | ...]`, which a model passes to its layers.

    Attributes:
        sizes: A, C, G, and B, which is 0 for a prefix alone.
        queries, keys: of all tokens.
        bias: (A * C * B, G * S, S), what is added to logits between suffix tokens: 0 or minus infinity.
        causal: (1, G * P, P), the same of the prefix.
        kept: the tokens (A * K,) among (A * T,) that the head looks at: of suffixes, or the last one of a prefix alone.
        last_queries, last_bias: of these, for the last layer.
        cache: of each layer the prefix's keys and values, (C, P, D), where it went through the model before.
        record: takes these, of a prefix alone, which has no biases and no last queries.
    """

    sizes: tuple[int, int, int, int]
    queries: Heads
    keys: Heads
    bias: torch.Tensor | None
    causal: torch.Tensor | None
    kept: torch.Tensor
    last_queries: Heads | None
    last_bias: torch.Tensor | None
    cache: Cache | None = None
    record: Cache | None = None


def packed_layout(
    suffix_BS: torch.Tensor,
    see_BSS: torch.Tensor,
    kept_BQ: torch.Tensor,
    prefix: int,
    *,
    rows: int,
    tokens: int,
    heads: int,
    groups: int,
    dtype: torch.dtype,
    cache: Cache | None = None,
) -> Layout:
    """Returns the layout of equal packed rows.

    Args:
        suffix_BS: the place of each suffix token in the packed row, -1 for padding.
        see_BSS: whether a suffix's token sees another one of it.
        kept_BQ: those among its S tokens that the head looks at, ascending, -1 for padding.
        prefix: P, which is 0 if the prefix is in the cache or goes with the suffixes.
        rows, tokens, heads, groups: A, T, C and G.
        dtype: of the logits.
    """
    device = suffix_BS.device
    batch, longest = suffix_BS.shape
    ahead = torch.arange(prefix, device=device)
    there = kept_BQ.clamp(min=0)
    kept = torch.where(kept_BQ < 0, -1, suffix_BS.gather(1, there))  # (B, Q), in the packed row
    real = kept[kept >= 0]
    number = torch.full((batch * kept.shape[1],), -1, device=device)
    number[(kept >= 0).flatten()] = torch.arange(len(real), device=device)
    bias_BSS = torch.zeros(see_BSS.shape, dtype=dtype, device=device).masked_fill_(~see_BSS, float("-inf"))
    last_BQS = bias_BSS.gather(1, there[:, :, None].expand(-1, -1, longest))

    def for_heads(bias: torch.Tensor) -> torch.Tensor:
        return bias.repeat(1, groups, 1).expand(rows * heads, -1, -1, -1).flatten(0, 1)  # no copy where B is 1

    causal_1PP = torch.full((1, prefix, prefix), float("-inf"), dtype=dtype, device=device).triu_(1)
    offsets = torch.arange(rows, device=device)[:, None]
    return Layout(
        sizes=(rows, heads, groups, batch),
        queries=_heads(ahead, suffix_BS, rows, tokens, heads, groups),
        keys=_heads(ahead, suffix_BS, rows, tokens, heads, 1),
        bias=for_heads(bias_BSS),
        causal=causal_1PP.repeat(1, groups, 1),
        kept=(offsets * tokens + real).flatten(),
        last_queries=_heads(ahead[:0], number.view_as(kept), rows, len(real), heads, groups),
        last_bias=for_heads(last_BQS),
        cache=cache,
    )


def prefix_layout(prefix: int, heads: int, groups: int, device: torch.device) -> Layout:
    """Returns the layout of a prefix alone, whose keys and values are to be recorded; the head looks at its end."""
    ahead = torch.arange(prefix, device=device)
    none = torch.zeros(0, 0, dtype=torch.long, device=device)
    queries, keys = (_heads(ahead, none, 1, prefix, heads, each) for each in (groups, 1))
    return Layout((1, heads, groups, 0), queries, keys, None, None, ahead[-1:], None, None, record=[])


def _heads(ahead_P: torch.Tensor, suffix_BS: torch.Tensor, rows: int, tokens: int, heads: int, groups: int) -> Heads:
    device = ahead_P.device
    row, head, group = (torch.arange(count, device=device) for count in (rows, heads, groups))
    first_AC1G1 = ((row[:, None] * tokens * heads + head)[:, :, None] * groups + group)[:, :, None, :, None]
    there_P = first_AC1G1 + ahead_P * (heads * groups)
    there_S = first_AC1G1 + suffix_BS[:, None, :] * (heads * groups)
    real_S = (suffix_BS >= 0)[:, None, :].expand_as(there_S)
    there = torch.cat([there_P.flatten(), torch.where(real_S, there_S, 0).flatten()])
    real = torch.cat([torch.ones_like(there_P, dtype=torch.bool).flatten(), real_S.flatten()])
    back = torch.zeros(rows * tokens * heads * groups, dtype=torch.long, device=device)
    places = torch.arange(len(there), device=device)[real]
    back[there[real]] = places
    return Heads(there, back, there_P.numel())


def no_mask(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Returns a mask that is not read: its four dimensions tell transformers not to build one of its own."""
    return torch.zeros(1, 1, 1, 1, dtype=dtype, device=device)


def grid(model: Any) -> tuple[int, int]:
    """Returns the number of key-value heads, and of query heads for each of them."""
    config = bare(model).config.get_text_config()
    return config.num_key_value_heads, config.num_attention_heads // config.num_key_value_heads


def bare(model: Any) -> Any:
    """Returns the backbone's own class under whatever is wrapped around it: peft, or data parallelism."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Returns how many leading token ids all rows share (0 for no rows)."""
    if not rows:
        return 0
    # All rows lie between these two, so their prefix is everyone's.
    first, last = min(map(list, rows)), max(map(list, rows))
    length = 0
    for a, b in zip(first, last, strict=False):
        if a != b:
            break
        length += 1
    return length
