"""Spread over draws and rows, and what the table says."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from loraft import metrics
from loraft.spreads import ADAPTER, BACKBONE, BASELINE, SCORES, spread, summarise, verdict

F1S = [0.5, 0.6, 0.55, 0.4]


def record(f1: float, *, half: float = 0.0, **rest: Any) -> dict[str, Any]:
    intervals = {score: [f1 - half, f1 + half] for score in ("accuracy", "macro_f1")}
    return {**dict.fromkeys(SCORES, f1), "intervals": intervals, "no_label": 0.25, "seconds": 1.0, **rest}


def test_over_draws_alone_the_interval_is_students() -> None:
    found = spread([record(f1) for f1 in F1S], "macro_f1", 0.95)
    assert found["mean"] == pytest.approx(np.mean(F1S))
    assert found["sd"] == pytest.approx(stats.tstd(F1S))
    expected = stats.t.interval(0.95, len(F1S) - 1, loc=np.mean(F1S), scale=stats.sem(F1S))
    assert found["interval"] == pytest.approx(expected)


def test_of_one_draw_the_interval_is_that_over_rows() -> None:
    measured = metrics.full(
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
    records = [record(0.9, model=ADAPTER, shots=0)]
    records += [record(f1, model=BACKBONE, shots=k) for k in (1, 2) for f1 in F1S]
    rows = summarise(records, {1: 120, 2: 150}, 0.95)
    assert [(row["name"], row["draws"], row["tokens"], row["seconds"]) for row in rows] == [
        ("adapter, 0 shots", 1, None, 1.0), ("backbone, 1 shot", 4, 120, 4.0), ("backbone, 2 shots", 4, 150, 4.0)
    ]  # fmt: skip
    assert rows[1]["no_label"] == 0.25


def table(shots: float, svm: float, adapter: float | None, half: float = 0.01) -> list[dict[str, Any]]:
    made = summarise([record(svm, half=half, model=BASELINE, shots=0)], {}, 0.95)
    made[0]["name"] = "TF-IDF + linear SVM"
    made += summarise([record(shots, half=half, model=BACKBONE, shots=4)], {}, 0.95)
    return made + ([] if adapter is None else summarise([record(adapter, half=half, model=ADAPTER, shots=0)], {}, 0.95))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (table(0.6, 0.7, 0.8), "+10.0 points from TF-IDF + linear SVM: fine-tuning pays"),
        (table(0.75, 0.7, 0.8), "+5.0 points from backbone, 4 shots: fine-tuning pays"),
        (table(0.6, 0.7, 0.5), "-20.0 points from TF-IDF + linear SVM: this adapter does not pay"),
        (table(0.6, 0.79, 0.8), "+1.0 points from TF-IDF + linear SVM, and their intervals overlap"),
        (table(0.6, 0.7, None), "With --run the tuned adapter joins"),
    ],
)
def test_the_verdict_compares_with_the_best_of_the_others(rows: list[dict[str, Any]], said: str) -> None:
    assert said in verdict(rows)
