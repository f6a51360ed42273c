"""Score rows that stream in, in groups of bounded size; while a GPU scores one, the next is read and encoded."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from loraft.data.records import BadRow, Example
from loraft.data.stream import FIRST, groups
from loraft.engine import scorer
from loraft.engine.row_batches import KeptPrefix
from loraft.models.prompts import warn_of_cuts
from loraft.progress import rows_scored

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from loraft.evaluation.predict import Loaded

PREDICT_ROWS, GPU_PREDICT_ROWS = 512, 2048  # rows scored together: bounds memory, does not change results
Group = TypeVar("Group", bound=Sequence[Any])
Started = TypeVar("Started")
# A group, what waits for its scores, and the token ids of the cached prefix.
_Started = tuple[Sequence[Example | BadRow], Callable[[], np.ndarray], list[int]]


def scored(
    rows: Iterable[Example | BadRow], loaded: "Loaded", kept: KeptPrefix, *, early: bool, wait: float | None = None
) -> Iterator[tuple[Sequence[Example | BadRow], np.ndarray, list[int]]]:
    """Yields groups of rows, the labels' scores of their examples, and the token ids of the prefix cached then.

    Args:
        rows: all rows.
        loaded: computes the scores.
        kept: the prefix; is brought up to date.
        early: the first group is a small one.
        wait: as in `predict`.
    """
    encoder, model = loaded.encoder, loaded.model
    batch_tokens = loaded.config.eval.batch_tokens

    def start(group: Sequence[Example | BadRow]) -> _Started:
        prompts = encoder.encode([item.text for item in group if isinstance(item, Example)])
        rows_scored(len(group) - len(prompts))  # the unreadable ones
        warn_of_cuts(prompts, "of these")
        ids, answers, unscored = [prompt.ids for prompt in prompts], encoder.completions_K, encoder.unscored
        fetch = scorer.start(model, ids, answers, unscored=unscored, batch_tokens=batch_tokens, kept=kept)
        return group, fetch, kept.ids

    overlap = computes_meanwhile(model)
    most = GPU_PREDICT_ROWS if overlap else PREDICT_ROWS
    grouped = groups(rows, most=most, first=FIRST if early else most, wait=wait, size=characters)
    for group, fetch, prefix in one_behind(grouped, start, overlap=overlap):
        yield group, fetch(), prefix


def characters(item: Example | BadRow) -> int:
    """Characters of a row's text and of its other columns."""
    if isinstance(item, BadRow):
        return 0
    return len(item.text) + sum(len(cell) for cell in item.extra.values() if isinstance(cell, str | bytes))


def computes_meanwhile(model: "PreTrainedModel") -> bool:
    """Says whether a model's device computes while Python goes on."""
    return str(model.device.type) != "cpu"


def one_behind(groups: Iterable[Group], start: Callable[[Group], Started], *, overlap: bool) -> Iterator[Started]:
    """Starts groups and yields what that returned; with `overlap` only after the next one has been started.

    An empty group hands out the one before it, as does the end or an error of the source.
    """
    waiting: list[Started] = []
    try:
        for group in groups:
            started = [start(group)] if group else []
            yield from waiting if overlap else started
            waiting = started if overlap else []
    except Exception:
        yield from waiting
        raise
    yield from waiting
