"""The best setting is chosen on validation over its seeds, and the others are paired with it row by row on test."""

from itertools import product

import numpy as np
import pytest
from helpers.sweeps import answered, trial
from scipy.stats import binomtest

from loraft.evaluation import significance
from loraft.runs.predictions import Answers
from loraft.studies.sweep.ranking import against, rank_settings


def wrong_on(*rows: int, count: int = 100, text: str = "câu") -> Answers:
    return answered([n not in rows for n in range(count)], text)


def ranked(*given: tuple[int, int | None, float, Answers], confidence: float = 0.95) -> dict:
    """A sweep of (rank, seed, macro-F1 on validation, answers)."""
    records, answers = [], {}
    for rank, seed, validation, own in given:
        record = trial({"lora.r": rank, **({} if seed is None else {"seed": seed})}, own, validation)
        records.append(record)
        answers[record["name"]] = own
    return rank_settings(records, answers, confidence)


def versus(found: dict) -> dict:
    return {row["settings"]["lora.r"]: row.get("versus_best") for row in found["settings"]}


def test_the_best_is_chosen_on_validation_and_of_equals_the_smallest() -> None:
    found = ranked((1, None, 0.7, wrong_on()), (4, None, 0.8, wrong_on(1, 2)), (2, None, 0.8, wrong_on(1, 2)))
    assert found["best_setting"]["settings"] == {"lora.r": 2}  # rank 1 is best on test, which has no say
    assert found["best"]["name"] == "r2"


def test_a_lucky_seed_does_not_make_its_setting_the_best() -> None:
    found = ranked((1, 1, 0.9, wrong_on()), (1, 2, 0.5, wrong_on()), (2, 1, 0.8, wrong_on()), (2, 2, 0.75, wrong_on()))
    assert found["best_setting"]["settings"] == {"lora.r": 2}
    assert found["best_setting"]["validation_macro_f1"] == pytest.approx(0.775)
    assert found["best"]["name"] == "r2-s1"


def test_the_same_seeds_in_another_order_are_a_tie() -> None:
    scores = (0.1, 0.2, 0.3)  # summed from the left they differ in the last bit from those summed from the right
    given = [(4, s, scores[s], wrong_on()) for s in range(3)] + [(2, s, scores[2 - s], wrong_on()) for s in range(3)]
    assert ranked(*given)["best_setting"]["settings"] == {"lora.r": 2}


def test_with_one_seed_each_setting_is_paired_by_mcnemar_and_corrected_by_holm() -> None:
    # Only the best is right on 12 rows of `far` and on 5 of `near`; `near` alone is right on 1.
    found = ranked((1, None, 0.9, wrong_on(50)), (2, None, 0.1, wrong_on(50, *range(12))),
                   (4, None, 0.1, wrong_on(*range(5))))  # fmt: skip
    tests = versus(found)
    far, near = (binomtest(k, n).pvalue for k, n in ((0, 12), (1, 6)))
    assert tests[1] is None
    assert (tests[2]["b"], tests[2]["c"], tests[4]["b"], tests[4]["c"]) == (0, 12, 1, 5)
    assert tests[2]["p_holm"] == pytest.approx(2 * far)
    assert tests[4]["p_holm"] == pytest.approx(near)
    assert (tests[2]["same"], tests[4]["same"]) == (False, True)


def test_the_level_is_that_of_the_confidence_to_the_last_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(significance, "sign_flip", lambda gains: 0.05)
    found = ranked((1, None, 0.9, wrong_on()), (2, None, 0.1, wrong_on(1)))
    assert 1 - 0.95 > 0.05  # in floating point
    assert versus(found)[2]["same"]


def test_seeds_that_say_the_same_make_nothing_surer() -> None:
    best, other = wrong_on(*range(20, 24)), wrong_on(*range(12))
    once = against({1: other}, {1: best})
    thrice = against(dict.fromkeys((1, 2, 3), other), dict.fromkeys((1, 2, 3), best))
    assert once is not None
    assert thrice is not None
    assert once["p_value"] == pytest.approx(binomtest(4, 16).pvalue)
    assert thrice["p_value"] == pytest.approx(once["p_value"])
    assert (thrice["b"], thrice["c"], thrice["seeds"], thrice["n"]) == (12, 36, 3, 100)
    assert binomtest(12, 48).pvalue < 0.01 < once["p_value"]  # what counting answers as rows would claim


