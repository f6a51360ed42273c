"""What a backbone's architecture allows the fast paths to do, read off its config and its forward method.

Trees of branches, packed rows and cached prefixes put a token elsewhere in a row than in its text, and tell the model
so by position ids and by a mask that lets each token see all tokens before it. That is right for global attention
alone. A sliding window or attention chunks hide tokens that are far away, which changes nothing in rows that are
shorter. A recurrent layer reads its tokens in order, and ALiBi takes distances from places in the row.
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
    if window == UNLIMITED or types == {"full_attention"}:
        return UNLIMITED, ""
    return window, f"rows are longer than this backbone's attention window of {window:,} tokens"


def takes(model: Any, argument: str) -> bool:
    """Says whether the model's forward method names the argument."""
    forward: Callable[..., Any] = type(unwrap(model)).forward
    return argument in _arguments(forward)


@cache  # every training step asks
def _arguments(forward: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(forward).parameters)
