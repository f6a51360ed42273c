"""The commands as plain functions: train, evaluate, predict. Scripts and the command line call these."""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loraft.config.resolve import load_resolved
from loraft.config.schema import Config
from loraft.data.records import BadRow, Example
from loraft.data.stream import groups
from loraft.engine import scorer
from loraft.models.encoder import warn_of_cuts
from loraft.models.load import load_run
from loraft.runs.run import Run

PREDICT_ROWS = 512  # rows scored together; bounds memory, not results


@dataclass(frozen=True)
class Prediction:
    """One row's answer. `label` is None where the row is bad (`error` says why) or below the asked confidence."""

    row: int
    text: str
    label: str | None
    probs: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


def predict(
    inputs: Iterable[str | Example | BadRow],
    *,
    run: Path,
    min_confidence: float | None = None,
    config: Config | None = None,
    wait: float | None = None,
) -> Iterator[Prediction]:
    """Yields one prediction a row, in order; rows are scored together, a few first and then many at a time.

    Args:
        inputs: sentences or rows; a BadRow comes back as a prediction with its `error`.
        run: directory of a finished run.
        min_confidence: in [0, 1]; a row whose best label has a lower probability stays undecided (label None).
        config: the run's own by default.
        wait: seconds that a row waits for others to be scored with it, for inputs that come slowly; they are then read
            in a thread of their own. None waits until there are enough.
    """
    opened = Run.open(run)
    config = config or load_resolved(opened.config_path)
    encoder, model = load_run(opened, config, for_good=True)
    labels = encoder.task.labels
    rows = (
        Example(unicodedata.normalize("NFC", item), None, row) if isinstance(item, str) else item
        for row, item in enumerate(inputs, start=1)
    )
    for group in groups(rows, most=PREDICT_ROWS, wait=wait):
        good = [item for item in group if isinstance(item, Example)]
        prompts = encoder.encode([item.text for item in good])
        warn_of_cuts(prompts, "of these")
        ids = [prompt.ids for prompt in prompts]
        log_probs_NK = scorer.score(model, ids, encoder.completions_K, batch_tokens=config.eval.batch_tokens)
        probs = iter(scorer.to_probs(log_probs_NK))
        for item in group:
            if isinstance(item, BadRow):
                yield Prediction(item.row, "", None, error=item.reason)
                continue
            probs_K = next(probs)
            best = int(probs_K.argmax())
            sure = min_confidence is None or probs_K[best] >= min_confidence
            named = {label: float(p) for label, p in zip(labels, probs_K, strict=True)}
            yield Prediction(item.row, item.text, labels[best] if sure else None, named, item.extra)
