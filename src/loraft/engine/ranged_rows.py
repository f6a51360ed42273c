"""Scoring on a GPU: all rows of a batch as one packed row of the model, without index tables and without a wait.

What `prefix_cache` does with tables of cells this file does with ranges of keys (`key_ranges`), since a GPU loses more
by waiting than by computing. Below, the packed row of two suffixes (s, t) behind a cached prefix of P tokens, each with
a branch of 2 tokens (x y) and one of 1 token (z), and two tokens of padding (.) up to a bucket size:

    index in the row   0  1  2 |  3  4 |  5 ||  6  7 |  8  9 | 10 || 11 12
    token              s  s  s |  x  y |  z ||  t  t |  x  y |  z ||  .  .
    position - P       0  1  2 |  3  4 |  3 ||  0  1 |  2  3 |  2 ||  0  0
    own - P            0  1  2 |  3  4 |  5 ||  6  7 |  8  9 | 10 || 11 12
    begin - P          0  0  0 |  3  3 |  5 ||  6  6 |  8  8 | 10 || 11 12
    first - P                  |  0  0 |  0 ||       |  6  6 |  6 ||
    stop - P                   |  3  3 |  3 ||       |  8  8 |  8 ||

- numpy makes these numbers for a whole batch, and one transfer from pinned memory takes them to the device.
- Nothing asks the device for a value, so batches are enqueued one behind the other while it computes.
- The LM head runs in chunks, of which only what is needed is kept (`lm_head.read_logits`).
- Several adapters are scored in one pass over the frozen weights: the packed row is repeated for each of them.

Letters: A copies of the row (one for each adapter), B suffixes, T tokens of the row, W tokens of all branches, K kept
tokens of the row, P prefix tokens, L = P + T keys, R numbers that are read for each suffix.
"""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel

from loraft.engine import fused_layer
from loraft.engine.answers import Answers, shared_starts
from loraft.engine.fused_operations import has_kernels
from loraft.engine.key_ranges import FlatCache, KeyRanges, RangedLayout, query_bounds
from loraft.engine.layout import bucket_size, head_counts, no_mask, unwrap
from loraft.engine.lm_head import Read, read_logits
from loraft.engine.transfer import sent

MOST_TOKENS, FEWEST_TOKENS = 32768, 1024  # of a batch, all copies together; more do not make a GPU faster


class Cells(NamedTuple):
    """A packed row; see the picture.

    Attributes:
        ids_T: token ids, 0 for padding.
        positions_T: position ids.
        queries_4T: `KeyRanges.queries_4M` of all tokens.
        kept_K: indices of the tokens that the LM head reads: of each suffix the last ones, then those of its branches.
    """

    ids_T: np.ndarray
    positions_T: np.ndarray
    queries_4T: np.ndarray
    kept_K: np.ndarray


def suits(model: PreTrainedModel) -> bool:
    """Says whether rows of a model are scored this way: on a CUDA device with Triton, by fused layers."""
    return has_kernels(model.device) and fused_layer.supports(model)


def cells_of(suffixes: Sequence[Sequence[int]], branches: Sequence[Sequence[int]], last: int, prefix: int) -> Cells:
    """Returns the packed row of a batch; arguments as in `prefix_cache.logits_after`."""
    lengths_B = np.fromiter(map(len, suffixes), np.int64, len(suffixes))
    sizes = np.array([len(branch) for branch in branches], np.int64)
    width = int(sizes.sum())  # W
    # Of each branch token its id, where its branch begins among the W tokens, and its place in its branch. One number
    # more, so that the tables can be read for tokens of suffixes as well.
    branch_W = np.array([*chain.from_iterable(branches), 0])
    first_W = np.append(np.repeat(sizes.cumsum() - sizes, sizes), 0)
    index_W = np.arange(width + 1) - first_W

    totals_B = lengths_B + width
    used = int(totals_B.sum())  # U tokens, without padding
    start_U, length_U = np.repeat(totals_B.cumsum() - totals_B, totals_B), np.repeat(lengths_B, totals_B)
    offset_U = np.arange(used) - start_U
    in_branch_U = offset_U >= length_U
    number_U = (offset_U - length_U).clip(0)

    ids_T, positions_T = (np.zeros(bucket_size(used), np.int32) for _ in range(2))
    ids_T[:used] = branch_W[number_U]
    ids_T[:used][~in_branch_U] = np.fromiter(chain.from_iterable(suffixes), np.int32, int(lengths_B.sum()))
    positions_T[:used] = np.where(in_branch_U, length_U + index_W[number_U], offset_U) + prefix
    queries_4T = np.zeros((4, len(ids_T)), np.int32)
    queries_4T[:2] = np.arange(len(ids_T)) + prefix
    queries_4T[1, :used] = start_U + np.where(in_branch_U, length_U + first_W[number_U], 0) + prefix
    queries_4T[2, :used][in_branch_U] = (start_U + prefix)[in_branch_U]
    queries_4T[3, :used][in_branch_U] = (start_U + length_U + prefix)[in_branch_U]
    # Ranges cannot name the ancestors in a tree, so branches that begin alike are computed whole; what they share is
    # read once.
    read_W = np.append(index_W[:width] >= np.repeat(np.array(shared_starts(branches), np.int64), sizes), True)
    return Cells(ids_T, positions_T, queries_4T, np.flatnonzero((offset_U >= length_U - last) & read_W[number_U]))


