"""Scores labels by the log-probability of their answers after a prompt, exactly, and decodes answers greedily.

Evaluation, few-shot studies, sweeps and prediction all use this file. The score of a label is the sum of the
log-probabilities of its answer's tokens after those that all answers share, which would add the same to each label. The
end of turn is left out, unless `prompt.score_end_of_turn` asks for it or one answer is the beginning of another: only
there does it tell two answers apart (`docs/decisions/0003-small-decisions.md` has the measurement).

The tokens that all prompts share (instruction, demonstrations) run through the backbone once. Each row then adds its
own sentence, the shared part of the answer, and a branch for each label (`prefix_cache` has a picture). Padding stands
where no real token sees it, so batch size, padding and cache change a score by rounding errors only.

Letters: B rows of a batch, T tokens, P prefix tokens, V vocabulary, K labels, N examples.
"""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from loraft.engine.layout import Cache, bucket_size, common_prefix
from loraft.engine.prefix_cache import logits_after, prefix_cache
from loraft.errors import BackboneError

MIN_PREFIX = 8  # a pass for a shorter common prefix costs more than it saves
# Rows times tokens of a batch. On a CPU small batches fit the processor's cache, and their rows differ less in length.
CPU_TOKENS, TOKENS = 1536, 8192
# Two logits that differ by less may swap their order by rounding, for example in a batch of another size.
MARGIN = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.05}


def answer_tokens(completions_K: Sequence[Sequence[int]], unscored: int = 1) -> list[list[int]]:
    """Returns the answers' ids that are scored: without the end of turn, unless it tells two answers apart.

    Args:
        completions_K: K token-id lists, each ending in the end of turn.
        unscored: number of tokens of the end of turn; 0 keeps it.
    """
    without_end = [list(ids[: len(ids) - unscored]) for ids in completions_K]
    ambiguous = any(
        i != j and other[: len(one)] == one for i, one in enumerate(without_end) for j, other in enumerate(without_end)
    )
    return [list(ids) for ids in completions_K] if ambiguous else without_end


@torch.inference_mode()
def score(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    completions_K: Sequence[Sequence[int]],
    *,
    unscored: int = 1,
    batch_tokens: int | None = None,
) -> np.ndarray:
    """Returns each label's score after each prompt, in nats: (N, K), float64.

    The score is the log-probability of the answer's tokens after those that all answers share.

    Args:
        model: a causal language model (or a PeftModel) in evaluation mode.
        prompts: N token-id lists that end where the answer begins.
        completions_K: K token-id lists, each ending in the end-of-turn token.
        unscored: as in `answer_tokens`; `Encoder.unscored` has it.
        batch_tokens: largest product of rows and padded suffix length in one forward pass; None chooses by device.

    Raises:
        BackboneError: if a score is not a number, as after a training that diverged.
    """
    answers = answer_tokens(completions_K, unscored)
    shared_tokens = common_prefix(answers)
    endings = [ids[shared_tokens:] for ids in answers]
    rows = [[*prompt, *answers[0][:shared_tokens]] for prompt in prompts]
    if not rows:
        return np.zeros((0, len(endings)))
    cache, prefix = _shared_prefix(model, rows, 1)
    log_probs_NK = np.zeros((len(rows), len(endings)))
    for batch in _batches_of(model, rows, prefix, endings, batch_tokens):
        suffixes = [rows[i][prefix:] for i in batch]
        log_probs_NK[batch] = _score_batch(model, cache, prefix, suffixes, endings)
    if np.isnan(log_probs_NK).any():
        without = int(np.isnan(log_probs_NK).any(axis=1).sum())
        raise BackboneError(
            f"scoring: {without} of {len(rows)} rows have no score (got NaN); the adapter's training has probably "
            "diverged: repeat it with a lower train.learning_rate"
        )
    return log_probs_NK


