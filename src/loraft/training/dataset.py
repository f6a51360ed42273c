"""Training rows as token ids, and how an adapter is scored on the validation split during training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from loraft.config.schema import Config
from loraft.data.dataset import Split
from loraft.engine import scorer
from loraft.engine.collator import TrainingRow, TrainingRows, make_rows, question_rows
from loraft.engine.probabilities import to_probs
from loraft.evaluation import metrics, multilabel
from loraft.evaluation.choosing import DEFAULT, Metric
from loraft.models.encoder import Encoder
from loraft.models.prompts import cut_share, warn_of_cuts
from loraft.progress import ROWS, Stage


@dataclass(frozen=True)
class TrainingData:
    """What a trainer works on.

    Attributes:
        rows: prompts and answers as token ids.
        tokenizer: whose padding token fills batches up.
        evaluate_with: takes the model in evaluation mode; returns its scores on the validation split, as fractions,
            its log loss in nats a sentence as `loss`, and as `answer_loss` what training minimises, in nats an answer
            token. `metric.key` must be among them.
        truncated: training sentences that were shortened.
        cut: share of all their tokens that were left out.
        evaluate_adapters: takes the model and the names of several adapters; returns what `evaluate_with` returns for
            each of them, and None for one whose scores are NaN. None where one after the other is as fast.
        metric: picks the checkpoint.
        numbers: the number in the data of the sentence of each row, for messages.
        at_most: rows of a batch where larger ones ran out of memory; else None.
    """

    rows: Sequence[TrainingRow]
    tokenizer: PreTrainedTokenizerBase
    evaluate_with: Callable[[Any], dict[str, float]]
    truncated: int = 0
    cut: float = 0.0
    evaluate_adapters: Callable[[Any, Sequence[str]], list[dict[str, float] | None]] | None = None
    metric: Metric = DEFAULT
    numbers: Sequence[int] | np.ndarray = ()
    at_most: int | None = None


def prepare(config: Config, encoder: Encoder, train_split: Split, validation: Split) -> TrainingData:
    """Returns the encoded training rows, and the function that scores a model on the validation split."""
    prompts = encoder.encode(train_split.texts)
    several, num_labels = encoder.task.kind == "multilabel", len(encoder.task.labels)

    def rows_of(ids: Sequence[list[int]], split: Split, weights: str) -> TrainingRows:
        if several:
            return question_rows(ids, split.label_sets(num_labels), encoder.completions_K, weights)
        return make_rows(ids, split.labels, encoder.completions_K, weights)

    rows = rows_of(prompts.ids, train_split, config.train.class_weights)
    validation_prompts = encoder.encode(validation.texts)
    validation_ids = list(validation_prompts.ids)
    answers_M = rows_of(validation_ids, validation, "none").answers_N
    truncated = warn_of_cuts(prompts, "training")
    warn_of_cuts(validation_prompts, "validation")

    labels_N, metric = validation.label_sets(num_labels) if several else validation.labels, Metric.of(config)
    given: dict[str, Any] = {"unscored": encoder.unscored, "batch_tokens": config.eval.batch_tokens}
    given["given_K"] = rows.given_K

    def numbers_of(found: np.ndarray) -> dict[str, float]:
        log_probs_NK, learnt_NK = np.split(found, 2, axis=1)
        return {**scores_of(log_probs_NK), "answer_loss": rows.mean_loss(learnt_NK, answers_M)}

    def scores_of(log_probs_NK: np.ndarray) -> dict[str, float]:
        if several:
            probs_NK = multilabel.probabilities(log_probs_NK)
            numbers = multilabel.numbers(labels_N, probs_NK)
            if (k := metric.label) is not None:  # of one label alone, whose threshold is its own
                numbers[metric.key] = multilabel.numbers(labels_N[:, [k]], probs_NK[:, [k]])["micro_f1"]
            return numbers
        probs_NK = to_probs(log_probs_NK)
        predictions_N = probs_NK.argmax(axis=1)
        numbers = metrics.core(labels_N, predictions_N, num_labels)
        numbers[metric.key] = metric.value(metrics.confusion(labels_N, predictions_N, num_labels))
        numbers["loss"] = metrics.log_loss(labels_N, probs_NK)
        return numbers

    def evaluate_with(current: Any) -> dict[str, float]:
        with Stage("scoring validation", len(validation_ids), ROWS):
            return numbers_of(scorer.score(current, validation_ids, encoder.completions_K, **given))

    def evaluate_adapters(current: Any, adapters: Sequence[str]) -> list[dict[str, float] | None]:
        with Stage("scoring validation", len(validation_ids), ROWS):
            scores_ANK = scorer.score_adapters(current, adapters, validation_ids, encoder.completions_K, **given)
        return [None if np.isnan(scores_NK).any() else numbers_of(scores_NK) for scores_NK in scores_ANK]

    cut = cut_share(prompts)
    numbers = np.repeat(
        train_split.examples.rows, len(rows) // len(train_split)
    )  # of several labels a row, each is a training row
    return TrainingData(rows, encoder.tokenizer, evaluate_with, truncated, cut, evaluate_adapters, metric, numbers)
