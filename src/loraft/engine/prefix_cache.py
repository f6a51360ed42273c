"""Runs a common prefix through a model once, and then many suffixes after it, each followed by branches.

A branch is one label's answer after the tokens that all answers share, without its last token, which predicts nothing.
It sees the suffix but no other branch, so one forward pass gives the logits of all answers. Below, the cells of one
row: a suffix of 3 tokens (s) in 5 cells, then a branch of 2 tokens (x y) and one of 1 token (z). Position ids count
from the end of the prefix.

    cell       0  1  2  3  4 | 5  6 | 7          sees   s s s . . x y z
    token      s  s  s  .  . | x  y | z             s   1
    position   0  1  2  3  4 | 3  4 | 3             s   1 1
                                                    s   1 1 1
    Padding (.) sees what is before it, and         .   1 1 1 1
    nothing else sees padding. All tokens see       .   1 1 1 1 1
    the prefix.                                     x   1 1 1 0 0 1
                                                    y   1 1 1 0 0 1 1
                                                    z   1 1 1 0 0 0 0 1

Branches that begin alike share the cells of that beginning: they are a tree, of which a token sees its ancestors.

Models that `fused_layer` supports use one copy of the cached prefix for all rows, and skip padding (but for a few cells
that round the number of tokens). For other models the prefix is expanded over the rows in transformers' own cache, and
there is a mask where there are branches: one of global attention, so `plain_rows` says where it is right.

On a GPU `ranged_rows` does the same for models that `fused_layer` supports.

Letters: B rows (suffixes), S cells of a row, Q cells of a row whose logits are returned, P prefix tokens, V vocabulary,
C key-value heads, D head size.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from loraft.engine import fused_layer
from loraft.engine.answers import tree_of
from loraft.engine.layout import (
    Cache,
    PackedSuffixes,
    head_counts,
    no_mask,
    packed_layout,
    padded_sizes,
    prefix_layout,
)
from loraft.engine.lm_head import exact_logits

# Fused layers keep the attention logits of all pairs of a row's cells. Longer rows run in transformers' own attention.
MAX_FUSED_CELLS = 512


def prefix_cache(model: PreTrainedModel, ids: list[int]) -> Cache:
    """Returns the keys and values of the prefix, one pair for each layer, (C, P, D) each."""
    ids_1P = torch.tensor([ids], device=model.device)
    if fused_layer.supports(model):
        layout = prefix_layout(len(ids), head_counts(model), model.device)
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
    branches: list[list[int]],
    last: int,
) -> torch.Tensor:
    """Returns logits of suffixes, and of branches behind each of them, after a cached prefix.

    Args:
        model: in evaluation mode.
        cache: keys and values of the prefix, None without one.
        prefix: P, the length of the prefix.
        suffixes: token ids of each row after the prefix.
        branches: token ids of each branch; the same for all rows, and possibly empty.
        last: number of tokens at the end of each suffix whose logits are returned; no suffix is shorter.

    Returns:
        (B, Q, V): the logits at the last tokens of each suffix, then at the nodes of `answers.tree_of(branches)`.
    """
    tree = _tree(suffixes, branches, last)
    if fused_layer.supports(model) and tree.ids_BS.shape[1] <= MAX_FUSED_CELLS:
        return _fused_logits(model, tree, cache, prefix)
    return _masked_logits(model, tree, cache, prefix, masked=any(branches))


@dataclass(frozen=True)
class _Tree:
    """Rows of a suffix and its branches, as in the picture above.

    Attributes:
        ids_BS: token ids, 0 for padding.
        positions_BS: position ids, counted from the end of the prefix.
        visible_BSS: whether a token (second dimension) sees a token (third one) of its row.
        kept_BQ: the cells whose logits are returned.
        computed_BS: the cells that fused layers compute: all tokens, and as many padding cells as make their number
            a bucket size (`padded_sizes`).
    """

    ids_BS: torch.Tensor
    positions_BS: torch.Tensor
    visible_BSS: torch.Tensor
    kept_BQ: torch.Tensor
    computed_BS: torch.Tensor


def _tree(suffixes: list[list[int]], branches: list[list[int]], last: int) -> _Tree:
    """Returns the cells of all rows; arguments as in `logits_after`."""
    batch, lengths = len(suffixes), [len(suffix) for suffix in suffixes]
    nodes = tree_of(branches)
    branch_tokens = len(nodes)
    total, extra = padded_sizes([length + branch_tokens for length in lengths], 0)
    branch_start = total - branch_tokens  # in all rows, after the longest suffix

    ids_BS = torch.zeros((batch, total), dtype=torch.long)
    visible_BSS = torch.ones(total, total, dtype=torch.bool).tril().repeat(batch, 1, 1)
    positions_BS = torch.arange(total).repeat(batch, 1)
    for row, suffix in enumerate(suffixes):
        ids_BS[row, : len(suffix)] = torch.tensor(suffix)
    if nodes:
        ids_BS[:, branch_start:] = torch.tensor([node[-1] for node in nodes])
        depth_W = torch.tensor([len(node) - 1 for node in nodes])
        visible_BSS[:, branch_start:, branch_start:] = torch.tensor(
            [[node[: len(other)] == other for other in nodes] for node in nodes]
        )
        for row, length in enumerate(lengths):
            visible_BSS[row, branch_start:, length:branch_start] = False  # padding
            positions_BS[row, branch_start:] = length + depth_W
    # Clamp padding to the largest position of a token, so that learned position embeddings suffice.
    positions_BS.clamp_(max=max(lengths) - 1 + max(map(len, branches), default=0))

    kept_BQ = torch.tensor([[*range(length - last, length), *range(branch_start, total)] for length in lengths])
    cell_S, lengths_B1 = torch.arange(total), torch.tensor(lengths)[:, None]
    computed_BS = (cell_S < lengths_B1) | (cell_S >= branch_start)
    computed_BS.view(-1)[(~computed_BS).flatten().nonzero()[:extra]] = True
    return _Tree(ids_BS, positions_BS, visible_BSS, kept_BQ, computed_BS)


def _fused_logits(model: PreTrainedModel, tree: _Tree, cache: Cache | None, prefix: int) -> torch.Tensor:
    """Returns the logits of the kept cells, (B, Q, V), by fused layers.

    The computed cells of all rows are packed into one row of the model. Only attention works on the padded grid (B, S).
    """
    computed_BS, device = tree.computed_BS, model.device
    count = int(computed_BS.sum())
    index_BS = torch.full_like(tree.ids_BS, -1)
    index_BS[computed_BS] = torch.arange(count)
    suffixes = PackedSuffixes(index_BS.to(device), tree.visible_BSS.to(device), tree.kept_BQ.to(device), prefix=0)
    layout = packed_layout(
        suffixes,
        rows=1,
        tokens=count,
        heads=head_counts(model),
        dtype=model.dtype,
        cache=cache,
    )
    with fused_layer.enabled(model), exact_logits(model):
        logits_1NV = model(
            input_ids=tree.ids_BS[computed_BS][None].to(device),
            position_ids=(tree.positions_BS[computed_BS][None] + prefix).to(device),
            use_cache=False,
            attention_mask=no_mask(model.dtype, device),
            layout=layout,
        ).logits
    return logits_1NV.view(*tree.kept_BQ.shape, -1)  # the last layer returns the kept cells alone, row by row


def _masked_logits(
    model: PreTrainedModel, tree: _Tree, cache: Cache | None, prefix: int, *, masked: bool
) -> torch.Tensor:
    """Returns the logits of the kept cells, (B, Q, V), by the model's own layers on padded rows.

    Args:
        model: of any architecture.
        tree: the rows.
        cache: keys and values of the prefix, None without one.
        prefix: P.
        masked: there are branches; without them the model's own causal mask is right.
    """
    device = model.device
    batch = len(tree.ids_BS)
    kwargs: dict[str, Any] = {"use_cache": cache is not None, "position_ids": (tree.positions_BS + prefix).to(device)}
    if masked:
        visible_BSS = tree.visible_BSS.to(device)
        visible_BSK = torch.cat([visible_BSS.new_ones(*visible_BSS.shape[:2], prefix), visible_BSS], dim=2)  # K = P + S
        mask_BSK = torch.zeros(visible_BSK.shape, dtype=model.dtype, device=device)
        kwargs["attention_mask"] = mask_BSK.masked_fill_(~visible_BSK, torch.finfo(model.dtype).min)[:, None]
    if cache is not None:
        kwargs["past_key_values"] = DynamicCache(
            [tuple(t[None].expand(batch, -1, -1, -1) for t in layer) for layer in cache]
        )
    with exact_logits(model, tree.kept_BQ.to(device)):
        logits_BQV: torch.Tensor = model(input_ids=tree.ids_BS.to(device), **kwargs).logits
    return logits_BQV
