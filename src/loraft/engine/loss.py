"""A training batch as tensors: packed behind a shared prefix, or padded; and the loss on its answers.

The prompt is long and the same for every row; the sentence is short. A packed batch is one row
`[prefix | suffix 1 | suffix 2 | ...]`: the longest common token-id prefix once, each suffix seeing the prefix and
itself, positions restarting after the prefix. The gradient flows through the prefix, so loss and gradient are those of
the padded batch; with LoRA dropout one mask serves the prefix of all rows. The LM head runs on the positions that
predict an answer token only.

Suffixes: B batch, T tokens, P prefix tokens, S tokens of the longest suffix, V vocabulary, A answer tokens.
"""

from typing import Any

import torch
import torch.nn.functional as F

from loraft.engine.collator import IGNORE, Way, is_square
from loraft.engine.layout import grid, no_mask, packed_layout


def answer_loss_sum(
    model: torch.nn.Module, inputs: dict[str, torch.Tensor], dtype: torch.dtype, *, way: Way = "mask"
) -> torch.Tensor:
    """Returns the weighted sum over all answer tokens of -log p, in nats, of a packed or a padded batch.

    A packed batch goes one `way`: with `fused` layers, or with `prefix_attention`, either of which the model must have
    been given, or with a dense mask in `dtype`.
    """
    return answer_loss_sums(model, inputs, dtype, 1, way=way)[0]


def answer_loss_sums(
    model: torch.nn.Module, inputs: dict[str, torch.Tensor], dtype: torch.dtype, adapters: int, *, way: Way = "mask"
) -> torch.Tensor:
    """Returns the weighted sum over all answer tokens of -log p, in nats, for each of several adapters at once.

    The batch goes through the model once for every adapter, one after the other along the first dimension, as
    `lowrank.enabled` expects it.
    """
    labels = inputs["labels"]
    answer_BT = labels != IGNORE
    positions = answer_BT.any(0).nonzero().squeeze(1) - 1  # the position before an answer token predicts it
    kept_BT = answer_BT[:, positions + 1]
    kwargs: dict[str, Any] = {"input_ids": inputs["input_ids"].repeat(adapters, 1), "use_cache": False}
    kwargs["logits_to_keep"] = positions
    if "segments" in inputs:
        kwargs["position_ids"] = inputs["position_ids"]
        kwargs["attention_mask"] = no_mask(dtype, labels.device)  # of all ways but the dense mask's
        if way == "layers":
            heads, groups = grid(model)
            kwargs["layout"] = packed_layout(
                *_suffixes(inputs, positions), rows=adapters, tokens=labels.shape[1], heads=heads, groups=groups,
                dtype=dtype,
            )  # fmt: skip
            kwargs["logits_to_keep"] = 0  # the last layer has kept these alone
        elif way == "attention":
            kwargs["suffix_index"] = inputs["suffix_index"].clamp(min=0)
            kwargs["suffix_place"] = inputs["suffix_place"]
        else:
            kwargs["attention_mask"] = shared_prefix_mask(inputs["segments"], dtype)
    else:
        kwargs["attention_mask"] = inputs["attention_mask"].repeat(adapters, 1)
    logits_BTV = model(**kwargs).logits
    targets_A = labels[:, positions + 1][kept_BT].repeat(adapters)
    packed = "segments" in inputs  # then all of these positions are kept
    logits_AV = logits_BTV.flatten(0, 1) if packed else logits_BTV[kept_BT.repeat(adapters, 1)]
    log_loss_A = F.cross_entropy(logits_AV.float(), targets_A, reduction="none")
    return (log_loss_A.view(adapters, -1) * inputs["weights"]).sum(1)


def _suffixes(
    inputs: dict[str, torch.Tensor], positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """Returns the first arguments of `packed_layout`: suffixes behind the prefix, or the whole row as one suffix."""
    suffix_BS, segments_T = inputs["suffix_index"], inputs["segments"]
    batch, longest = suffix_BS.shape
    if inputs["square"] if "square" in inputs else is_square(inputs):
        whole_1T = torch.arange(len(segments_T), device=segments_T.device)[None]
        return whole_1T, seen(segments_T)[None], positions[None], 0
    see_SS = torch.ones(longest, longest, dtype=torch.bool, device=segments_T.device).tril()
    return suffix_BS, see_SS.expand(batch, -1, -1), inputs["predicting"], len(segments_T) - len(inputs["suffix_place"])


def shared_prefix_mask(segments_T: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns the additive mask (1, 1, T, T): causal, and a suffix sees the prefix and itself only."""
    see_TT = seen(segments_T)
    mask_TT = torch.zeros(see_TT.shape, dtype=dtype, device=segments_T.device)
    return mask_TT.masked_fill(~see_TT, torch.finfo(dtype).min)[None, None]


def seen(segments_T: torch.Tensor) -> torch.Tensor:
    """Returns which token sees which one, a boolean (T, T): causal, and no suffix sees another suffix."""
    causal_TT = torch.ones(len(segments_T), len(segments_T), dtype=torch.bool, device=segments_T.device).tril()
    return causal_TT & ((segments_T[None, :] == 0) | (segments_T[None, :] == segments_T[:, None]))
