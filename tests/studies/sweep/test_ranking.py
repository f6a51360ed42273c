"""The best setting is chosen on validation over its seeds, and the others are paired with it row by row on test."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from helpers.sweeps import answered, failed_trial, trial
from scipy.stats import binomtest

from loraft.evaluation import significance
from loraft.evaluation.choosing import Metric
from loraft.evaluation.metrics import SCORES
from loraft.runs.predictions import RunPredictions
from loraft.studies.sweep.ranking import against, rank_settings
from loraft.studies.sweep.records import Ranking, SettingScores, VersusBest


def wrong_on(*rows: int, count: int = 100, text: str = "câu") -> RunPredictions:
    return answered([n not in rows for n in range(count)], text)


def ranked(*given: tuple[int, int | None, float, RunPredictions], confidence: float = 0.95) -> Ranking:
    """A sweep of (rank, seed, macro-F1 on validation, answers)."""
    records, answers = [], {}
    for rank, seed, validation, own in given:
        record = trial({"lora.r": rank, **({} if seed is None else {"seed": seed})}, own, validation)
        records.append(record)
        answers[record.name] = own
    return rank_settings(records, answers, confidence)


def best_rank(found: Ranking) -> int:
    assert found.best_setting is not None
    return int(found.best_setting.settings["lora.r"])


def best_trial(found: Ranking) -> str:
    assert found.best is not None
    return found.best.name


def versus(found: Ranking) -> dict[int, VersusBest | None]:
    measured = {row.settings["lora.r"]: row.measured for row in found.settings}
    return {rank: None if scores is None else scores.versus_best for rank, scores in measured.items()}


def compared(found: Ranking, rank: int) -> VersusBest:
    test = versus(found)[rank]
    assert test is not None
    return test


def measured(found: Ranking, number: int = 0) -> SettingScores:
    scores = found.settings[number].measured
    assert scores is not None
    return scores


def test_the_best_is_chosen_on_validation_and_of_equals_the_smallest() -> None:
    found = ranked((1, None, 0.7, wrong_on()), (4, None, 0.8, wrong_on(1, 2)), (2, None, 0.8, wrong_on(1, 2)))
    assert best_rank(found) == 2  # rank 1 is best on test, which has no say
    assert best_trial(found) == "r2"


def test_a_lucky_seed_does_not_make_its_setting_the_best() -> None:
    found = ranked((1, 1, 0.9, wrong_on()), (1, 2, 0.5, wrong_on()), (2, 1, 0.8, wrong_on()), (2, 2, 0.75, wrong_on()))
    assert best_rank(found) == 2
    assert found.best_setting is not None
    assert found.best_setting.measured is not None
    assert found.best_setting.measured.validation_macro_f1 == pytest.approx(0.775)
    assert best_trial(found) == "r2-s1"


def test_the_same_seeds_in_another_order_are_a_tie() -> None:
    scores = (0.1, 0.2, 0.3)  # summed from the left they differ in the last bit from those summed from the right
    given = [(4, s, scores[s], wrong_on()) for s in range(3)] + [(2, s, scores[2 - s], wrong_on()) for s in range(3)]
    assert best_rank(ranked(*given)) == 2


def test_with_one_seed_each_setting_is_paired_by_mcnemar_and_corrected_by_holm() -> None:
    # Only the best is right on 12 rows of `far` and on 5 of `near`; `near` alone is right on 1.
    found = ranked((1, None, 0.9, wrong_on(50)), (2, None, 0.1, wrong_on(50, *range(12))),
                   (4, None, 0.1, wrong_on(*range(5))))  # fmt: skip
    far, near = compared(found, 2), compared(found, 4)
    p_far, p_near = (binomtest(k, n).pvalue for k, n in ((0, 12), (1, 6)))
    assert versus(found)[1] is None
    assert (far.b, far.c, near.b, near.c) == (0, 12, 1, 5)
    assert far.p_holm == pytest.approx(2 * p_far)
    assert near.p_holm == pytest.approx(p_near)
    assert (far.same, near.same) == (False, True)


def test_the_level_is_that_of_the_confidence_to_the_last_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(significance, "sign_flip", lambda gains: 0.05)
    found = ranked((1, None, 0.9, wrong_on()), (2, None, 0.1, wrong_on(1)))
    assert 1 - 0.95 > 0.05 == compared(found, 2).p_holm  # in floating point
    assert not compared(found, 2).same  # as in `significance.shown`: at most the level


def test_seeds_that_say_the_same_make_nothing_surer() -> None:
    best, other = wrong_on(*range(20, 24)), wrong_on(*range(12))
    once = against({1: other}, {1: best})
    thrice = against(dict.fromkeys((1, 2, 3), other), dict.fromkeys((1, 2, 3), best))
    assert once is not None
    assert thrice is not None
    assert once.p_value == pytest.approx(binomtest(4, 16).pvalue)
    assert thrice.p_value == pytest.approx(once.p_value)
    assert (thrice.b, thrice.c, thrice.seeds, thrice.n) == (12, 36, 3, 100)
    assert binomtest(12, 48).pvalue < 0.01 < once.p_value  # what counting answers as rows would claim


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
        clustered += test.p_value < 0.05
        pooled += binomtest(test.b, test.b + test.c).pvalue < 0.05
    assert clustered / 400 < 0.07
    assert pooled / 400 > 0.2


def test_seeds_are_paired_where_both_finished_on_the_same_rows() -> None:
    best = {1: wrong_on(), 2: wrong_on(), 3: wrong_on()}
    own = {1: wrong_on(1), 2: wrong_on(1, text="khác"), 4: wrong_on(1)}
    test = against(own, best)
    assert test is not None
    assert (test.seeds, test.b, test.c) == (1, 0, 1)
    assert against({4: wrong_on()}, best) is None
    assert against({1: wrong_on(text="khác")}, best) is None


def test_seeds_with_rows_of_their_own_are_not_summed() -> None:
    best = {1: wrong_on(), 2: wrong_on(text="khác")}
    test = against({1: wrong_on(1), 2: wrong_on(1, text="khác")}, best)
    assert test is not None
    assert test.seeds == 1


def test_a_setting_on_other_rows_is_not_paired_and_does_not_count_for_holm() -> None:
    found = ranked((1, None, 0.9, wrong_on()), (2, None, 0.1, wrong_on(text="khác")),
                   (4, None, 0.1, wrong_on(*range(9))))  # fmt: skip
    assert versus(found)[2] is None
    assert compared(found, 4).p_holm == compared(found, 4).p_value


def test_seeds_of_one_setting_are_taken_together() -> None:
    given = {(r, s): wrong_on(*range(10 * r + 5 * s)) for r, s in product((1, 2), (0, 1, 2))}
    found = ranked(*((r, s, 0.5 + s / 10, own) for (r, s), own in given.items()))
    first, second = found.settings
    assert (first.settings, first.seeds, first.failed) == ({"lora.r": 1}, 3, 0)
    assert second.trials == ("r2-s0", "r2-s1", "r2-s2")
    assert list(measured(found).scores) == list(SCORES)
    assert measured(found).scores["accuracy"].mean == pytest.approx(0.85)  # of 0.9, 0.85 and 0.8
    assert measured(found).scores["accuracy"].sd == pytest.approx(0.05)
    assert measured(found).validation_macro_f1 == pytest.approx(0.6)
    assert (measured(found).trainable_parameters, measured(found).seconds) == (106_496, 91.5)


def test_costs_are_means_of_the_seeds_that_know_them() -> None:
    def of_peaks(*peaks: int | None) -> SettingScores:
        records = [trial({"lora.r": 1, "seed": s}, wrong_on(), 0.5, peak_memory_mib=peak, seconds=seconds)
                   for s, (peak, seconds) in enumerate(zip(peaks, (10.0, 20.0, 40.1), strict=True))]  # fmt: skip
        return measured(rank_settings(records, {record.name: wrong_on() for record in records}, 0.95))

    assert (of_peaks(100, None, 201).peak_memory_mib, of_peaks(100, None, 201).seconds) == (150, 23.4)
    assert of_peaks(None, None, None).peak_memory_mib is None


def test_failed_trials_are_counted_and_a_setting_of_nothing_else_has_no_scores() -> None:
    first, *others = (trial({"lora.r": r, "seed": s}, wrong_on(), 0.5) for r, s in product((1, 2), (1, 2)))
    records = [first, *map(failed_trial, others)]
    found = rank_settings(records, {"r1-s1": wrong_on()}, 0.95)
    assert [(row.seeds, row.failed) for row in found.settings] == [(1, 1), (0, 2)]
    assert found.settings[1].measured is None
    assert "accuracy" not in found.settings[1].to_json()
    assert best_trial(found) == "r1-s1"
    nothing = rank_settings([failed_trial(first), *records[1:]], {}, 0.95)
    assert nothing.best is nothing.best_setting is None


def test_the_best_is_chosen_by_the_metric_and_an_error_by_the_lowest() -> None:
    answers = answered([True, False])
    records = [trial({"lora.r": rank}, answers, f1, validation_score=error)
               for rank, f1, error in ((1, 0.9, 0.5), (2, 0.5, 0.25), (4, 0.7, 0.75))]  # fmt: skip
    told = {record.name: answers for record in records}
    for key, rank in (("mean_absolute_error", 2), ("mcc", 4)):
        found = rank_settings(records, told, 0.95, Metric(key, key, key))
        assert found.best is not None
        assert found.best.settings == {"lora.r": rank}
    old = [replace(one, measured=replace(one.measured, validation_score=None)) for one in records if one.measured]
    best = rank_settings(old, told, 0.95).best  # of an earlier version: by macro F1
    assert best is not None
    assert best.settings == {"lora.r": 1}
