"""What a backbone's architecture allows the fast paths to do, read off its config and its forward method.

Trees of branches, packed rows and cached prefixes put a token elsewhere in a row than in its text, and tell the model
so by position ids and by a mask that lets each token see all tokens before it. That is right for global attention
alone. A sliding window or attention chunks hide tokens that are far away, which changes nothing in rows that are
shorter. A recurrent layer reads its tokens in order, and ALiBi takes distances from places in the row. Rotary
frequencies of some backbones change with the length of the row.
"""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

from loraft.engine.layout import unwrap

UNLIMITED = 2**31
ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}  # values of `layer_types` in a config
WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")  # names of their sizes, in tokens


def longest_fast_row(model: Any) -> tuple[int, str]:
    """Returns how many tokens a row may have in the fast paths, with its answer, and what limits them, in words.

    0 means that no row may. Where the config does not show a limit, it is for a comparison with plain rows to find:
    `plain_rows.needed` in scoring, `first_batch_check` in training.
    """
    base = unwrap(model)
    config = base.config.get_text_config(decoder=True)
    types = set(getattr(config, "layer_types", None) or ())
    if base._is_stateful or types - ATTENTION:
        return 0, "layers of this backbone are recurrent or no plain attention"
    if getattr(config, "alibi", False) or not takes(base, "position_ids"):
        return 0, "this backbone takes no position ids"
    window = min((getattr(config, name, None) or UNLIMITED for name in WINDOWS), default=UNLIMITED)
    if types == {"full_attention"}:
        window = UNLIMITED
    rope = rope_limit(model)
    if rope < window:
        return rope, f"this backbone's rotary frequencies change in rows of more than {rope:,} tokens"
    return window, f"rows are longer than this backbone's attention window of {window:,} tokens"


def rope_limit(model: Any) -> int:
    """Returns the number of tokens up to which a row's rotary frequencies do not depend on its length.

    Longer rows have a second set of frequencies (longrope), or one for each length (dynamic). transformers takes those
    of the longest position in a batch, and padding has positions, too. So a row beyond the limit belongs in a batch of
    rows as long as itself, and a shorter one in a batch of shorter ones.

    Source: transformers, `modeling_rope_utils.dynamic_rope_update`.
    """
    config = unwrap(model).config.get_text_config(decoder=True)
    own = getattr(config, "rope_parameters", None) or {}
    limits = [UNLIMITED]
    for rope in (own, *(value for value in own.values() if isinstance(value, dict))):  # by type of layer, in some
        kind = rope.get("rope_type") or ""
        if kind == "longrope":
            limits.append(rope["original_max_position_embeddings"])
        elif "dynamic" in kind:  # a row of as many tokens as there are positions keeps those of a longer one before it
            limits.append(config.max_position_embeddings - 1)
    return min(limits)


def takes(model: Any, argument: str) -> bool:
    """Says whether the model's forward method names the argument."""
    forward: Callable[..., Any] = type(unwrap(model)).forward
    return argument in _arguments(forward)


@cache  # every training step asks
def _arguments(forward: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(forward).parameters)
