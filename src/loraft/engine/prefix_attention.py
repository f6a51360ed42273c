"""Attention over a packed row `[prefix | suffix 1 | suffix 2 | ...]` without a (T, T) mask.

The prefix attends to itself. Each suffix attends to itself, padded to the longest one, and all suffixes attend to the
prefix in one product a head. That is P * P + B S (P + S) pairs of tokens instead of T * T. The rest of the model
(linear layers, norms) works on the packed row as it is. `layout` has a picture of the row, and of the two index tables
that are used here.

The function is registered with transformers as an attention implementation. Without these tables, as in evaluation, it
is transformers' own SDPA attention.

Letters: A packed rows, T tokens of one, P prefix tokens, B suffixes, S cells of a suffix, H heads, D head size.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "loraft_shared_prefix"


def attend(  # noqa: PLR0913 - transformers calls it with these arguments
    module: torch.nn.Module,
    query_AHTD: torch.Tensor,
    key_AHTD: torch.Tensor,
    value_AHTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    suffix_index: torch.Tensor | None = None,
    suffix_slot: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Returns the attention output (A, T, H, D), and None for the weights, as transformers expects it.

    Args:
        module: the attention module, for transformers' own attention.
        query_AHTD: queries of A packed rows that all have the same index tables.
        key_AHTD: keys, possibly of fewer heads.
        value_AHTD: values of as many heads.
        attention_mask: for transformers' own attention.
        dropout: probability of dropping an attention weight.
        scaling: factor of the logits; None is 1 / sqrt(D).
        suffix_index: (B, S), index in the packed row of each suffix token, 0 for padding.
        suffix_slot: (T - P,), index in the flattened (B, S) of each suffix token of the row.
        **kwargs: for transformers' own attention.
    """
    if suffix_index is None or suffix_slot is None:
        output: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query_AHTD, key_AHTD, value_AHTD, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output
    groups = query_AHTD.shape[1] // key_AHTD.shape[1]
    key_AHTD, value_AHTD = repeat_kv(key_AHTD, groups), repeat_kv(value_AHTD, groups)
    rows, heads = query_AHTD.shape[:2]
    # Packed rows do not see each other, nor do heads. So rows become heads of one row: from here on H counts A times H.
    query_1HTD, key_1HTD, value_1HTD = (t.flatten(0, 1)[None] for t in (query_AHTD, key_AHTD, value_AHTD))
    prefix = query_1HTD.shape[2] - len(suffix_slot)
    batch, longest = suffix_index.shape
    scale = scaling if scaling is not None else query_1HTD.shape[-1] ** -0.5

    # 1. The prefix attends to itself.
    prefix_out_1HPD = F.scaled_dot_product_attention(
        query_1HTD[:, :, :prefix],
        key_1HTD[:, :, :prefix],
        value_1HTD[:, :, :prefix],
        dropout_p=dropout,
        scale=scale,
        is_causal=True,
    )

    def to_grid(tensor_1HTD: torch.Tensor) -> torch.Tensor:
        """From the packed row (T) to the padded suffixes (B, S)."""
        return tensor_1HTD[0].index_select(1, suffix_index.flatten()).unflatten(1, (batch, longest))

    # 2. Logits of the suffixes: against the one prefix as one product a head over B S queries, and against their own
    #    tokens that are not behind them. One softmax runs over both, P + S columns.
    query_HBSD, key_HBSD, value_HBSD = to_grid(query_1HTD), to_grid(key_1HTD), to_grid(value_1HTD)
    query_HRD = query_HBSD.flatten(1, 2)  # R = B S
    to_prefix_HBSP = (query_HRD @ key_1HTD[0, :, :prefix].transpose(1, 2)).unflatten(1, (batch, longest))
    to_suffix_HBSS = query_HBSD @ key_HBSD.transpose(2, 3)
    future_SS = torch.ones(longest, longest, dtype=torch.bool, device=query_1HTD.device).triu(1)
    logits_HBSK = torch.cat([to_prefix_HBSP, to_suffix_HBSS.masked_fill(future_SS, float("-inf"))], dim=3)
    probs_HBSK = (logits_HBSK.float() * scale).softmax(-1).to(query_1HTD.dtype)
    probs_HBSK = F.dropout(probs_HBSK, dropout, training=dropout > 0)

    # 3. Weighted sums of the values, in two products again; then back from the grid to the packed row.
    from_prefix_HRD = probs_HBSK[..., :prefix].flatten(1, 2) @ value_1HTD[0, :, :prefix]
    suffix_out_HRD = from_prefix_HRD + (probs_HBSK[..., prefix:] @ value_HBSD).flatten(1, 2)
    suffix_out_THD = suffix_out_HRD.transpose(0, 1).index_select(0, suffix_slot)  # the T - P suffix tokens
    out_THD = torch.cat([prefix_out_1HPD[0].transpose(0, 1), suffix_out_THD])
    return out_THD.unflatten(1, (rows, heads)).transpose(0, 1), None


def supports(model: PreTrainedModel) -> bool:
    """Says whether the model's attention is what `attend` computes: causal, without soft cap, window and sinks."""
    config = model.config.get_text_config()
    return (
        config._attn_implementation in ("sdpa", NAME)
        and getattr(config, "attn_logit_softcapping", None) is None
        and getattr(config, "sliding_window", None) is None
        and getattr(config, "is_causal", True)  # false in embedding models such as gte-Qwen2: transformers obeys it
        and config.model_type in ("llama", "qwen2", "qwen3", "gpt_neox", "mistral", "phi3", "olmo2", "smollm3")
    )


@contextmanager
def enabled(model: PreTrainedModel) -> Iterator[None]:
    """Inside the block, the model uses this attention."""
    before = model.config.get_text_config()._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
