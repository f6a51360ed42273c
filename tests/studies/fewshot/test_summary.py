"""Rows of the few-shot table, and what the study says."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers.records import record, report

from loraft.evaluation import metrics
from loraft.evaluation.choosing import Metric
from loraft.evaluation.intervals import Spread
from loraft.studies.fewshot.records import ComparedRows, TableRow
from loraft.studies.fewshot.summary import ADAPTER, BACKBONE, BASELINE, compare_best, summarise, verdict

Ints = npt.NDArray[np.int64]

F1S = [0.5, 0.6, 0.55, 0.4]


def test_rows_are_by_model_and_shots_in_the_order_of_measuring() -> None:
    records = [record(0.7, model="nhãn đa số", shots=None), record(0.9, model=ADAPTER, shots=0)]
    records += [record(f1, model=BACKBONE, shots=k) for k in (1, 2) for f1 in F1S]
    rows = summarise(records, {0: 90, 1: 120, 2: 150}, 0.95)
    assert [(row.name, row.model, row.shots, row.draws, row.tokens, row.seconds) for row in rows] == [
        ("nhãn đa số", BASELINE, None, 1, None, 1.0), ("adapter, 0 shots", ADAPTER, 0, 1, 90, 1.0),
        ("backbone, 1 shot", BACKBONE, 1, 4, 120, 4.0), ("backbone, 2 shots", BACKBONE, 2, 4, 150, 4.0)
    ]  # fmt: skip


def test_the_share_without_a_label_is_a_mean_over_draws() -> None:
    draws = [replace(record(0.5), report=replace(report(0.5), no_label=share)) for share in (0.2, 0.3, 0.7)]
    assert summarise(draws, {}, 0.95)[0].no_label == pytest.approx(0.4)


SETTINGS: dict[str, Any] = {"bootstrap_samples": 400, "confidence": 0.95, "seed": 3}
GOLD = np.arange(300) % 3


def right_on(share: float, seed: int) -> Ints:
    """Answers that are right on so many rows, and the next label on the others."""
    wrong = np.random.default_rng(seed).random(len(GOLD)) >= share
    return np.where(wrong, (GOLD + 1) % 3, GOLD)


def study(shots: float, svm: float, adapter: float | None) -> tuple[list[ComparedRows], str]:
    """Comparisons and verdict where prompt, baseline and adapter are right on these shares of the rows."""
    told = {"majority label": [right_on(0.3, 1)], "TF-IDF + linear SVM": [right_on(svm, 2)]}
    told |= {} if adapter is None else {"adapter, 0 shots": [right_on(adapter, 3)]}
    told |= {"backbone, 1 shot": [right_on(shots - 0.2, n) for n in (4, 5)]}
    told |= {"backbone, 4 shots": [right_on(shots, n) for n in (6, 7, 8)]}
    whose = {"adapter, 0 shots": (ADAPTER, 0), "backbone, 1 shot": (BACKBONE, 1), "backbone, 4 shots": (BACKBONE, 4)}
    records = []
    for name, answers in told.items():
        model, k = whose.get(name, (name, None))
        records += [record(metrics.core(GOLD, one, 3)["macro_f1"], model=model, shots=k) for one in answers]
    compared = compare_best(summarise(records, {}, 0.95), told, GOLD, 3, **SETTINGS)
    return compared, verdict(compared, len(GOLD), 0.95)


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ((0.5, 0.6, 0.95), "Fine-tuning pays: on the same 300 test rows the adapter's macro F1 is +"),
        ((0.5, 0.9, 0.9), "Fine-tuning is not shown to pay, as TF-IDF + linear SVM may do as well: "),
        ((0.9, 0.9, 0.9), "as backbone, 4 shots and TF-IDF + linear SVM may do as well: "),
        ((0.5, 0.9, 0.6), "This adapter does not pay, as TF-IDF + linear SVM does better: "),
        ((0.9, 0.9, 0.5), "as backbone, 4 shots and TF-IDF + linear SVM do better: "),
        ((0.5, 0.9, None), "TF-IDF + linear SVM does better than the best prompt: "),
        ((0.95, 0.6, None), "The best prompt does better than TF-IDF + linear SVM: "),
        ((0.9, 0.9, None), "The best prompt and TF-IDF + linear SVM cannot be told apart: "),
    ],
)
def test_the_verdict_says_whether_fine_tuning_pays(shares: tuple[float, float, float | None], said: str) -> None:
    compared, text = study(*shares)
    assert said in text
    assert "picked on these rows" in text
    first = compared[0].differences["macro_f1"]
    low, high = first.interval
    assert f"{100 * first.difference:+.1f} points (95% interval {100 * low:+.1f} to {100 * high:+.1f}, p=" in text
    assert ("--run NAME" in text) == (shares[2] is None)


def test_the_adapter_is_compared_with_the_best_prompt_and_the_best_baseline() -> None:
    pairs = [(one.of, one.against) for one in study(0.5, 0.6, 0.9)[0]]
    assert pairs == [("adapter, 0 shots", "backbone, 4 shots"), ("adapter, 0 shots", "TF-IDF + linear SVM")]
    pairs = [(one.of, one.against) for one in study(0.5, 0.6, None)[0]]
    assert pairs == [("backbone, 4 shots", "TF-IDF + linear SVM")]


def scored(name: str, model: str, shots: int | None, accuracy: float, macro_f1: float) -> TableRow:
    scores = {"accuracy": Spread(accuracy, None, None), "macro_f1": Spread(macro_f1, None, None)}
    return TableRow(name, model, shots, 1, None, 0.0, 1.0, scores)


def test_the_best_are_those_by_macro_f1_and_the_adapter_is_the_one_without_demonstrations() -> None:
    rows = [
        scored("often right", BASELINE, None, 0.9, 0.3), scored("fair", BASELINE, None, 0.6, 0.6),
        scored("backbone, 0 shots", BACKBONE, 0, 0.9, 0.2), scored("backbone, 1 shot", BACKBONE, 1, 0.5, 0.5),
        scored("adapter, 1 shot", ADAPTER, 1, 0.9, 0.9), scored("adapter, 0 shots", ADAPTER, 0, 0.8, 0.8),
    ]  # fmt: skip
    predictions = {row.name: [GOLD] for row in rows}
    pairs = [(one.of, one.against) for one in compare_best(rows, predictions, GOLD, 3, **SETTINGS)]
    assert pairs == [("adapter, 0 shots", "backbone, 1 shot"), ("adapter, 0 shots", "fair")]
    by_accuracy = Metric("accuracy", "accuracy", "accuracy")
    pairs = [(one.of, one.against) for one in compare_best(rows, predictions, GOLD, 3, by_accuracy, **SETTINGS)]
    assert pairs == [("adapter, 0 shots", "backbone, 0 shots"), ("adapter, 0 shots", "often right")]
    alone = [row for row in rows if row.model != ADAPTER]
    pairs = [(one.of, one.against) for one in compare_best(alone, predictions, GOLD, 3, **SETTINGS)]
    assert pairs == [("backbone, 1 shot", "fair")]
