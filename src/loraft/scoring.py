"""Exact label log-probabilities: the one engine behind evaluation, few-shot, sweeps and prediction.

The log-probability of a label is the sum over its answer's tokens after the part that all answers share; the
end-of-turn token is counted only where one answer is the beginning of another, since only there it decides.

The tokens that all prompts share (instruction, demonstrations) go through the backbone once; each row then brings
its sentence, the shared part of the answer, and the labels' own tokens as branches of a tree that see the row but
not each other. Right padding comes after everything that a real token may see, so neither padding nor batch size nor
the cached prefix changes a score beyond rounding; `score_plainly` is the twin that the tests compare with.

Suffixes: B batch, T tokens, S suffix tokens, P prefix tokens, V vocabulary, K labels, N examples.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from loraft.encoding import common_prefix
from loraft.errors import BackboneError

MIN_PREFIX = 8  # a shorter common prefix costs more calls than it saves


def answer_tokens(completions_K: Sequence[Sequence[int]]) -> list[list[int]]:
    """Returns the answers' ids without the end-of-turn token, unless it is needed to tell two answers apart."""
    bare = [list(ids[:-1]) for ids in completions_K]
    ambiguous = any(i != j and b[: len(a)] == a for i, a in enumerate(bare) for j, b in enumerate(bare))
    return [list(ids) for ids in completions_K] if ambiguous else bare


@torch.inference_mode()
def score(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    completions_K: Sequence[Sequence[int]],
    *,
    batch_tokens: int = 8192,
) -> np.ndarray:
    """Returns the log-probability of each label's answer after each prompt.

    Args:
        model: a causal language model (or a PeftModel) in evaluation mode.
        prompts: N token-id lists that end where the answer begins.
        completions_K: K token-id lists, each ending in the end-of-turn token.
        batch_tokens: bound on rows times padded suffix length of one forward pass.

    Returns:
        log_probs_NK: float64 in nats, summed over the tokens beyond the answers' common prefix.

    Raises:
        BackboneError: if a score is not a number, as after a training that diverged.
    """
    answers = answer_tokens(completions_K)
    forced = common_prefix(answers)
    shared = list(answers[0][:forced])
    branches = [ids[forced:] for ids in answers]
    rows = [[*prompt, *shared] for prompt in prompts]
    if not rows:
        return np.zeros((0, len(branches)))
    prefix = min(common_prefix(rows), min(map(len, rows)) - 1)
    prefix = prefix if prefix >= MIN_PREFIX and len(rows) > 1 else 0
    cache = _prefix_cache(model, rows[0][:prefix]) if prefix else None
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    extra = sum(len(branch) - 1 for branch in branches)
    log_probs_NK = np.zeros((len(rows), len(branches)))
    for batch in _batches(order, [len(row) - prefix + extra for row in rows], batch_tokens):
        suffixes = [rows[i][prefix:] for i in batch]
        log_probs_NK[batch] = _score_batch(model, cache, prefix, suffixes, branches)
    if np.isnan(log_probs_NK).any():
        raise BackboneError(
            f"scoring: {int(np.isnan(log_probs_NK).any(axis=1).sum())} of {len(rows)} rows have no score (got NaN); an "
            "adapter that diverged is trained again with a lower train.learning_rate"
        )
    return log_probs_NK


@torch.inference_mode()
def score_plainly(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], completions_K: Sequence[Sequence[int]]
) -> np.ndarray:
    """Returns what `score` returns, one full sequence a row and label, with no cache, padding or tree."""
    answers = answer_tokens(completions_K)
    forced = common_prefix(answers)
    log_probs_NK = np.zeros((len(prompts), len(answers)))
    for n, prompt in enumerate(prompts):
        for k, answer in enumerate(answers):
            ids_T = torch.tensor([[*prompt, *answer]], device=model.device)
            log_probs_TV = model(input_ids=ids_T, use_cache=False).logits[0].float().log_softmax(-1)
            positions = range(len(prompt) + forced, ids_T.shape[1])
            log_probs_NK[n, k] = sum(float(log_probs_TV[t - 1, ids_T[0, t]]) for t in positions)
    return log_probs_NK


