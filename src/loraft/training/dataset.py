"""Training rows as token ids, and how an adapter is scored on the validation split during training."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from loraft.config.schema import Config
from loraft.data.dataset import Split
from loraft.engine import scorer
from loraft.engine.collator import TrainingRow, make_rows
from loraft.evaluation import metrics
from loraft.models.encoder import Encoder, warn_of_cuts


@dataclass(frozen=True)
class TrainingData:
    """What a trainer works on.

    Attributes:
        rows: prompts and answers as token ids.
        tokenizer: whose padding token fills batches up.
        evaluate_with: takes the model in evaluation mode; returns its scores on the validation split, as fractions,
            and its log loss in nats as `loss`. `macro_f1` must be among them.
        truncated: training sentences that were shortened.
    """

    rows: list[TrainingRow]
    tokenizer: PreTrainedTokenizerBase
    evaluate_with: Callable[[Any], dict[str, float]]
    truncated: int = 0


def prepare(config: Config, encoder: Encoder, train_split: Split, validation: Split) -> TrainingData:
    """Returns the encoded training rows, and the function that scores a model on the validation split."""
    prompts = encoder.encode(train_split.texts)
    rows = make_rows(
        [p.ids for p in prompts], train_split.labels.tolist(), encoder.completions_K, config.train.class_weights
    )
    validation_prompts = encoder.encode(validation.texts)
    validation_ids = [prompt.ids for prompt in validation_prompts]
    truncated = warn_of_cuts(prompts, "training")
    warn_of_cuts(validation_prompts, "validation")

    def evaluate_with(current: Any) -> dict[str, float]:
        answers, unscored = encoder.completions_K, encoder.unscored
        log_probs_NK = scorer.score(
            current, validation_ids, answers, unscored=unscored, batch_tokens=config.eval.batch_tokens
        )
        probs_NK = scorer.to_probs(log_probs_NK)
        numbers = metrics.core(validation.labels, probs_NK.argmax(axis=1), len(encoder.task.labels))
        numbers["loss"] = metrics.log_loss(validation.labels, probs_NK)
        return numbers

    return TrainingData(rows, encoder.tokenizer, evaluate_with, truncated)