def prefix_cache(model: PreTrainedModel, ids: list[int], copies: int = 1) -> FlatCache:
    """Returns the keys and values of the prefix in token order, one pair for each layer, (A * P, C * D) each."""
    record: FlatCache = []
    layout, inputs = _inputs(model, cells_of([ids], [], 1, 0), copies, None, 0, record)
    with fused_layer.enabled(model):
        model(**inputs, logits_to_keep=1, layout=layout)

    def trimmed(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(0, (copies, -1))[:, : len(ids)].flatten(0, 1)  # without padding

    return [(trimmed(keys), trimmed(values)) for keys, values in record]


def read_after(
    model: PreTrainedModel,
    cache: FlatCache | None,
    prefix: int,
    suffixes: Sequence[Sequence[int]],
    answers: Answers,
    read: Read,
    copies: int = 1,
) -> torch.Tensor:
    """Returns what `read` makes of the logits that `prefix_cache.logits_after` would return, (A, B, R).

    Args:
        model: in evaluation mode; `suits` has accepted it.
        cache: of the prefix, None without one.
        prefix: P.
        suffixes: token ids of each row after the prefix.
        answers: whose logits are read.
        read: as in `lm_head.read_logits`.
        copies: A; with several, `lora_linear.enabled` has been given as many adapters.
    """
    cells = cells_of(suffixes, answers.branches, answers.last, prefix)
    layout, inputs = _inputs(model, cells, copies, cache, prefix)
    with fused_layer.enabled(model), read_logits(model, answers.cells, read):
        found: torch.Tensor = model(**inputs, layout=layout).logits
    return found.view(copies, len(suffixes), -1)


def _inputs(
    model: PreTrainedModel,
    cells: Cells,
    copies: int,
    cache: FlatCache | None,
    prefix: int,
    record: FlatCache | None = None,
) -> tuple[RangedLayout, dict[str, object]]:
    """Returns the layout of a packed row and the model's other arguments, all on its device."""
    device, count = model.device, len(cells.ids_T)
    queries_4K = np.ascontiguousarray(cells.queries_4T[:, cells.kept_K])
    bounds_2L, last_bounds_2L = (
        query_bounds(torch.from_numpy(queries), prefix + count, prefix).numpy()
        for queries in (cells.queries_4T, queries_4K)
    )
    kept_AK = cells.kept_K + count * np.arange(copies)[:, None]
    ids_T, positions_T, queries, bounds, last_queries, last_bounds, prefix_1, kept = sent(
        device, cells.ids_T, cells.positions_T, cells.queries_4T, bounds_2L, queries_4K, last_bounds_2L,
        np.array([prefix]), kept_AK.reshape(-1),
    )  # fmt: skip
    layout = RangedLayout(
        head_counts(model),
        copies,
        KeyRanges(queries, bounds, prefix_1),
        kept,
        KeyRanges(last_queries, last_bounds, prefix_1),
        cache,
        record,
    )
    return layout, {
        "input_ids": ids_T.expand(copies, -1),
        "position_ids": positions_T[None],
        "attention_mask": no_mask(model.dtype, device),
        "use_cache": False,
    }


def batch_limit(model: PreTrainedModel) -> int:
    """Returns the most tokens of a batch, all copies together, by the memory that is free on the device."""
    if model.device.type != "cuda":
        return MOST_TOKENS
    config = unwrap(model).config.get_text_config()
    # A layer's intermediate results, if all were held in fp32: some twelve of H numbers a token, four of the MLP's.
    token_bytes = 4 * (12 * config.hidden_size + 4 * config.intermediate_size)
    free = torch.cuda.mem_get_info(model.device)[0]
    free += torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
    return int(max(FEWEST_TOKENS, min(MOST_TOKENS, free // 2 // token_bytes)))
