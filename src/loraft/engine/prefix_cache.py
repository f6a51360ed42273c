"""Logits after a cached prefix: of suffixes, and of tails that branch off behind each of them.

Layers that `fused` computes take the prefix as it is; for others it is expanded over the batch in transformers' own
cache, with a mask where there are branches.

Suffixes: B batch, T tokens, S suffix tokens with the tails, P prefix tokens, V vocabulary, C key-value heads, D head
size.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from loraft.engine import fused_layer
from loraft.engine.layout import Cache, grid, no_mask, packed_layout, prefix_layout, room

LONG = 512  # a longer suffix needs attention that keeps no logits of all pairs of tokens


def prefix_cache(model: PreTrainedModel, ids: list[int]) -> Cache:
    """Returns the keys and values of the prefix, one pair a layer, each of shape (C, P, D)."""
    ids_1P = torch.tensor([ids], device=model.device)
    if fused_layer.supports(model):
        layout = prefix_layout(len(ids), *grid(model), model.device)
        with fused_layer.enabled(model):
            model(
                input_ids=ids_1P,
                use_cache=False,
                attention_mask=no_mask(model.dtype, model.device),
                logits_to_keep=1,
                layout=layout,
            )
        assert layout.record is not None
        return layout.record
    cache = model(input_ids=ids_1P, use_cache=True, logits_to_keep=1).past_key_values
    return [(layer.keys[0], layer.values[0]) for layer in cache.layers]


def logits_after(
    model: PreTrainedModel,
    cache: Cache | None,
    prefix: int,
    suffixes: list[list[int]],
    tails: list[list[int]],
    last: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Runs suffixes and, as branches of a tree behind each of them, the tails, after the cached prefix.

    Returns:
        The logits at the `last` tokens of each suffix, (B, last, V), and at all tokens of the tails, one tail after the
        other, (B, T, V).
    """
    batch = len(suffixes)
    stems = [len(suffix) for suffix in suffixes]
    behind = sum(map(len, tails))
    total, spare = room([stem + behind for stem in stems], 0)
    longest = total - behind
    ids_BS = torch.zeros((batch, total), dtype=torch.long)
    for row, suffix in enumerate(suffixes):
        ids_BS[row, : len(suffix)] = torch.tensor(suffix)
    see_BSS, positions_BS = _tree(ids_BS, stems, tails, longest)
    kept_BQ = torch.tensor([[*range(stem - last, stem), *range(longest, ids_BS.shape[1])] for stem in stems])
    ids_BS, see_BSS, positions_BS, kept_BQ = (t.to(model.device) for t in (ids_BS, see_BSS, positions_BS, kept_BQ))
    positions_BS = positions_BS + prefix
    if fused_layer.supports(model) and total <= LONG:
        places_S = torch.arange(ids_BS.shape[1], device=model.device)
        stems_B1 = torch.tensor(stems, device=model.device)[:, None]
        real_BS = (places_S < stems_B1) | (places_S >= longest)  # packed: only attention sees padding,
        real_BS.view(-1)[(~real_BS).flatten().nonzero()[:spare]] = True  # and what fills up
        count = batch * behind + sum(stems) + spare
        tokens_BS = torch.full_like(ids_BS, -1)
        tokens_BS[real_BS] = torch.arange(count, device=model.device)
        heads, groups = grid(model)
        layout = packed_layout(
            tokens_BS, see_BSS, kept_BQ, 0, rows=1, tokens=count, heads=heads, groups=groups, dtype=model.dtype,
            cache=cache,
        )  # fmt: skip
        with fused_layer.enabled(model):
            logits_1NV = model(
                input_ids=ids_BS[real_BS][None], position_ids=positions_BS[real_BS][None], use_cache=False,
                attention_mask=no_mask(model.dtype, model.device), layout=layout,
            ).logits  # fmt: skip
        logits_BQV = logits_1NV.view(*kept_BQ.shape, -1)
    else:
        kwargs: dict[str, Any] = {"use_cache": cache is not None, "position_ids": positions_BS}
        if any(tails):
            see_BSS = torch.cat([see_BSS.new_ones(batch, see_BSS.shape[1], prefix), see_BSS], dim=2)
            mask = torch.zeros(see_BSS.shape, dtype=model.dtype, device=model.device)
            kwargs["attention_mask"] = mask.masked_fill_(~see_BSS, torch.finfo(model.dtype).min)[:, None]
        if cache is not None:
            kwargs["past_key_values"] = DynamicCache(
                [tuple(t[None].expand(batch, -1, -1, -1) for t in layer) for layer in cache]
            )
        with _head_on(model, kept_BQ):
            logits_BQV = model(input_ids=ids_BS, **kwargs).logits
    return logits_BQV[:, :last], logits_BQV[:, last:]


@contextmanager
def _head_on(model: PreTrainedModel, kept_BQ: torch.Tensor) -> Iterator[None]:
    """Lets the LM head see the given positions of each row only; upstream can drop the same positions of all rows."""
    rows_B1 = torch.arange(len(kept_BQ), device=kept_BQ.device)[:, None]
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda head, given: (given[0][rows_B1, kept_BQ],))
    try:
        yield
    finally:
        hook.remove()


def _tree(
    ids_BS: torch.Tensor, stems: list[int], tails: list[list[int]], longest: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Writes the tails into ids_BS; returns what token sees what, see_BSS, and the positions of the tree."""
    batch, total = ids_BS.shape
    see_BSS = torch.ones(total, total, dtype=torch.bool).tril().repeat(batch, 1, 1)
    positions_BS = torch.arange(total).repeat(batch, 1)
    start = longest
    for tail in tails:
        stop = start + len(tail)
        ids_BS[:, start:stop] = torch.tensor(tail)
        see_BSS[:, start:stop, longest:start] = False  # the other branches
        for row, stem in enumerate(stems):
            see_BSS[row, start:stop, stem:longest] = False  # padding
            positions_BS[row, start:stop] = torch.arange(stem, stem + len(tail))
        start = stop
    # padding has no position of its own: there may be no further ones
    return see_BSS, positions_BS.clamp_(max=max(stems) - 1 + max(map(len, tails), default=0))
