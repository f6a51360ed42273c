"""Choose how the rows of a scoring call go through the model, cut them into batches, and compute a batch.

Rows go after the cached prefix that all begin with (`prefix_cache`), or whole, one for each answer, where that is not
right for the architecture (`plain_rows`).

Letters: B rows of a batch, T tokens of all branches, V vocabulary, K labels.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel

from loraft.engine import plain_rows
from loraft.engine.architecture import rope_limit
from loraft.engine.layout import Cache, bucket_size, common_prefix
from loraft.engine.prefix_cache import logits_after, prefix_cache

MIN_PREFIX = 8  # a pass for a shorter common prefix costs more than it saves
# Rows times tokens of a batch. On a CPU small batches fit the processor's cache, and their rows differ less in length.
CPU_TOKENS, TOKENS = 1536, 8192


class Route(NamedTuple):
    """How the rows of a call go through the model: plainly, or after the cached prefix that all begin with."""

    plain: bool
    cache: Cache | None = None
    prefix: int = 0


def route_of(model: PreTrainedModel, rows: list[list[int]], endings: Sequence[Sequence[int]], last: int) -> Route:
    """Returns how all rows of a call go through the model; `last` as in `_shared_prefix`."""

    def scores(few: list[list[int]], plain: bool) -> torch.Tensor:
        route = Route(True) if plain else Route(False, *_shared_prefix(model, few, last))
        return torch.from_numpy(score_batch(model, route, [row[route.prefix :] for row in few], endings))

    if plain_rows.needed(model, rows, branches_of(endings), scores):
        return Route(True)
    return Route(False, *_shared_prefix(model, rows, last))


def batches_of(
    model: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    route: Route,
    endings: Sequence[Sequence[int]],
    batch_tokens: int | None,
) -> list[list[int]]:
    """Returns the batches of all rows, by the padded length of their suffixes and branches."""
    if batch_tokens is None:
        batch_tokens = CPU_TOKENS if model.device.type == "cpu" else TOKENS
    branches = branches_of(endings)
    copies, branch_tokens = 1, sum(map(len, branches))
    if route.plain:
        copies, branch_tokens = len(plain_rows.distinct_branches(branches)), max(map(len, branches))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    tokens = [len(row) - route.prefix + branch_tokens for row in rows]
    lengths = [copies * bucket_size(count) for count in tokens]
    groups = equal_frequencies(order, tokens, rope_limit(model)) if route.plain else [order]
    return [batch for group in groups for batch in cut_batches(group, lengths, batch_tokens)]


def equal_frequencies(order: list[int], tokens: Sequence[int], limit: int) -> list[list[int]]:
    """Returns the row numbers of `order`, shorter rows first, cut into groups: rows up to the limit, then by length."""
    return [list(group) for _, group in groupby(order, key=lambda i: max(tokens[i], limit))]


def cut_batches(order: list[int], lengths: list[int], batch_tokens: int) -> list[list[int]]:
    """Returns the row numbers of `order` cut into batches; a batch holds at least one row.

    Rows times the longest row of a batch are at most `batch_tokens`. A batch of more than 8 rows, unless it is the last
    one, has a multiple of 8 rows, so that few different shapes occur (`layout.bucket_size`).

    Args:
        order: row numbers, shorter rows first.
        lengths: of each row.
        batch_tokens: the bound.
    """
    batches: list[list[int]] = []
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and lengths[order[stop]] * (stop + 1 - start) <= batch_tokens:
            stop += 1
        if stop < len(order) and stop - start > 8:
            stop -= (stop - start) % 8
        batches.append(order[start:stop])
        start = stop
    return batches


def branches_of(endings: Sequence[Sequence[int]]) -> list[list[int]]:
    """Returns the answers without their last token, which predicts nothing."""
    return [list(ending[:-1]) for ending in endings]


def _shared_prefix(model: PreTrainedModel, rows: Sequence[Sequence[int]], last: int) -> tuple[Cache | None, int]:
    """Returns the cache of the tokens that all rows begin with, and their number; None and 0 if it does not pay.

    Args:
        model: as in `score`.
        rows: token ids.
        last: tokens at the end of every row that never belong to the prefix, since their logits are needed.
    """
    prefix = min(common_prefix(rows), min(map(len, rows)) - last)
    if prefix < MIN_PREFIX or len(rows) == 1:
        return None, 0
    return prefix_cache(model, list(rows[0][:prefix])), prefix


def logits_of(
    model: PreTrainedModel, route: Route, suffixes: list[list[int]], endings: Sequence[Sequence[int]], last: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the logits at the last tokens of each suffix and at those of all branches, as in `logits_after`."""
    if route.plain:
        return plain_rows.plain_logits(model, suffixes, branches_of(endings), last)
    return logits_after(model, route.cache, route.prefix, suffixes, branches_of(endings), last)


def score_batch(
    model: PreTrainedModel, route: Route, suffixes: list[list[int]], endings: Sequence[Sequence[int]]
) -> np.ndarray:
    """Returns the log-probabilities (B, K) of the endings after each suffix, which follows the cached prefix."""
    suffix_B1V, branch_BTV = logits_of(model, route, suffixes, endings, 1)
    # The end of the suffix predicts the first token of every ending; the tokens of a branch predict the other ones.
    first_BV = suffix_B1V[:, -1].float().log_softmax(-1)
    out_BK = torch.stack([first_BV[:, ending[0]] for ending in endings], dim=1).double()
    start = 0
    for k, ending in enumerate(endings):
        for step, token in enumerate(ending[1:]):
            out_BK[:, k] += branch_BTV[:, start + step].float().log_softmax(-1)[:, token]
        start += len(ending) - 1
    return np.asarray(out_BK.cpu().numpy())
