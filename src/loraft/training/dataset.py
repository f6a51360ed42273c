"""One training from rows to a saved adapter: what `api.train` does between loading and judging."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loraft.config.schema import Config
from loraft.data.dataset import Split
from loraft.engine import scorer
from loraft.engine.collator import Row, make_rows
from loraft.evaluation import metrics
from loraft.models.encoder import Encoder, warn_of_cuts


@dataclass(frozen=True)
class Material:
    """What a training works on: its rows, how an adapter is judged on validation, and how many rows were shortened."""

    rows: list[Row]
    evaluate_with: Callable[[Any], dict[str, float]]
    truncated: int


def prepare(config: Config, encoder: Encoder, train_split: Split, validation: Split) -> Material:
    """Encodes the rows of a training."""
    prompts = encoder.encode(train_split.texts)
    rows = make_rows(
        [p.ids for p in prompts], train_split.labels.tolist(), encoder.completions_K, config.train.class_weights
    )
    validation_prompts = encoder.encode(validation.texts)
    validation_ids = [prompt.ids for prompt in validation_prompts]
    truncated = warn_of_cuts(prompts, "training")
    warn_of_cuts(validation_prompts, "validation")

    def evaluate_with(current: Any) -> dict[str, float]:
        log_probs_NK = scorer.score(
            current, validation_ids, encoder.completions_K, batch_tokens=config.eval.batch_tokens
        )
        probs_NK = scorer.to_probs(log_probs_NK)
        numbers = metrics.core(validation.labels, probs_NK.argmax(axis=1), len(encoder.task.labels))
        numbers["loss"] = metrics.log_loss(validation.labels, probs_NK)
        return numbers

    return Material(rows, evaluate_with, truncated)
