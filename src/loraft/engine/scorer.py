"""Scores labels by the log-probability of their answers after a prompt, exactly.

Evaluation, few-shot studies, sweeps and prediction all use this file. The score of a label is the sum of the
log-probabilities of its answer's tokens after those that all answers share, which would add the same to each label. The
end of turn is left out, unless `prompt.score_end_of_turn` asks for it or one answer is the beginning of another: only
there does it tell two answers apart (`docs/decisions/0003-small-decisions.md` has the measurement).

The tokens that all prompts share (instruction, demonstrations) run through the backbone once. Each row then adds its
own sentence, the shared part of the answer, and a branch for each label (`prefix_cache` has a picture). Architectures
for which that is not right get whole rows (`plain_rows`). Padding stands where no real token sees it, so batch size,
padding and cache change a score by rounding errors only. Logits are fp32 (`lm_head`).

Letters: N examples, K labels, A adapters.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from loraft import distributed
from loraft.engine import ranged_rows
from loraft.engine.answers import Answers, answers_of, score_reader
from loraft.engine.architecture import UNLIMITED, longest_fast_row
from loraft.engine.layout import common_prefix
from loraft.engine.no_gradients import no_gradients
from loraft.engine.row_batches import KeptPrefix, read_rows
from loraft.errors import BackboneError
from loraft.progress import rows_scored


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


def score(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    completions_K: Sequence[Sequence[int]],
    *,
    unscored: int = 1,
    batch_tokens: int | None = None,
    given_K: Sequence[int] | None = None,
) -> np.ndarray:
    """Returns each label's score after each prompt, in nats: (N, K), float64; with `given_K` (N, 2 K).

    The score is the log-probability of the answer's tokens after those that all answers share. Processes that work
    together (`distributed.together`) score a share of the rows each, and get the scores of all.

    Args:
        model: a causal language model (or a PeftModel) in evaluation mode.
        prompts: N token-id lists that end where the answer begins.
        completions_K: K token-id lists, each ending in the end-of-turn token.
        unscored: as in `answer_tokens`; `Encoder.unscored` has it.
        batch_tokens: largest product of rows and padded suffix length in one forward pass; on a GPU the most tokens of
            one; None chooses by device.
        given_K: tokens at the beginning of each answer that training has no loss for; K more columns then hold the
            log-probability of all its other tokens, the end of turn among them: what training maximises.

    Raises:
        BackboneError: if a score is not a number, as after a training that diverged, or over damaged weights.
    """
    shared, needed = _needed(completions_K, unscored, given_K)

    def of_share(rows: Sequence[Sequence[int]]) -> np.ndarray:
        log_probs_NK: np.ndarray = _started(model, rows, shared, needed, batch_tokens)()[0]
        rows_scored(len(prompts) - len(rows))  # by the other processes
        return log_probs_NK

    found = distributed.shared_out(prompts, of_share)
    return _checked(model, np.asarray(found).reshape(len(prompts), len(needed.steps_K)))


def start(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    completions_K: Sequence[Sequence[int]],
    *,
    unscored: int = 1,
    batch_tokens: int | None = None,
    kept: KeptPrefix | None = None,
    given_K: Sequence[int] | None = None,
) -> Callable[[], np.ndarray]:
    """Returns a function that returns and raises what `score` does. A GPU computes the scores in the meantime.

    Args:
        model: as in `score`, like the arguments below.
        prompts: N token-id lists.
        completions_K: K token-id lists.
        unscored: as in `answer_tokens`.
        batch_tokens: the size of batches.
        kept: keeps the cached prefix for the next call; the model's weights must not change between the two.
        given_K: as in `score`.
    """
    fetch = _started(model, prompts, *_needed(completions_K, unscored, given_K), batch_tokens, kept=kept)

    def finished() -> np.ndarray:
        return _checked(model, fetch()[0])

    return finished


def _checked(model: PreTrainedModel, log_probs_NK: np.ndarray) -> np.ndarray:
    """Returns the scores of all rows; raises `BackboneError` if one is not a number."""
    if np.isnan(log_probs_NK).any():
        without = int(np.isnan(log_probs_NK).any(axis=1).sum())
        # An adapter is peft's, or hooks on layers (`models.lora_hooks`).
        adapted = hasattr(model, "peft_config") or any(layer._forward_hooks for layer in model.modules())
        cause = "weights of the backbone are NaN or infinite: get its files again"
        if adapted:
            cause = "the adapter's training diverged: repeat it with a lower train.learning_rate"
        if model.dtype == torch.float16:
            cause += "; or fp16, which holds numbers up to 65,504, overflows: --set model.dtype=fp32"
        raise BackboneError(f"scoring: {without} of {len(log_probs_NK)} rows have no score (got NaN); probably {cause}")
    return log_probs_NK


def score_adapters(
    model: Any,
    adapters: Sequence[str],
    prompts: Sequence[Sequence[int]],
    completions_K: Sequence[Sequence[int]],
    *,
    unscored: int = 1,
    batch_tokens: int | None = None,
    given_K: Sequence[int] | None = None,
) -> np.ndarray:
    """Returns what `score` returns for each adapter of a model, (A, N, K), from one pass over the frozen weights.

    Scores of an adapter that diverged are NaN.

    Args:
        model: a PeftModel in evaluation mode; `scores_together` has accepted it.
        adapters: names of A adapters, the smaller ranks first.
        prompts: as in `score`, like the arguments below.
        completions_K: K token-id lists.
        unscored: as in `answer_tokens`.
        batch_tokens: the size of batches, all adapters together.
        given_K: as in `score`.
    """
    from loraft.engine import lora_linear  # imports peft, which takes long and which prediction does not need

    needed = _needed(completions_K, unscored, given_K)
    with lora_linear.enabled(model, adapters), lora_linear.active_in_evaluation(model):
        fetch = _started(model, prompts, *needed, batch_tokens, copies=len(adapters))
    return np.asarray(fetch())


def scores_together(model: Any) -> bool:
    """Says whether `score_adapters` is right for a PeftModel, and faster than one adapter after the other.

    On a CPU it is not: there the arithmetic takes the time, and it is the same. Rows beyond a limit of the architecture
    run whole, which serves one adapter.
    """
    from loraft.engine import lora_linear

    limited = longest_fast_row(model)[0] < UNLIMITED
    return ranged_rows.suits(model) and lora_linear.supports(model) and not limited


def _needed(
    completions_K: Sequence[Sequence[int]], unscored: int, given_K: Sequence[int] | None
) -> tuple[list[int], Answers]:
    """Returns the tokens that all scored answers begin with, and what is needed behind a row that ends in them."""
    answers = answer_tokens(completions_K, unscored)
    shared_tokens = common_prefix(answers)
    shared, endings = answers[0][:shared_tokens], [ids[shared_tokens:] for ids in answers]
    if given_K is None:
        return shared, answers_of(endings)
    # Logit n of the row's last `shared_tokens + 1` tokens predicts the shared token n.
    whole = answers_of([ids[shared_tokens:] for ids in completions_K], last=shared_tokens + 1)
    scored = [steps[: len(ending)] for steps, ending in zip(whole.steps_K, endings, strict=True)]
    learnt = [[*enumerate(shared), *steps][given:] for steps, given in zip(whole.steps_K, given_K, strict=True)]
    return shared, whole._replace(steps_K=[*scored, *learnt])


@no_gradients
def _started(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    shared: list[int],
    needed: Answers,
    batch_tokens: int | None,
    *,
    kept: KeptPrefix | None = None,
    copies: int = 1,
) -> Callable[[], np.ndarray]:
    """Returns a function that waits for the scores of A adapters, (A, N, K)."""
    rows = [[*prompt, *shared] for prompt in prompts]
    if not rows:
        return lambda: np.zeros((copies, 0, len(needed.steps_K)))
    read = score_reader(needed, model.device)
    return read_rows(model, rows, needed, read, batch_tokens=batch_tokens, kept=kept, copies=copies)
