"""Warnings about a training: when each is given, and which key it names."""

from typing import Any

import pytest

from loraft.config.resolve import resolve
from loraft.evaluation import training_advice
from loraft.evaluation.classification_report import EvaluationReport, classification_report

LABELS = ["negative", "neutral", "positive"]


def judged(references: list[int], predictions: list[int]) -> EvaluationReport:
    return classification_report(references, None, predictions, LABELS, bootstrap_samples=100, confidence=0.95, seed=0)


def log(*scores: float) -> list[dict[str, Any]]:
    return [{"step": 10, "loss": 1.0}, *({"step": 10 * n, "eval_macro_f1": f1} for n, f1 in enumerate(scores, 1))]


@pytest.mark.parametrize(
    ("scores", "begins", "key"),
    [
        ((0.5, 0.6, 0.7), "validation still improves at the last step (0.700", "train.num_train_epochs (now 3)"),
        ((0.7, 0.6, 0.6), "validation is best at its first evaluation (0.700", "train.learning_rate"),
        ((0.5, 0.68, 0.7), "", ""),  # the standard error of 0.7 on 300 rows is 0.026
        ((0.7, 0.6, 0.68), "", ""),
        ((0.5, 0.7, 0.6), "", ""),
        ((0.5,), "", ""),
    ],
)  # fmt: skip
def test_validation_that_is_best_at_either_end_is_told(scores: tuple[float, ...], begins: str, key: str) -> None:
    found = training_advice.of_training(log(*scores), resolve(), 300, 2e-3, 2e-3)
    assert len(found) == (1 if begins else 0)
    assert all(sentence.startswith(begins) and key in sentence for sentence in found)


def test_a_metric_that_is_the_same_at_all_evaluations_is_told() -> None:
    (found,) = training_advice.of_training(log(0.28, 0.28, 0.28), resolve(), 300, 2e-3, 2e-3)
    assert found.startswith(
        "macro F1 on validation is the same at all 3 evaluations (0.280), so it picked no checkpoint"
    )
    last = resolve(overrides=["train.keep=last"])
    assert training_advice.of_training(log(0.28, 0.28, 0.28), last, 300, 2e-3, 2e-3) == []


def test_the_steps_are_named_where_they_count() -> None:
    (found,) = training_advice.of_training(log(0.5, 0.6), resolve(overrides=["train.max_steps=20"]), 300, None, 2e-3)
    assert found.endswith("raise train.max_steps (now 20)")


@pytest.mark.parametrize(
    ("rate", "words"), [(2e-2, "10 times above"), (1e-4, "20 times below"), (1e-2, ""), (4e-4, "")]
)
def test_an_unusual_learning_rate_is_told(rate: float, words: str) -> None:
    found = training_advice.of_training([], resolve(), 300, rate, 2e-3)
    assert len(found) == (1 if words else 0)
    assert all(words in one and one.endswith("leave train.learning_rate unset") for one in found)


def test_a_training_that_helped_nothing_says_so_in_words() -> None:
    right, one_label = [0] * 100 + [1] * 100 + [2] * 100, [2] * 300
    halves = [label if row % 2 else 2 for row, label in enumerate(right)]
    config = resolve(overrides=["train.learning_rate=100000"])
    good, bad, middling = judged(right, right), judged(right, one_label), judged(right, halves)
    assert [*training_advice.of_outcome(config, bad, good)] == []
    (worse,) = training_advice.of_outcome(config, good, bad)
    assert worse.startswith("the result is no better than before the training: macro F1 on test 0.1667 after, 1.0000")
    assert "lower train.learning_rate (now 100000)" in worse
    (same,) = training_advice.of_outcome(resolve(), bad, bad)
    assert "is no better" in same
    assert "(now by size)" in same
    hardly = judged(right, [*halves[:-1], 2 if halves[-1] != 2 else 0])
    low, high = sorted((middling, hardly), key=lambda report: report.scores["macro_f1"])
    (unclear,) = training_advice.of_outcome(resolve(), low, high)
    assert unclear.startswith("the result may be no better than before the training")