def to_probs(log_probs_NK: np.ndarray) -> np.ndarray:
    """Returns the labels' probabilities, normalised over the K labels: each row sums to 1."""
    shifted = log_probs_NK - log_probs_NK.max(axis=1, keepdims=True)
    exp_NK = np.exp(shifted)
    return np.asarray(exp_NK / exp_NK.sum(axis=1, keepdims=True))


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    end_of_turn: int,
    pad: int,
    max_new_tokens: int,
    batch_tokens: int = 8192,
) -> list[list[int]]:
    """Returns each row's greedily decoded ids, up to and without the end-of-turn token: the tutorial's way."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out: list[list[int]] = [[] for _ in prompts]
    for batch in _batches(order, [len(p) + max_new_tokens for p in prompts], batch_tokens):
        longest = max(len(prompts[i]) for i in batch)
        ids_BT = torch.full((len(batch), longest), pad)
        mask_BT = torch.zeros((len(batch), longest), dtype=torch.long)
        for row, i in enumerate(batch):
            ids_BT[row, longest - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask_BT[row, longest - len(prompts[i]) :] = 1
        made_BT = model.generate(
            input_ids=ids_BT.to(model.device),
            attention_mask=mask_BT.to(model.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            eos_token_id=end_of_turn,
            pad_token_id=pad,
        )
        for row, i in enumerate(batch):
            ids = made_BT[row, longest:].tolist()
            out[i] = ids[: ids.index(end_of_turn)] if end_of_turn in ids else [t for t in ids if t != pad]
    return out


def _batches(order: list[int], lengths: list[int], batch_tokens: int) -> list[list[int]]:
    """Returns the indices in order, cut so that rows times the longest row stay within `batch_tokens`."""
    batches: list[list[int]] = []
    longest = 0
    for i in order:
        longest = max(longest, lengths[i])
        if not batches or longest * (len(batches[-1]) + 1) > batch_tokens:
            batches.append([])
            longest = lengths[i]
        batches[-1].append(i)
    return batches


def _prefix_cache(model: PreTrainedModel, ids: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Returns the keys and values of the prefix, one pair a layer, each of shape (1, heads, P, head size)."""
    ids_T = torch.tensor([ids], device=model.device)
    cache = model(input_ids=ids_T, use_cache=True, logits_to_keep=1).past_key_values
    return [(layer.keys, layer.values) for layer in cache.layers]


def _score_batch(
    model: PreTrainedModel,
    prefix_layers: list[tuple[torch.Tensor, torch.Tensor]] | None,
    prefix: int,
    suffixes: list[list[int]],
    branches: list[list[int]],
) -> np.ndarray:
    """Returns log_probs_BK of one batch of suffixes after the cached prefix."""
    batch = len(suffixes)
    stems = [len(suffix) for suffix in suffixes]
    longest = max(stems)
    tails = [branch[:-1] for branch in branches]
    ids_BT = torch.zeros((batch, longest + sum(map(len, tails))), dtype=torch.long)
    for row, suffix in enumerate(suffixes):
        ids_BT[row, : len(suffix)] = torch.tensor(suffix)
    kwargs: dict[str, Any] = {}
    last_B = torch.tensor(stems) - 1
    if any(tails):
        kwargs["attention_mask"], kwargs["position_ids"] = _tree(ids_BT, stems, tails, longest, prefix, model)
    else:
        kwargs["position_ids"] = torch.arange(prefix, prefix + longest, device=model.device).unsqueeze(0)
    if prefix_layers is not None:
        kwargs["past_key_values"] = DynamicCache(
            [(k.expand(batch, -1, -1, -1), v.expand(batch, -1, -1, -1)) for k, v in prefix_layers]
        )
    kept = sorted({*last_B.tolist(), *range(longest, ids_BT.shape[1])})
    place = {position: i for i, position in enumerate(kept)}
    logits_BTV = model(
        input_ids=ids_BT.to(model.device),
        use_cache=prefix_layers is not None,
        logits_to_keep=torch.tensor(kept, device=model.device),
        **kwargs,
    ).logits
    rows_B = torch.arange(batch)
    at_B = torch.tensor([place[stem - 1] for stem in stems])
    first_BV = logits_BTV[rows_B, at_B].float().log_softmax(-1)
    out_BK = torch.stack([first_BV[:, branch[0]] for branch in branches], dim=1).double()
    start = longest
    for k, branch in enumerate(branches):
        for step, token in enumerate(branch[1:]):
            out_BK[:, k] += logits_BTV[:, place[start + step]].float().log_softmax(-1)[:, token]
        start += len(branch) - 1
    return np.asarray(out_BK.cpu().numpy())


def _tree(
    ids_BT: torch.Tensor, stems: list[int], tails: list[list[int]], longest: int, prefix: int, model: PreTrainedModel
) -> tuple[torch.Tensor, torch.Tensor]:
    """Writes the labels' own tokens into ids_BT and returns the additive mask and the positions of the tree.

    Returns:
        mask_B1TK of shape (B, 1, S, P + S) in the model's dtype, and position_ids_BT.
    """
    batch, total = ids_BT.shape
    see_BTT = torch.tril(torch.ones(total, total, dtype=torch.bool)).repeat(batch, 1, 1)
    positions_BT = torch.arange(total).repeat(batch, 1)
    start = longest
    for tail in tails:
        stop = start + len(tail)
        ids_BT[:, start:stop] = torch.tensor(tail)
        see_BTT[:, start:stop, longest:start] = False  # the other labels' branches
        for row, stem in enumerate(stems):
            see_BTT[row, start:stop, stem:longest] = False  # padding
            positions_BT[row, start:stop] = torch.arange(stem, stem + len(tail))
        start = stop
    see_BTT = torch.cat([torch.ones(batch, total, prefix, dtype=torch.bool), see_BTT], dim=2)
    mask = torch.zeros(see_BTT.shape, dtype=model.dtype).masked_fill(~see_BTT, torch.finfo(model.dtype).min)
    return mask[:, None].to(model.device), (positions_BT + prefix).to(model.device)
