"""Greedy decoding of answers: read off one scoring pass where that is certain, else token by token.

Letters: N rows, B rows of a batch, T tokens, Q logits of a row, V vocabulary, K labels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from loraft.engine.answers import answers_of
from loraft.engine.architecture import longest_fast_row, rope_limit
from loraft.engine.layout import common_prefix
from loraft.engine.no_gradients import no_gradients
from loraft.engine.row_batches import (
    TOKENS,
    cut_batches,
    equal_frequencies,
    read_rows,
)
from loraft.progress import each

# Two logits that differ by less may swap their order by rounding, for example in a batch of another size.
MARGIN = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.05}


@no_gradients
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
    lengths = [len(prompt) + max_new_tokens for prompt in prompts]
    # transformers' decoding wants padding on the left, so that all rows end where new tokens begin. A recurrent layer
    # would read that padding first, and without position ids it would shift the row.
    limit = rope_limit(model) if longest_fast_row(model)[0] > 0 else 0
    groups = equal_frequencies(order, lengths, limit)
    batches = [batch for group in groups for batch in cut_batches(group, lengths, batch_tokens or TOKENS)]
    for batch in each(batches, "decoding answers", "batches"):
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


@no_gradients
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
    answers = answers_of([ids[shared_tokens:] for ids in completions_K], last=shared_tokens + 1)
    rows = [[*prompt, *shared] for prompt in prompts]
    margin = MARGIN.get(model.dtype, MARGIN[torch.bfloat16])

    def clear_tokens(logits_BQV: torch.Tensor) -> torch.Tensor:
        """The token with the largest logit; -1 where the second one is close to it."""
        best = logits_BQV.float().topk(2)
        return torch.where(best.values[..., 0] - best.values[..., 1] > margin, best.indices[..., 0], -1)

    clear_NQ = read_rows(model, rows, answers, clear_tokens, batch_tokens=batch_tokens)()[0]
    found_N = np.full(len(rows), -1)
    for k, steps in enumerate(answers.steps_K):
        numbers, tokens = zip(*enumerate(shared), *steps, strict=True)
        found_N[(clear_NQ[:, numbers] == tokens).all(axis=1)] = k
    return [int(k) for k in found_N]
