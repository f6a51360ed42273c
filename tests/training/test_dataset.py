"""The rows of a training, and the scores of a model on the validation split."""

import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import label_sets
from helpers.tiny import LABELS, SENTENCES, encoder, prompts
from helpers.training import rows, split, with_adapter

from loraft.config.resolve import resolve
from loraft.config.schema import Config, TrainConfig
from loraft.engine import scorer
from loraft.engine.collator import question_rows
from loraft.training.dataset import prepare
from loraft.training.trainer import LabelTrainer

LONG = "bài tập hơi nhiều , chưa có đáp án " * 150  # more than 1,024 tokens


def config(*overrides: str) -> Config:
    return resolve(overrides=list(overrides))


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_rows_are_prompts_with_their_answers_and_weights(class_weights: str) -> None:
    train, validation = split("train", SENTENCES, LABELS), split("validation", SENTENCES[:1], [1])
    data = prepare(config(f"train.class_weights={class_weights}"), encoder(), train, validation)
    assert list(data.rows) == rows(class_weights)
    assert data.tokenizer is encoder().tokenizer
    assert data.truncated == 0


def test_validation_is_scored_by_label_and_by_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    # Label ids 0, 1, 2, 2; predicted 0, 0, 2, 2.
    probs_NK = np.array([[0.5, 0.25, 0.25], [0.6, 0.2, 0.2], [0.1, 0.1, 0.8], [0.3, 0.2, 0.5]])

    def score(*args: Any, **named: Any) -> np.ndarray:
        given.extend([*args, named])
        return np.hstack([np.log(probs_NK), np.full((4, 3), -0.5)])

    monkeypatch.setattr(scorer, "score", score)
    data = prepare(
        config("eval.batch_tokens=123"), encoder(), split("train", SENTENCES, LABELS),
        split("validation", SENTENCES[:4], [0, 1, 2, 2]),
    )  # fmt: skip
    numbers = data.evaluate_with("the model")
    named = {"unscored": 1, "batch_tokens": 123, "given_K": [0, 0, 0]}
    assert given == ["the model", prompts(SENTENCES[:4]), encoder().completions_K, named]
    assert numbers["accuracy"] == 3 / 4
    # F1 of label 0: precision 1/2, recall 1; of label 1: never predicted; of label 2: 1
    assert numbers["macro_f1"] == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert numbers["loss"] == pytest.approx(-math.log(0.5 * 0.2 * 0.8 * 0.5) / 4)


@pytest.mark.parametrize("kind", ["nominal", "multilabel"])
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_the_losses_of_training_and_validation_are_one_quantity_in_nats_an_answer_token(
    kind: str, class_weights: str, tmp_path: Path
) -> None:
    """Of the same rows: what the trainer logs, what an evaluation logs, and a plain pass over each whole row."""
    several = kind == "multilabel"
    answers: list[Any] = [(0, 2), (), (1,), (0,), (2,), (1, 2)] if several else LABELS
    made, model = label_sets.encoder() if several else encoder(), with_adapter()
    same = split("train", SENTENCES, answers)
    section = config(f"train.class_weights={class_weights}", *(["train.metric=macro_f1"] if several else []))
    data = prepare(section, made, same, same)
    sums = tokens = 0.0
    for row in data.rows:
        ids = torch.tensor([row.input_ids])
        log_probs_TV = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        picked = log_probs_TV.gather(1, ids[0, 1:, None])[row.answer_start - 1 :]
        sums, tokens = sums - row.weight * picked.sum().item(), tokens + len(picked)
    assert data.evaluate_with(model.eval())["answer_loss"] == pytest.approx(sums / tokens, rel=1e-5)
    # One step over all rows: its loss is that before the update.
    train = TrainConfig(max_steps=1, per_device_train_batch_size=len(data.rows), logging_steps=1, learning_rate=1e-3)
    trainer = LabelTrainer.build(model, data, train, output_dir=str(tmp_path), seed=3)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(sums / tokens, rel=1e-5)


def test_shortened_sentences_are_counted_and_told() -> None:
    train = split("train", [LONG, *SENTENCES[1:4], LONG, LONG], LABELS)
    with pytest.warns(UserWarning, match="were shortened") as told:
        data = prepare(config(), encoder(), train, split("validation", [LONG, SENTENCES[0]], [1, 2]))
    assert data.truncated == 3
    assert [next(name for name in ("training", "validation") if name in str(one.message)) for one in told] == [
        "training",
        "validation",
    ]
    assert max(len(row.input_ids) for row in data.rows) <= 1024  # the default of prompt.max_length


def test_a_training_row_takes_less_than_a_kilobyte(monkeypatch: pytest.MonkeyPatch) -> None:
    def peak(count: int) -> int:
        train = split("train", [f"{SENTENCES[n % 6]} nhóm {n}" for n in range(count)], [n % 3 for n in range(count)])
        tracemalloc.start()
        try:
            data = prepare(config("train.class_weights=balanced"), encoder(), train, split("validation", ["hay"], [2]))
            assert len(data.rows) == count
            assert data.rows[-1].input_ids[:4] == data.rows[0].input_ids[:4]
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    monkeypatch.setattr("loraft.models.encoder.AT_ONCE", 50)
    # About 110 tokens of 4 bytes; with lists of Python integers it is above 5,000.
    assert (peak(600) - peak(200)) / 400 < 1000


def test_several_labels_share_the_ids_of_their_prompt() -> None:
    prompts_N, applies_NK = [[1, 2], [3]], np.array([[True, False], [False, False]])
    rows = question_rows(prompts_N, applies_NK, [[8, 1], [9, 1], [8, 2], [9, 2]], "none")
    assert [(row.input_ids, row.answer_start, row.label) for row in rows] == [
        ([1, 2, 8, 1], 3, 0), ([1, 2, 9, 2], 3, 3), ([3, 8, 2], 2, 2), ([3, 9, 2], 2, 3)
    ]  # fmt: skip
    assert [row.label for row in rows[1:3]] == [3, 2]
