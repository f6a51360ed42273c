"""Scoring without a cache and branches, for architectures where these are not right: whole rows, masks by transformers.

A row of a text and K branches becomes one row for each branch, text and branch, padded on the right. The model gets
token ids and a 2-D mask, so that windows, attention chunks, sinks, recurrent states and ALiBi are its own business.
Padding on the right comes after all real tokens, so no causal model sees it. It does count where rotary frequencies
change with the length of a row (`architecture.rope_limit`): there all branches of a row get the frequencies of its
longest one.

Letters: B rows, T tokens of a row, R = B times the number of different branches, V vocabulary.
"""

import warnings
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary, WeakSet

import torch
from transformers import PreTrainedModel

from loraft.engine import fused_layer, prefix_attention
from loraft.engine.answers import shared_starts
from loraft.engine.architecture import UNLIMITED, longest_fast_row, rope_limit, takes
from loraft.engine.layout import unwrap
from loraft.engine.lm_head import exact_logits
from loraft.errors import Note, first_line

# Largest accepted difference of the scores of two ways to compute them, in nats.
LIMIT = {torch.float32: 1e-3}
LIMIT_BELOW_FP32 = 0.25

# What `_compared` has found for each model, without branches and with them.
_agrees: WeakKeyDictionary[torch.nn.Module, dict[bool, bool]] = WeakKeyDictionary()
_told: WeakSet[torch.nn.Module] = WeakSet()  # models whose limit was told


def plain_logits(model: PreTrainedModel, rows: list[list[int]], branches: list[list[int]], last: int) -> torch.Tensor:
    """Returns what `prefix_cache.logits_after` returns without a prefix; there is at least one branch."""
    longest = max(map(len, branches))
    sequences = [[*row, *branch] for row in rows for branch in branches]
    ids_RT = torch.zeros((len(sequences), max(map(len, sequences))), dtype=torch.long)
    mask_RT = torch.zeros_like(ids_RT)
    for ids_T, mask_T, sequence in zip(ids_RT, mask_RT, sequences, strict=True):
        ids_T[: len(sequence)] = torch.tensor(sequence)
        mask_T[: len(sequence)] = 1
    # The kept cells of each sequence: the last ones of the row and its branch, then padding.
    first_R1 = torch.tensor([len(row) - last for row in rows for _ in branches])[:, None]
    kept_RQ = (first_R1 + torch.arange(last + longest)).clamp(max=ids_RT.shape[1] - 1)
    given = {"attention_mask": mask_RT.to(model.device), "use_cache": False}
    if rope_limit(model) < UNLIMITED:  # a short row, since dynamic frequencies stay those of the longest row so far
        model(input_ids=ids_RT[:1, :1].to(model.device))
    with exact_logits(model, kept_RQ.to(model.device)):
        logits_RQV: torch.Tensor = model(
            input_ids=ids_RT.to(model.device), **{name: value for name, value in given.items() if takes(model, name)}
        ).logits
    logits = logits_RQV.unflatten(0, (len(rows), len(branches)))
    starts = shared_starts(branches)  # their logits are those of an earlier branch
    of_branches = [logits[:, i, last + starts[i] : last + len(branch)] for i, branch in enumerate(branches)]
    return torch.cat([logits[:, 0, :last], *of_branches], dim=1)


def needed(
    model: PreTrainedModel,
    rows: Sequence[list[int]],
    branches: Sequence[list[int]],
    scores: Callable[[list[list[int]], bool], torch.Tensor],
) -> bool:
    """Says whether rows must be scored plainly, and warns if so, once a model.

    The config decides. Architectures that the fast paths were not written for are compared with plain rows once, at
    the first call with a model and with branches, and keep to plain rows if they differ.

    Args:
        model: in evaluation mode.
        rows: token ids of all rows of the call.
        branches: as in `prefix_cache.logits_after`.
        scores: computes the scores of some rows; with True plainly.
    """
    limit, reason = longest_fast_row(model)
    if max(map(len, rows)) + max(map(len, branches)) > limit:
        if unwrap(model) not in _told:
            _told.add(unwrap(model))
            text = f"scoring: {reason}; each row runs whole, without the shared prefix, which is slower"
            warnings.warn(text, Note, stacklevel=2)
        return True
    if fused_layer.supports(model) or prefix_attention.supports(unwrap(model)):
        return False
    found, branched = _agrees.setdefault(unwrap(model), {}), any(branches)
    if branched not in found:
        found[branched] = _compared(model, rows, scores)
    return not found[branched]


def _compared(
    model: PreTrainedModel, rows: Sequence[list[int]], scores: Callable[[list[list[int]], bool], torch.Tensor]
) -> bool:
    """Returns whether the fast scores of the shortest and the longest row are the plain ones; warns if not."""
    few = [min(rows, key=len), max(rows, key=len)]
    expected = scores(few, True)
    try:
        fast = scores(few, False)
    except Exception as error:  # an architecture may refuse a mask or a cache in any way
        found = first_line(error)
    else:
        # A model that diverged has NaN in both, which is for the caller to report.
        difference = float((fast.nan_to_num(1e9) - expected.nan_to_num(1e9)).abs().max())
        if difference <= LIMIT.get(model.dtype, LIMIT_BELOW_FP32):
            return True
        found = f"scores differ by {difference:.4f}"
    warnings.warn(
        f"scoring: the shared prefix does not suit this backbone ({found}); each row runs whole, which is slower",
        stacklevel=2,
    )
    return False
