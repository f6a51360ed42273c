"""Choose how the rows of a scoring call go through the model, cut them into batches, and read off what is needed.

Rows go after the cached prefix that all begin with (`prefix_cache`; on a GPU `ranged_rows`), or whole, one for each
answer, where that is not right for the architecture (`plain_rows`).

Letters: N rows, B rows of a batch, Q logits of a row, V vocabulary, K labels, A adapters, R numbers read for each row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel

from loraft.engine import plain_rows, ranged_rows
from loraft.engine.answers import Answers, score_reader, tree_of
from loraft.engine.architecture import rope_limit
from loraft.engine.key_ranges import FlatCache
from loraft.engine.layout import Cache, bucket_size, common_prefix
from loraft.engine.lm_head import Read
from loraft.engine.prefix_cache import logits_after, prefix_cache
from loraft.progress import rows_scored

MIN_PREFIX = 8  # a pass for a shorter common prefix costs more than it saves
# Rows times tokens of a batch. On a CPU small batches fit the processor's cache, and their rows differ less in length.
# TOKENS is for other devices where `ranged_rows` does not suit the model.
CPU_TOKENS, TOKENS = 1536, 8192


@dataclass
class KeptPrefix:
    """The cached prefix of one call, for later calls with the same model and weights whose rows begin with it, too.

    With `ids` only, as another process has left them, the cache is made when it is needed.
    """

    ids: list[int] = field(default_factory=list)
    cache: Cache | FlatCache | None = None


class Route(NamedTuple):
    """How the rows of a call go through the model.

    Attributes:
        plain: one by one, by `plain_rows`.
        ranged: by `ranged_rows`.
        cache: of the prefix that all rows begin with; None without one, and for plain rows.
        prefix: its length.
        copies: how many adapters compute each row; 1 unless `ranged`.
    """

    plain: bool = False
    ranged: bool = False
    cache: Cache | FlatCache | None = None
    prefix: int = 0
    copies: int = 1


def read_rows(
    model: PreTrainedModel,
    rows: list[list[int]],
    answers: Answers,
    read: Read,
    *,
    batch_tokens: int | None = None,
    kept: KeptPrefix | None = None,
    copies: int = 1,
) -> Callable[[], np.ndarray]:
    """Enqueues all rows, and returns a function that waits for what was read off their logits: (A, N, R).

    Args:
        model: as in `scorer.score`.
        rows: N token-id lists, each with the tokens that all answers share.
        answers: of their other tokens.
        read: makes (B, R) of the logits (B, Q, V) of some rows.
        batch_tokens: as in `scorer.score`.
        kept: used and replaced.
        copies: A, as in `ranged_rows.read_after`.
    """
    route = _route_of(model, rows, answers, kept, copies)
    batches = _batches_of(model, rows, route, answers.branches, batch_tokens)
    found = []
    for batch in batches:
        found.append(_read_batch(model, route, [rows[i] for i in batch], answers, read))
        rows_scored(len(batch))

    def fetched() -> np.ndarray:
        found_ANR: np.ndarray = torch.cat(found, dim=1).cpu().numpy()
        out_ANR: np.ndarray = np.empty_like(found_ANR)
        out_ANR[:, [i for batch in batches for i in batch]] = found_ANR
        return out_ANR

    return fetched


def _read_batch(
    model: PreTrainedModel, route: Route, rows: list[list[int]], answers: Answers, read: Read
) -> torch.Tensor:
    """Returns (A, B, R) on the model's device."""
    suffixes = [row[route.prefix :] for row in rows]
    if route.ranged:
        return ranged_rows.read_after(model, route.cache, route.prefix, suffixes, answers, read, route.copies)
    if route.plain:
        return read(plain_rows.plain_logits(model, suffixes, answers.branches, answers.last))[None]
    return read(logits_after(model, route.cache, route.prefix, suffixes, answers.branches, answers.last))[None]


