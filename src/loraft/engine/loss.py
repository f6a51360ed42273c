"""The training loss on the answer tokens of a batch, for each of the methods that can compute it.

Packed and padded batches of the same examples have the same loss and gradient. The LM head runs only on the
positions at which some row predicts an answer token.

Letters: A adapters, B rows of the batch, T tokens of a row, P prefix tokens, S cells of a suffix, Q positions that
predict an answer token, L answer tokens of the batch, V vocabulary.
"""

from enum import StrEnum
from typing import Any

import torch
import torch.nn.functional as F

from loraft.engine import key_ranges
from loraft.engine.architecture import takes
from loraft.engine.collator import IGNORE, uses_whole_row_attention
from loraft.engine.key_ranges import RangedLayout
from loraft.engine.layout import PackedSuffixes, head_counts, is_spread, no_mask, packed_layout
from loraft.engine.static_batch import StaticInputs


class BatchMethod(StrEnum):
    """How a training batch goes through the model, fastest first; the values are the words of messages."""

    FUSED = "fused layers"  # packed; `fused_layer` replaces the decoder layers
    ATTENTION = "shared-prefix attention"  # packed; `prefix_attention` replaces the attention function
    MASK = "dense mask"  # packed; the layers of transformers under a (T, T) mask
    PADDED = "padded batches"  # one right-padded row for each example, the layers of transformers and peft


def answer_loss_sum(
    model: torch.nn.Module,
    inputs: dict[str, torch.Tensor],
    dtype: torch.dtype,
    *,
    method: BatchMethod = BatchMethod.MASK,
) -> torch.Tensor:
    """Returns `answer_loss_sums` of one adapter, a scalar."""
    return answer_loss_sums(model, inputs, dtype, 1, method=method)[0]


def answer_loss_sums(
    model: torch.nn.Module,
    inputs: dict[str, torch.Tensor],
    dtype: torch.dtype,
    adapters: int,
    *,
    method: BatchMethod = BatchMethod.MASK,
) -> torch.Tensor:
    """Returns the weighted sum of -log p over the answer tokens of a batch, in nats, for each adapter: (A,).

    Args:
        model: runs the batch once in one forward pass, repeated along the first dimension for each adapter, in the
            order that `lora_linear.enabled` was given.
        inputs: a packed or a padded batch of `collator`.
        dtype: of the attention masks and biases; that of the backbone.
        adapters: A.
        method: of a packed batch; fused layers and shared-prefix attention must be enabled on the model. It is
            ignored for padded batches.
    """
    labels_BT = inputs["labels"]
    is_answer_BT = labels_BT != IGNORE
    # The columns before an answer token of any row predict it. In a padded batch not every row needs all of them.
    positions_Q = is_answer_BT.any(0).nonzero().squeeze(1) - 1
    needed_BQ = is_answer_BT[:, positions_Q + 1]
    packed = "segments" in inputs  # one row, which needs all Q positions
    kwargs: dict[str, Any] = {"input_ids": inputs["input_ids"].repeat(adapters, 1), "use_cache": False}
    # Few models cannot choose. Where the last layer is on another device than the first, the indices would be, too.
    chooses = takes(model, "logits_to_keep") and not is_spread(model)
    if chooses:
        kwargs["logits_to_keep"] = positions_Q
    if packed:
        kwargs["position_ids"] = inputs["position_ids"]
        kwargs["attention_mask"] = no_mask(dtype, labels_BT.device)
        # transformers hands keyword arguments that it does not know down to every decoder layer and its attention.
        if method is BatchMethod.FUSED:
            kwargs["layout"] = packed_layout(
                packed_suffixes(inputs, positions_Q),
                rows=adapters,
                tokens=labels_BT.shape[1],
                heads=head_counts(model),
                dtype=dtype,
            )
            kwargs["logits_to_keep"] = 0  # all: the last fused layer returns the Q positions only
        elif method is BatchMethod.ATTENTION:
            kwargs["suffix_index"] = inputs["suffix_index"].clamp(min=0)
            kwargs["suffix_slot"] = inputs["suffix_slot"]
        else:
            kwargs["attention_mask"] = shared_prefix_mask(inputs["segments"], dtype)
    else:
        kwargs["attention_mask"] = inputs["attention_mask"].repeat(adapters, 1)
    logits_BQV = model(**kwargs).logits  # B times A rows, adapter by adapter
    if not chooses:
        logits_BQV = logits_BQV[:, positions_Q]

    logits_LV = logits_BQV.flatten(0, 1) if packed else logits_BQV[needed_BQ.repeat(adapters, 1)]  # A times L rows
    targets_L = labels_BT[:, positions_Q + 1][needed_BQ].repeat(adapters)
    log_loss_L = F.cross_entropy(logits_LV.float(), targets_L, reduction="none")
    learns_AL = _learns(inputs["held_out"], adapters)
    return (log_loss_L.view(adapters, -1) * inputs["weights"] * learns_AL).sum(1)


