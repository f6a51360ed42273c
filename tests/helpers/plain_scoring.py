"""Label scores by one full forward pass for each row and label: the reference for the scorer."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from loraft.engine.layout import common_prefix
from loraft.engine.scorer import answer_tokens


@torch.inference_mode()
def score_plainly(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], completions_K: Sequence[Sequence[int]]
) -> np.ndarray:
    """Returns what `score` returns, (N, K), without cache, padding or branches."""
    answers = answer_tokens(completions_K)
    shared_tokens = common_prefix(answers)
    log_probs_NK = np.zeros((len(prompts), len(answers)))
    for n, prompt in enumerate(prompts):
        for k, answer in enumerate(answers):
            ids = [*prompt, *answer]
            ids_1T = torch.tensor([ids[:-1]], device=model.device)
            log_probs_TV = model(input_ids=ids_1T, use_cache=False).logits[0].float().log_softmax(-1)
            positions = range(len(prompt) + shared_tokens, len(ids))
            log_probs_NK[n, k] = sum(float(log_probs_TV[t - 1, ids[t]]) for t in positions)
    return log_probs_NK