def _route_of(
    model: PreTrainedModel, rows: list[list[int]], answers: Answers, kept: KeptPrefix | None, copies: int
) -> Route:
    """Returns how all rows of a call go through the model."""

    def scores(few: list[list[int]], plain: bool) -> torch.Tensor:
        route = Route(plain=True) if plain else _shared_prefix(model, few, answers.last, None, 1)
        return _read_batch(model, route, few, answers, score_reader(answers, model.device))

    if plain_rows.needed(model, rows, answers.branches, scores):
        return Route(plain=True)
    return _shared_prefix(model, rows, answers.last, kept, copies)


def _shared_prefix(
    model: PreTrainedModel, rows: Sequence[list[int]], last: int, kept: KeptPrefix | None, copies: int
) -> Route:
    """Returns a route after the tokens that all rows begin with; without a cache if that does not pay.

    Args:
        model: as in `score`.
        rows: token ids.
        last: tokens at the end of every row that never belong to the prefix, since their logits are needed.
        kept: as in `read_rows`.
        copies: as in `Route`.
    """
    ranged, longest = ranged_rows.suits(model), min(map(len, rows)) - last
    if kept is not None and 0 < len(kept.ids) <= longest and all(row[: len(kept.ids)] == kept.ids for row in rows):
        if kept.cache is None:
            kept.cache = _cache_of(model, kept.ids, ranged, copies)
        return Route(False, ranged, kept.cache, len(kept.ids), copies)
    prefix = min(common_prefix(rows), longest)
    if prefix < MIN_PREFIX or len(rows) == 1:
        return Route(False, ranged, None, 0, copies)
    ids = list(rows[0][:prefix])
    cache = _cache_of(model, ids, ranged, copies)
    if kept is not None:
        kept.ids, kept.cache = ids, cache
    return Route(False, ranged, cache, prefix, copies)


def _cache_of(model: PreTrainedModel, ids: list[int], ranged: bool, copies: int) -> Cache | FlatCache:
    return ranged_rows.prefix_cache(model, ids, copies) if ranged else prefix_cache(model, ids)


def _batches_of(
    model: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    route: Route,
    branches: Sequence[Sequence[int]],
    batch_tokens: int | None,
) -> list[list[int]]:
    """Returns the row numbers of each batch."""
    branch_tokens = sum(map(len, branches))
    if route.ranged:
        lengths = [len(row) - route.prefix + branch_tokens for row in rows]
        return _even_batches(lengths, (batch_tokens or ranged_rows.batch_limit(model)) // route.copies)
    if batch_tokens is None:
        batch_tokens = CPU_TOKENS if model.device.type == "cpu" else TOKENS
    copies, branch_tokens = 1, len(tree_of(branches))
    if route.plain:
        copies, branch_tokens = len(branches), max(map(len, branches))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    tokens = [len(row) - route.prefix + branch_tokens for row in rows]
    lengths = [copies * bucket_size(count) for count in tokens]
    groups = equal_frequencies(order, tokens, rope_limit(model)) if route.plain else [order]
    return [batch for group in groups for batch in cut_batches(group, lengths, batch_tokens)]


def equal_frequencies(order: list[int], tokens: Sequence[int], limit: int) -> list[list[int]]:
    """Returns the row numbers of `order`, shorter rows first, cut into groups: rows up to the limit, then by length."""
    return [list(group) for _, group in groupby(order, key=lambda i: max(tokens[i], limit))]


def _even_batches(lengths: list[int], limit: int) -> list[list[int]]:
    """Returns row numbers in order, cut into batches of about equally many tokens, at most `limit` where a row fits."""
    count = -(-sum(lengths) // max(1, limit))
    limit = min(limit, sum(lengths) // count + max(lengths))
    batches: list[list[int]] = []
    tokens = limit
    for i, length in enumerate(lengths):
        if tokens + length > limit:
            batches.append([])
            tokens = 0
        batches[-1].append(i)
        tokens += length
    return batches


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
