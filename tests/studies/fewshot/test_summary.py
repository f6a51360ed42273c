"""Spread over draws and rows, and what the table says."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers.records import record
from scipy import stats

from loraft.evaluation import classification_report, intervals, metrics
from loraft.evaluation.intervals import differences, spread
from loraft.studies.fewshot.summary import ADAPTER, BACKBONE, BASELINE, compare_best, summarise, verdict

Ints = npt.NDArray[np.int64]

F1S = [0.5, 0.6, 0.55, 0.4]


def test_over_draws_alone_the_interval_is_students() -> None:
    found = spread([record(f1) for f1 in F1S], "macro_f1", 0.95)
    assert found["mean"] == pytest.approx(np.mean(F1S))
    assert found["sd"] == pytest.approx(stats.tstd(F1S))
    expected = stats.t.interval(0.95, len(F1S) - 1, loc=np.mean(F1S), scale=stats.sem(F1S))
    assert found["interval"] == pytest.approx(expected)


def test_of_one_draw_the_interval_is_that_over_rows() -> None:
    measured = classification_report.full(
        [0, 1, 2, 0, 1], None, [0, 1, 1, 0, -1], ["xấu", "vừa", "tốt"], bootstrap_samples=200, confidence=0.9, seed=1
    )
    found = spread([measured], "macro_f1", 0.9)
    assert found == {"mean": measured["macro_f1"], "sd": None, "interval": measured["intervals"]["macro_f1"]}


def test_half_widths_of_draws_and_rows_add_in_quadrature() -> None:
    narrow = spread([record(f1) for f1 in F1S], "accuracy", 0.95)["interval"]
    wide = spread([record(f1, half=0.03) for f1 in F1S], "accuracy", 0.95)["interval"]
    half = (narrow[1] - narrow[0]) / 2
    assert (wide[1] - wide[0]) / 2 == pytest.approx(math.hypot(half, 0.03))


def test_an_interval_stays_within_0_and_1() -> None:
    assert spread([record(0.99), record(0.5)], "accuracy", 0.95)["interval"] == [0.0, 1.0]


def test_scores_without_an_interval_of_their_own_get_none() -> None:
    assert spread([record(0.5), record(0.7)], "macro_recall", 0.95)["interval"] is None


def test_rows_are_by_model_and_shots_in_the_order_of_measuring() -> None:
    records = [record(0.7, model="nhãn đa số", shots=None), record(0.9, model=ADAPTER, shots=0)]
    records += [record(f1, model=BACKBONE, shots=k) for k in (1, 2) for f1 in F1S]
    rows = summarise(records, {1: 120, 2: 150}, 0.95)
    assert [(row["name"], row["model"], row["shots"], row["draws"], row["tokens"], row["seconds"]) for row in rows] == [
        ("nhãn đa số", BASELINE, None, 1, None, 1.0), ("adapter, 0 shots", ADAPTER, 0, 1, None, 1.0),
        ("backbone, 1 shot", BACKBONE, 1, 4, 120, 4.0), ("backbone, 2 shots", BACKBONE, 2, 4, 150, 4.0)
    ]  # fmt: skip
    assert rows[2]["no_label"] == 0.25


SETTINGS: dict[str, Any] = {"bootstrap_samples": 400, "confidence": 0.95, "seed": 3}
GOLD = np.arange(300) % 3


def right_on(share: float, seed: int) -> Ints:
    """Answers that are right on so many rows, and the next label on the others."""
    wrong = np.random.default_rng(seed).random(len(GOLD)) >= share
    return np.where(wrong, (GOLD + 1) % 3, GOLD)


def test_of_one_answer_each_the_difference_is_the_paired_bootstraps() -> None:
    a, b = right_on(0.9, 1), right_on(0.8, 2)
    found = differences(GOLD, [a], [b], 3, **{**SETTINGS, "bootstrap_samples": 4000})
    for score in ("accuracy", "macro_f1"):
        expected = intervals.paired_bootstrap(GOLD, a, b, 3, metric=score, **{**SETTINGS, "bootstrap_samples": 4000})
        assert found[score]["difference"] == pytest.approx(expected["difference"])
        assert found[score]["interval"] == pytest.approx(expected["interval"], abs=0.01)  # two ways of resampling


def test_what_is_hard_for_both_cancels_out() -> None:
    a = right_on(0.6, 1)
    b = a.copy()
    b[np.flatnonzero(a == GOLD)[:3]] = -1
    low, high = differences(GOLD, [a], [b], 3, **SETTINGS)["accuracy"]["interval"]
    assert 0 <= low < 0.01 < high < 0.03  # each alone is known to 0.05


def test_draws_that_differ_widen_the_difference_by_students() -> None:
    a, others = right_on(0.95, 1), [right_on(share, 5) for share in (0.5, 0.6, 0.7)]
    found = differences(GOLD, [a], others, 3, **SETTINGS)["accuracy"]
    accuracies = [metrics.core(GOLD, other, 3)["accuracy"] for other in others]
    assert found["difference"] == pytest.approx(metrics.core(GOLD, a, 3)["accuracy"] - np.mean(accuracies))
    half = stats.t.ppf(0.975, 2) * stats.sem(accuracies)
    rows = differences(GOLD, [a], [others[1]], 3, **SETTINGS)["accuracy"]
    width = found["interval"][1] - found["interval"][0]
    assert 2 * half < width < 2 * half + rows["interval"][1] - rows["interval"][0]


def study(shots: float, svm: float, adapter: float | None) -> tuple[list[dict[str, Any]], str]:
    """Comparisons and verdict where prompt, baseline and adapter are right on these shares of the rows."""
    told = {"majority label": [right_on(0.3, 1)], "TF-IDF + linear SVM": [right_on(svm, 2)]}
    told |= {} if adapter is None else {"adapter, 0 shots": [right_on(adapter, 3)]}
    told |= {"backbone, 1 shot": [right_on(shots - 0.2, n) for n in (4, 5)]}
    told |= {"backbone, 4 shots": [right_on(shots, n) for n in (6, 7, 8)]}
    whose = {"adapter, 0 shots": (ADAPTER, 0), "backbone, 1 shot": (BACKBONE, 1), "backbone, 4 shots": (BACKBONE, 4)}
    records = []
    for name, answers in told.items():
        model, k = whose.get(name, (name, None))
        records += [{**record(metrics.core(GOLD, one, 3)["macro_f1"]), "model": model, "shots": k} for one in answers]
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
    first = compared[0]["macro_f1"]
    low, high = first["interval"]
    assert f"{100 * first['difference']:+.1f} points (95% interval {100 * low:+.1f} to {100 * high:+.1f})" in text
    assert ("--run NAME" in text) == (shares[2] is None)


def test_the_adapter_is_compared_with_the_best_prompt_and_the_best_baseline() -> None:
    pairs = [(one["of"], one["against"]) for one in study(0.5, 0.6, 0.9)[0]]
    assert pairs == [("adapter, 0 shots", "backbone, 4 shots"), ("adapter, 0 shots", "TF-IDF + linear SVM")]
    pairs = [(one["of"], one["against"]) for one in study(0.5, 0.6, None)[0]]
    assert pairs == [("backbone, 4 shots", "TF-IDF + linear SVM")]
