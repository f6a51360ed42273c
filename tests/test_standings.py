from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from loraft.answers import Answers
from loraft.standings import best_of, by_setting, versus_best


def record(name: str, validation: float, parameters: int, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "status": "finished", "validation_macro_f1": validation, "trainable_parameters": parameters,
        "macro_f1": 0.5, **more,
    }  # fmt: skip


def answers(wrong: list[int], text: str = "câu") -> Answers:
    """100 rows of label 0, of which the given ones are answered 1."""
    predictions = np.zeros(100, dtype=np.int64)
    predictions[wrong] = 1
    texts = tuple(f"{text} {i}" for i in range(100))
    return Answers(Path("x"), ("chê", "khen"), tuple(range(1, 101)), texts, np.zeros(100, dtype=np.int64), predictions)


def test_the_best_is_chosen_on_validation_and_of_equals_the_smallest() -> None:
    records = [
        record("r1", 0.7, 10, macro_f1=0.99),  # the test split has no say
        record("r4", 0.8, 40),
        record("r2", 0.8, 20),
        {"name": "r8", "status": "failed"},
    ]
    best = best_of(records)
    assert best is not None
    assert best["name"] == "r2"
    assert best_of(records[-1:]) is None


def test_each_trial_is_paired_with_the_best_and_corrected_by_holm() -> None:
    # Only the best is right on 12 rows of `far` and 5 of `near`; `near` alone is right on 1.
    given = {"best": answers([50]), "far": answers([50, *range(12)]), "near": answers(list(range(5)))}
    found = versus_best("best", given, confidence=0.95)
    far, near = (binomtest(k, n).pvalue for k, n in ((0, 12), (1, 6)))
    assert (found["far"]["b"], found["far"]["c"]) == (0, 12)
    assert (found["near"]["b"], found["near"]["c"]) == (1, 5)
    assert found["far"]["p_holm"] == pytest.approx(2 * far)
    assert found["near"]["p_holm"] == pytest.approx(near)
    assert (found["far"]["same"], found["near"]["same"]) == (False, True)


def test_a_trial_on_other_rows_is_not_paired() -> None:
    assert list(versus_best("a", {"a": answers([1]), "b": answers([2], "khác"), "c": answers([3])}, 0.95)) == ["c"]


def test_seeds_of_one_setting_are_taken_together() -> None:
    scores = dict.fromkeys(("macro_precision", "macro_recall"), 0.5)
    records = [
        record(f"r{r}-s{s}", 0.5, r, settings={"lora.r": r, "seed": s}, accuracy=0.6 + 0.1 * s,
               intervals={"accuracy": [0.5, 0.9], "macro_f1": [0.4, 0.6]}, **scores)
        for r in (1, 2)
        for s in (0, 1, 2)
    ]  # fmt: skip
    rows = by_setting([*records, {"name": "r4-s0", "status": "failed"}], 0.95)
    assert [(row["settings"], row["seeds"]) for row in rows] == [({"lora.r": 1}, 3), ({"lora.r": 2}, 3)]
    assert rows[0]["accuracy"]["mean"] == pytest.approx(0.7)
    assert rows[0]["accuracy"]["sd"] == pytest.approx(0.1)