def to_probs(log_probs_NK: np.ndarray) -> np.ndarray:
    """Returns the labels' probabilities (N, K), normalised over the K labels: each row sums to 1."""
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
    """Returns each row's greedily decoded ids, up to and without the end-of-turn token.

    Many rows decode to a label's answer. `greedy` finds these in one pass; only the other rows are decoded token by
    token.

    Args:
        model: a causal language model (or a PeftModel) in evaluation mode.
        prompts: token-id lists that end where the answer begins.
        completions_K: K token-id lists, each ending in the same end-of-turn token.
        pad: id of the padding token.
        max_new_tokens: most tokens that a row may get, with the end-of-turn token.
        batch_tokens: as in `score`.
    """
    end_of_turn = completions_K[0][-1]
    out: list[list[int]] = [[] for _ in prompts]
    answers_fit = all(len(ids) <= max_new_tokens for ids in completions_K)
    found = greedy(model, prompts, completions_K, batch_tokens=batch_tokens) if answers_fit else [-1] * len(prompts)
    for i, k in enumerate(found):
        if k >= 0:
            out[i] = list(completions_K[k][:-1])
    order = sorted((i for i, k in enumerate(found) if k < 0), key=lambda i: len(prompts[i]))
    for batch in _batches(order, [len(prompt) + max_new_tokens for prompt in prompts], batch_tokens or TOKENS):
        # transformers' decoding wants padding on the left, so that all rows end where new tokens begin.
        longest = max(len(prompts[i]) for i in batch)
        ids_BT = torch.full((len(batch), longest), pad)
        mask_BT = torch.zeros((len(batch), longest), dtype=torch.long)
        for row, i in enumerate(batch):
            ids_BT[row, longest - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask_BT[row, longest - len(prompts[i]) :] = 1
        decoded_BT = model.generate(
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
            ids = decoded_BT[row, longest:].tolist()
            out[i] = ids[: ids.index(end_of_turn)] if end_of_turn in ids else ids
    return out


@torch.inference_mode()
def greedy(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    completions_K: Sequence[Sequence[int]],
    *,
    batch_tokens: int | None = None,
) -> list[int]:
    """Returns for each prompt the number of the answer that greedy decoding gives, found in one pass; else -1.

    Decoding gives an answer if at each of its tokens, the end-of-turn token included, that token has the largest logit
    of the whole vocabulary. -1 means that it leaves all answers, or that two logits are closer than `MARGIN`.

    Args:
        model: a causal language model (or a PeftModel) in evaluation mode.
        prompts: token-id lists that end where the answer begins.
        completions_K: K token-id lists, each ending in the end-of-turn token.
        batch_tokens: as in `score`.
    """
    if not prompts:
        return []
    shared_tokens = common_prefix([ids[:-1] for ids in completions_K])
    shared = list(completions_K[0][:shared_tokens])
    endings = [list(ids[shared_tokens:]) for ids in completions_K]
    rows = [[*prompt, *shared] for prompt in prompts]
    cache, prefix = _shared_prefix(model, rows, shared_tokens + 1)
    found = [-1] * len(rows)
    for batch in _batches_of(model, rows, prefix, endings, batch_tokens):
        suffixes = [rows[i][prefix:] for i in batch]
        for i, k in zip(batch, _greedy_batch(model, cache, prefix, suffixes, shared, endings), strict=True):
            found[i] = k
    return found


def _batches_of(
    model: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    prefix: int,
    endings: Sequence[Sequence[int]],
    batch_tokens: int | None,
) -> list[list[int]]:
    """Returns the batches of all rows, by the padded length of their suffixes and branches."""
    if batch_tokens is None:
        batch_tokens = CPU_TOKENS if model.device.type == "cpu" else TOKENS
    branch_tokens = sum(len(ending) - 1 for ending in endings)  # the last token of an answer predicts nothing
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    return _batches(order, [bucket_size(len(row) - prefix + branch_tokens) for row in rows], batch_tokens)


def _batches(order: list[int], lengths: list[int], batch_tokens: int) -> list[list[int]]:
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


def _score_batch(
    model: PreTrainedModel, cache: Cache | None, prefix: int, suffixes: list[list[int]], endings: list[list[int]]
) -> np.ndarray:
    """Returns the log-probabilities (B, K) of the endings after each suffix, which follows the cached prefix."""
    branches = [ending[:-1] for ending in endings]
    suffix_B1V, branch_BTV = logits_after(model, cache, prefix, suffixes, branches, 1)
    # The end of the suffix predicts the first token of every ending; the tokens of a branch predict the other ones.
    first_BV = suffix_B1V[:, -1].float().log_softmax(-1)
    out_BK = torch.stack([first_BV[:, ending[0]] for ending in endings], dim=1).double()
    start = 0
    for k, ending in enumerate(endings):
        for step, token in enumerate(ending[1:]):
            out_BK[:, k] += branch_BTV[:, start + step].float().log_softmax(-1)[:, token]
        start += len(ending) - 1
    return np.asarray(out_BK.cpu().numpy())


def _greedy_batch(
    model: PreTrainedModel,
    cache: Cache | None,
    prefix: int,
    suffixes: list[list[int]],
    shared: list[int],
    endings: list[list[int]],
) -> list[int]:
    """Returns for each suffix the number of the ending that greedy decoding takes, or -1, as in `greedy`.

    Args:
        model: as in `greedy`.
        cache: keys and values of the prefix.
        prefix: its length.
        suffixes: token ids, each ending in `shared`.
        shared: the tokens that all answers begin with.
        endings: the other tokens of each answer.
    """
    branches = [ending[:-1] for ending in endings]
    suffix_BSV, branch_BTV = logits_after(model, cache, prefix, suffixes, branches, len(shared) + 1)
    margin = MARGIN.get(model.dtype, MARGIN[torch.bfloat16])

    def takes(logits_BV: torch.Tensor, token: int) -> torch.Tensor:
        """Whether each row's largest logit is that of the token, and clearly so."""
        best = logits_BV.float().topk(2)
        return (best.indices[:, 0] == token) & (best.values[:, 0] - best.values[:, 1] > margin)

    takes_shared_B = torch.ones(len(suffixes), dtype=torch.bool, device=model.device)
    for step, token in enumerate(shared):
        takes_shared_B &= takes(suffix_BSV[:, step], token)
    found_B = torch.full((len(suffixes),), -1, device=model.device)
    start = 0
    for k, ending in enumerate(endings):
        takes_all_B = takes_shared_B & takes(suffix_BSV[:, -1], ending[0])
        for step, token in enumerate(ending[1:]):
            takes_all_B &= takes(branch_BTV[:, start + step], token)
        found_B[takes_all_B] = k
        start += len(ending) - 1
    return [int(k) for k in found_B.tolist()]