def test_where_seeds_share_their_mistakes_the_level_holds_and_that_of_pooled_rows_does_not() -> None:
    generator = np.random.default_rng(0)
    clustered = pooled = 0
    for _ in range(400):
        # Two settings that are equally good; the seeds of each agree on most rows.
        sides = []
        for _ in range(2):
            common = generator.random(80) < 0.7
            sides.append({s: answered(np.where(generator.random(80) < 0.95, common, ~common)) for s in range(4)})
        test = against(*sides)
        assert test is not None
        clustered += test["p_value"] < 0.05
        pooled += binomtest(test["b"], test["b"] + test["c"]).pvalue < 0.05
    assert clustered / 400 < 0.07
    assert pooled / 400 > 0.2


def test_seeds_are_paired_where_both_finished_on_the_same_rows() -> None:
    best = {1: wrong_on(), 2: wrong_on(), 3: wrong_on()}
    own = {1: wrong_on(1), 2: wrong_on(1, text="khác"), 4: wrong_on(1)}
    test = against(own, best)
    assert test is not None
    assert (test["seeds"], test["b"], test["c"]) == (1, 0, 1)
    assert against({4: wrong_on()}, best) is None
    assert against({1: wrong_on(text="khác")}, best) is None


def test_seeds_with_rows_of_their_own_are_not_summed() -> None:
    best = {1: wrong_on(), 2: wrong_on(text="khác")}
    test = against({1: wrong_on(1), 2: wrong_on(1, text="khác")}, best)
    assert test is not None
    assert test["seeds"] == 1


def test_a_setting_on_other_rows_is_not_paired_and_does_not_count_for_holm() -> None:
    found = ranked((1, None, 0.9, wrong_on()), (2, None, 0.1, wrong_on(text="khác")),
                   (4, None, 0.1, wrong_on(*range(9))))  # fmt: skip
    tests = versus(found)
    assert tests[2] is None
    assert tests[4]["p_holm"] == tests[4]["p_value"]


def test_seeds_of_one_setting_are_taken_together() -> None:
    given = {(r, s): wrong_on(*range(10 * r + 5 * s)) for r, s in product((1, 2), (0, 1, 2))}
    found = ranked(*((r, s, 0.5 + s / 10, own) for (r, s), own in given.items()))
    first, second = found["settings"]
    assert (first["settings"], first["seeds"], first["failed"]) == ({"lora.r": 1}, 3, 0)
    assert second["trials"] == ["r2-s0", "r2-s1", "r2-s2"]
    assert first["accuracy"]["mean"] == pytest.approx(0.85)  # of 0.9, 0.85 and 0.8
    assert first["accuracy"]["sd"] == pytest.approx(0.05)
    assert first["validation_macro_f1"] == pytest.approx(0.6)
    assert (first["trainable_parameters"], first["seconds"]) == (106_496, 91.5)


def test_costs_are_means_of_the_seeds_that_know_them() -> None:
    records = [trial({"lora.r": 1, "seed": s}, wrong_on(), 0.5, peak_memory_mib=peak, seconds=seconds)
               for s, peak, seconds in ((1, 100, 10.0), (2, None, 20.0), (3, 201, 40.1))]  # fmt: skip
    (row,) = rank_settings(records, {record["name"]: wrong_on() for record in records}, 0.95)["settings"]
    assert (row["peak_memory_mib"], row["seconds"]) == (150, 23.4)
    for record in records:
        record["peak_memory_mib"] = None
    assert (
        rank_settings(records, {r["name"]: wrong_on() for r in records}, 0.95)["settings"][0]["peak_memory_mib"] is None
    )


def test_failed_trials_are_counted_and_a_setting_of_nothing_else_has_no_scores() -> None:
    records = [trial({"lora.r": r, "seed": s}, wrong_on(), 0.5) for r, s in product((1, 2), (1, 2))]
    for record in records[1:]:
        record["status"] = "failed"
    found = rank_settings(records, {"r1-s1": wrong_on()}, 0.95)
    assert [(row["seeds"], row["failed"]) for row in found["settings"]] == [(1, 1), (0, 2)]
    assert "accuracy" not in found["settings"][1]
    assert found["best"]["name"] == "r1-s1"
    records[0]["status"] = "failed"
    assert rank_settings(records, {}, 0.95)["best"] is rank_settings(records, {}, 0.95)["best_setting"] is None
