"""Scores labels by the log-probability of their answers after a prompt, exactly.

Evaluation, few-shot studies, sweeps and prediction all use this file. The score of a label is the sum of the
log-probabilities of its answer's tokens after those that all answers share, which would add the same to each label. The
end of turn is left out, unless `prompt.score_end_of_turn` asks for it or one answer is the beginning of another: only
there does it tell two answers apart (`docs/decisions/0003-small-decisions.md` has the measurement).

The tokens that all prompts share (instruction, demonstrations) run through the backbone once. Each row then adds its
own sentence, the shared part of the answer, and a branch for each label (`prefix_cache` has a picture). Architectures
for which that is not right get whole rows (`plain_rows`). Padding stands where no real token sees it, so batch size,
padding and cache change a score by rounding errors only. Logits are fp32 (`lm_head`).

Letters: B rows of a batch, T tokens, P prefix tokens, V vocabulary, K labels, N examples.
"""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from loraft.engine.layout import common_prefix
from loraft.engine.row_batches import batches_of, route_of, score_batch
from loraft.errors import BackboneError


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
    route = route_of(model, rows, endings, 1)
    log_probs_NK = np.zeros((len(rows), len(endings)))
    for batch in batches_of(model, rows, route, endings, batch_tokens):
        log_probs_NK[batch] = score_batch(model, route, [rows[i][route.prefix :] for i in batch], endings)
    if np.isnan(log_probs_NK).any():
        without = int(np.isnan(log_probs_NK).any(axis=1).sum())
        cause = "the adapter's training has probably diverged: repeat it with a lower train.learning_rate"
        if model.dtype == torch.float16:
            cause = "fp16 holds numbers up to 65,504, which this backbone probably exceeds: --set model.dtype=fp32"
        raise BackboneError(f"scoring: {without} of {len(rows)} rows have no score (got NaN); {cause}")
    return log_probs_NK


def to_probs(log_probs_NK: np.ndarray) -> np.ndarray:
    """Returns the labels' probabilities (N, K), normalised over the K labels: each row sums to 1."""
    shifted = log_probs_NK - log_probs_NK.max(axis=1, keepdims=True)
    exp_NK = np.exp(shifted)
    return np.asarray(exp_NK / exp_NK.sum(axis=1, keepdims=True))