def static_loss_sums(
    model: torch.nn.Module, inputs: StaticInputs, dtype: torch.dtype, *, method: BatchMethod
) -> torch.Tensor:
    """Returns what `answer_loss_sums` returns, of a batch of `static_batch`; never waits for the device.

    Args:
        model: as there.
        inputs: on the model's device.
        dtype: as there.
        method: FUSED, or MASK for any other layers.
    """
    tokens, kept, copies = inputs.size
    kwargs: dict[str, Any] = {"use_cache": False, "position_ids": inputs.positions_1T}
    keeps = takes(model, "logits_to_keep")
    if method is BatchMethod.FUSED:
        kwargs["attention_mask"] = no_mask(dtype, inputs.vector.device)
        heads = head_counts(model)
        kwargs["layout"] = RangedLayout(heads, copies, inputs.ranges, inputs.kept_K, inputs.last_ranges)
    else:
        hidden_TT = ~key_ranges.visible(inputs.ranges)
        mask_TT = torch.zeros((tokens, tokens), dtype=dtype, device=inputs.vector.device)
        kwargs["attention_mask"] = mask_TT.masked_fill_(hidden_TT, torch.finfo(dtype).min)[None, None]
        if keeps:
            kwargs["logits_to_keep"] = inputs.kept_K[:kept].long()
    logits_AKV = model(input_ids=inputs.ids_1T.repeat(copies, 1), **kwargs).logits
    if not keeps and method is not BatchMethod.FUSED:
        logits_AKV = logits_AKV[:, inputs.kept_K[:kept].long()]
    targets_L = inputs.targets_K.long().repeat(copies)
    log_loss_L = F.cross_entropy(logits_AKV.flatten(0, 1).float(), targets_L, reduction="none")
    return (log_loss_L.view(copies, kept) * inputs.weights_K * _learns(inputs.held_out_K, copies)).sum(1)


def _learns(held_out_L: torch.Tensor, adapters: int) -> torch.Tensor:
    """Returns whether each adapter learns from each answer token, (A, L)."""
    return held_out_L != torch.arange(adapters, device=held_out_L.device)[:, None]


def packed_suffixes(inputs: dict[str, torch.Tensor], positions_Q: torch.Tensor) -> PackedSuffixes:
    """Returns the suffixes of a packed batch as fused layers treat them.

    Whole-row attention takes the row as one suffix of T tokens without a prefix, under the mask of a packed row.
    Otherwise the suffixes follow the prefix, each with a causal mask.

    Args:
        inputs: a packed batch.
        positions_Q: indices in the row of the tokens that predict an answer token.
    """
    index_BS, segments_T = inputs["suffix_index"], inputs["segments"]
    batch, longest = index_BS.shape
    if uses_whole_row_attention(inputs):
        row_1T = torch.arange(len(segments_T), device=segments_T.device)[None]
        return PackedSuffixes(row_1T, visible(segments_T)[None], positions_Q[None], 0)
    causal_SS = torch.ones(longest, longest, dtype=torch.bool, device=segments_T.device).tril()
    prefix = len(segments_T) - len(inputs["suffix_slot"])
    return PackedSuffixes(index_BS, causal_SS.expand(batch, -1, -1), inputs["predicting"], prefix)


def shared_prefix_mask(segments_T: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns the additive attention mask of a packed row, (1, 1, T, T): 0 where a token sees another, else minimal."""
    visible_TT = visible(segments_T)
    mask_TT = torch.zeros(visible_TT.shape, dtype=dtype, device=segments_T.device)
    return mask_TT.masked_fill(~visible_TT, torch.finfo(dtype).min)[None, None]


def visible(segments_T: torch.Tensor) -> torch.Tensor:
    """Returns a boolean (T, T): entry [q, k] says whether token q of a packed row attends to token k.

    It does if k is at or before q, and in the prefix (segment 0) or in the segment of q.
    """
    causal_TT = torch.ones(len(segments_T), len(segments_T), dtype=torch.bool, device=segments_T.device).tril()
    return causal_TT & ((segments_T[None, :] == 0) | (segments_T[None, :] == segments_T[:, None]))
