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

import numpy as np
import torch
from transformers import PreTrainedModel

from loraft.engine.layout import Cache, common_prefix, rounded
from loraft.engine.prefix_cache import logits_after, prefix_cache
from loraft.errors import BackboneError

MIN_PREFIX = 8  # a shorter common prefix costs more calls than it saves
CPU_TOKENS, TOKENS = 1536, 8192  # of a batch; a CPU wants them within its cache, and rows of like length together
MARGIN = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.05}  # of logits, above what rounding can do


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
    batch_tokens: int | None = None,
) -> np.ndarray:
    """Returns the log-probability of each label's answer after each prompt.

    Args:
        model: a causal language model (or a PeftModel) in evaluation mode.
        prompts: N token-id lists that end where the answer begins.
        completions_K: K token-id lists, each ending in the end-of-turn token.
        batch_tokens: bound on rows times padded suffix length of one forward pass; None is what suits the device.

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
    cache, prefix = _shared_prefix(model, rows, 1)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    extra = sum(len(branch) - 1 for branch in branches)
    log_probs_NK = np.zeros((len(rows), len(branches)))
    for batch in _batches(order, [rounded(len(row) - prefix + extra) for row in rows], _tokens(model, batch_tokens)):
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
    completions_K: Sequence[Sequence[int]],
    *,
    pad: int,
    max_new_tokens: int,
    batch_tokens: int | None = None,
) -> list[list[int]]:
    """Returns each row's greedily decoded ids, up to and without the end-of-turn token: the tutorial's way.

    Where the most likely token of the whole vocabulary is, at every step, the next one of a label's answer and then the
    end of turn, the answer is read off one pass (`greedy`); only the other rows are decoded token by token.
    """
    end_of_turn = completions_K[0][-1]
    out: list[list[int]] = [[] for _ in prompts]
    fits = all(len(ids) <= max_new_tokens for ids in completions_K)
    taken = greedy(model, prompts, completions_K, batch_tokens=batch_tokens) if fits else [-1] * len(prompts)
    for i, k in enumerate(taken):
        if k >= 0:
            out[i] = list(completions_K[k][:-1])
    order = sorted((i for i, k in enumerate(taken) if k < 0), key=lambda i: len(prompts[i]))
    for batch in _batches(order, [len(p) + max_new_tokens for p in prompts], batch_tokens or TOKENS):
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


@torch.inference_mode()
def greedy(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    completions_K: Sequence[Sequence[int]],
    *,
    batch_tokens: int | None = None,
) -> list[int]:
    """Returns for each prompt the answer that greedy decoding gives, as one pass tells; -1 where it cannot tell.

    It cannot where decoding leaves all answers, or where two tokens are so close that another order of additions, as
    in a padded batch, might swap them (`MARGIN`).
    """
    if not prompts:
        return []
    forced = common_prefix([ids[:-1] for ids in completions_K])
    shared = list(completions_K[0][:forced])
    branches = [list(ids[forced:]) for ids in completions_K]
    rows = [[*prompt, *shared] for prompt in prompts]
    cache, prefix = _shared_prefix(model, rows, forced + 1)
    extra = sum(len(branch) - 1 for branch in branches)
    taken = [-1] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for batch in _batches(order, [rounded(len(row) - prefix + extra) for row in rows], _tokens(model, batch_tokens)):
        suffixes = [rows[i][prefix:] for i in batch]
        for i, k in zip(batch, _greedy_batch(model, cache, prefix, suffixes, shared, branches), strict=True):
            taken[i] = k
    return taken


def _batches(order: list[int], lengths: list[int], batch_tokens: int) -> list[list[int]]:
    """Returns the indices in order, shorter rows first, cut so that rows times the longest stay within `batch_tokens`.

    A batch of more than 8 rows has a multiple of 8 of them, but for the last one: see `layouts.rounded`.
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


def _tokens(model: PreTrainedModel, batch_tokens: int | None) -> int:
    if batch_tokens is not None:
        return batch_tokens
    return CPU_TOKENS if model.device.type == "cpu" else TOKENS


def _shared_prefix(model: PreTrainedModel, rows: Sequence[Sequence[int]], last: int) -> tuple[Cache | None, int]:
    """Returns the cache of what all rows begin with, and its length; every row keeps its `last` tokens to itself."""
    prefix = min(common_prefix(rows), min(map(len, rows)) - last)
    if prefix < MIN_PREFIX or len(rows) == 1:
        return None, 0
    return prefix_cache(model, list(rows[0][:prefix])), prefix


def _score_batch(
    model: PreTrainedModel,
    prefix_layers: Cache | None,
    prefix: int,
    suffixes: list[list[int]],
    branches: list[list[int]],
) -> np.ndarray:
    """Returns log_probs_BK of one batch of suffixes after the cached prefix."""
    tails = [branch[:-1] for branch in branches]
    stem_B1V, tail_BTV = logits_after(model, prefix_layers, prefix, suffixes, tails, 1)
    first_BV = stem_B1V[:, -1].float().log_softmax(-1)
    out_BK = torch.stack([first_BV[:, branch[0]] for branch in branches], dim=1).double()
    start = 0
    for k, branch in enumerate(branches):
        for step, token in enumerate(branch[1:]):
            out_BK[:, k] += tail_BTV[:, start + step].float().log_softmax(-1)[:, token]
        start += len(branch) - 1
    return np.asarray(out_BK.cpu().numpy())


def _greedy_batch(
    model: PreTrainedModel,
    prefix_layers: Cache | None,
    prefix: int,
    suffixes: list[list[int]],
    shared: list[int],
    branches: list[list[int]],
) -> list[int]:
    """Returns for each suffix the branch that greedy decoding takes, -1 where it takes none or only just."""
    stem_BSV, tail_BTV = logits_after(
        model, prefix_layers, prefix, suffixes, [branch[:-1] for branch in branches], len(shared) + 1
    )
    margin = MARGIN.get(model.dtype, MARGIN[torch.bfloat16])

    def takes(logits_BV: torch.Tensor, token: int) -> torch.Tensor:
        best = logits_BV.float().topk(2)
        return (best.indices[:, 0] == token) & (best.values[:, 0] - best.values[:, 1] > margin)

    to_branches_B = torch.ones(len(suffixes), dtype=torch.bool, device=model.device)
    for step, token in enumerate(shared):
        to_branches_B &= takes(stem_BSV[:, step], token)
    taken_B = torch.full((len(suffixes),), -1, device=model.device)
    start = 0
    for k, branch in enumerate(branches):
        all_B = to_branches_B & takes(stem_BSV[:, -1], branch[0])
        for step, token in enumerate(branch[1:]):
            all_B &= takes(tail_BTV[:, start + step], token)
        taken_B[all_B] = k
        start += len(branch) - 1
    return [int(k) for k in taken_B.tolist()]
