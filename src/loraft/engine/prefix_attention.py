"""Attention over a packed row `[prefix | suffix 1 | suffix 2 | ...]` without the dense T x T mask.

The prefix attends to itself; all suffixes attend to the one prefix in one product a head, and each to itself, padded
to the longest. The work falls from T^2 to P^2 + B S (P + S), and the mask from T^2 to S^2. Everything else in the
model (projections, norms, feed-forward) still runs on the packed row.

The function is registered with transformers as an attention implementation; without a layout, in evaluation for
instance, it is transformers' own SDPA attention.

Suffixes: B suffixes, T packed tokens, P prefix tokens, S tokens of the longest suffix, H heads, D head size.
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


def attend(
    module: torch.nn.Module,
    query_1HTD: torch.Tensor,
    key_1HTD: torch.Tensor,
    value_1HTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    suffix_index: torch.Tensor | None = None,
    suffix_place: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Returns the attention output of shape (1, T, H, D), as transformers expects it.

    The first dimension may be larger: packed rows of one layout, as several adapters have them.

    Args:
        suffix_index: (B, S), the place in the packed row of each suffix token, 0 for padding.
        suffix_place: (T - P,), where in the flattened (B, S) each packed suffix token stands.
    """
    if suffix_index is None or suffix_place is None:
        output: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query_1HTD, key_1HTD, value_1HTD, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output
    groups = query_1HTD.shape[1] // key_1HTD.shape[1]
    key_1HTD, value_1HTD = repeat_kv(key_1HTD, groups), repeat_kv(value_1HTD, groups)
    packed, heads = query_1HTD.shape[:2]
    # packed rows do not see each other, just as heads do not
    query_1HTD, key_1HTD, value_1HTD = (tensor.flatten(0, 1)[None] for tensor in (query_1HTD, key_1HTD, value_1HTD))
    prefix = query_1HTD.shape[2] - len(suffix_place)
    batch, longest = suffix_index.shape
    scale = scaling if scaling is not None else query_1HTD.shape[-1] ** -0.5
    head_1HPD = F.scaled_dot_product_attention(
        query_1HTD[:, :, :prefix],
        key_1HTD[:, :, :prefix],
        value_1HTD[:, :, :prefix],
        dropout_p=dropout,
        scale=scale,
        is_causal=True,
    )

    def suffixes(tensor_1HTD: torch.Tensor) -> torch.Tensor:
        return tensor_1HTD[0].index_select(1, suffix_index.flatten()).unflatten(1, (batch, longest))

    query_HBSD, key_HBSD, value_HBSD = suffixes(query_1HTD), suffixes(key_1HTD), suffixes(value_1HTD)
    rows_HRD = query_HBSD.flatten(1, 2)  # the prefix's keys are the same for all rows: one product a head, R = B S
    to_prefix_HBSP = (rows_HRD @ key_1HTD[0, :, :prefix].transpose(1, 2)).unflatten(1, (batch, longest))
    to_suffix_HBSS = query_HBSD @ key_HBSD.transpose(2, 3)
    future_SS = torch.ones(longest, longest, dtype=torch.bool, device=query_1HTD.device).triu(1)
    logits_HBSK = torch.cat([to_prefix_HBSP, to_suffix_HBSS.masked_fill(future_SS, float("-inf"))], dim=3)
    probs_HBSK = (logits_HBSK.float() * scale).softmax(-1).to(query_1HTD.dtype)
    probs_HBSK = F.dropout(probs_HBSK, dropout, training=dropout > 0)
    from_prefix_HRD = probs_HBSK[..., :prefix].flatten(1, 2) @ value_1HTD[0, :, :prefix]
    tails_HRD = from_prefix_HRD + (probs_HBSK[..., prefix:] @ value_HBSD).flatten(1, 2)
    tails_THD = tails_HRD.transpose(0, 1).index_select(0, suffix_place)
    out_THD = torch.cat([head_1HPD[0].transpose(0, 1), tails_THD])
    return out_THD.unflatten(1, (packed, heads)).transpose(0, 1), None


def supports(model: PreTrainedModel) -> bool:
    """Says whether the model's attention is plain SDPA: no soft cap, no window, no sinks."""
    config = model.config.get_text_config()
    return (
        config._attn_implementation in ("sdpa", NAME)
        and getattr(config, "attn_logit_softcapping", None) is None
        and getattr(config, "sliding_window", None) is None
        and config.model_type in ("llama", "qwen2", "qwen3", "gpt_neox", "mistral", "phi3", "olmo2", "smollm3")
    )


@contextmanager
def enabled(model: PreTrainedModel) -> Iterator[None]:
    """Lets the model use this attention inside the block."""
    before = model.config.get_text_config()._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
