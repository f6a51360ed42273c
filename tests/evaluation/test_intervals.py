"""Spreads over draws and differences between classifiers, against Student's t and rows drawn one by one."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers.records import report
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from loraft.evaluation import intervals, metrics
from loraft.evaluation.classification_report import classification_report
from loraft.evaluation.intervals import Spread, bootstrap, differences, spread, spreads
from loraft.evaluation.metrics import confusion
from loraft.evaluation.shares import tango, wilson

Ints = npt.NDArray[np.int64]

F1S = [0.5, 0.6, 0.55, 0.4]
SETTINGS: dict[str, Any] = {"bootstrap_samples": 400, "confidence": 0.95, "seed": 3}
GOLD = np.arange(300) % 3


def right_on(share: float, seed: int) -> Ints:
    """Answers that are right on so many rows, and the next label on the others."""
    wrong = np.random.default_rng(seed).random(len(GOLD)) >= share
    return np.where(wrong, (GOLD + 1) % 3, GOLD)


def test_over_draws_alone_the_interval_is_students() -> None:
    found = spread([report(f1) for f1 in F1S], "macro_f1", 0.95)
    assert found.mean == pytest.approx(np.mean(F1S))
    assert found.sd == pytest.approx(stats.tstd(F1S))
    expected = stats.t.interval(0.95, len(F1S) - 1, loc=np.mean(F1S), scale=stats.sem(F1S))
    assert found.interval == pytest.approx(expected)


def test_of_one_draw_the_interval_is_that_over_rows() -> None:
    measured = classification_report(
        [0, 1, 2, 0, 1], None, [0, 1, 1, 0, -1], ["xấu", "vừa", "tốt"], bootstrap_samples=200, confidence=0.9, seed=1
    )
    found = spread([measured], "macro_f1", 0.9)
    assert found == Spread(measured.macro_f1, None, measured.intervals["macro_f1"])


def test_half_widths_of_draws_and_rows_add_in_quadrature() -> None:
    narrow = spread([report(f1) for f1 in F1S], "accuracy", 0.95).interval
    wide = spread([report(f1, half=0.03) for f1 in F1S], "accuracy", 0.95).interval
    half = (narrow[1] - narrow[0]) / 2
    assert (wide[1] - wide[0]) / 2 == pytest.approx(math.hypot(half, 0.03))


def test_an_interval_stays_within_0_and_1() -> None:
    assert spread([report(0.99), report(0.5)], "accuracy", 0.95).interval == (0.0, 1.0)


def test_scores_without_an_interval_of_their_own_get_none() -> None:
    assert spread([report(0.5), report(0.7)], "macro_recall", 0.95).interval is None


def test_scores_that_an_earlier_version_did_not_write_are_left_out() -> None:
    whole, older = report(0.5), replace(report(0.7), scores={"accuracy": 0.7})
    found = spreads([whole, older], 0.95)
    assert found == {"accuracy": spread([whole, older], "accuracy", 0.95)}
    assert list(spreads([whole], 0.95)) == list(metrics.SCORES)


@pytest.mark.parametrize("score", ["accuracy", "macro_f1"])
def test_of_one_answer_each_the_difference_is_the_paired_bootstraps(score: str) -> None:
    a, b = right_on(0.9, 1), np.where(np.arange(300) % 17 == 0, -1, right_on(0.8, 2))  # -1 is an answer without label
    found = differences(GOLD, [a], [b], 3, **{**SETTINGS, "bootstrap_samples": 4000})[score]
    rng = np.random.default_rng(0)
    drawn = (rng.integers(0, 300, 300) for _ in range(4000))
    gaps = [metrics.core(GOLD[rows], a[rows], 3)[score] - metrics.core(GOLD[rows], b[rows], 3)[score] for rows in drawn]
    assert found.difference == pytest.approx(metrics.core(GOLD, a, 3)[score] - metrics.core(GOLD, b, 3)[score])
    # The quantiles' own standard error at 4,000 samples of a spread of 0.03 is below 0.002; two rows more move little.
    assert found.interval == pytest.approx(np.quantile(gaps, [0.025, 0.975]), abs=0.008)


@pytest.mark.parametrize("rows", [1, 30, 300])
def test_a_classifier_does_not_differ_from_itself_but_that_is_not_certain(rows: int) -> None:
    a = right_on(0.8, 1)[:rows]
    gaps = differences(GOLD[:rows], [a], [a], 3, **SETTINGS)
    for score, found in ((score, gaps[score]) for score in metrics.INTERVAL_SCORES):
        # Tango's bounds where no row differs: z^2 / (N + z^2).
        bound = 1.96**2 / (rows + 1.96**2)
        assert found.difference == 0.0
        assert found.interval == pytest.approx((-bound, bound), rel=0.001 if score == "accuracy" else 0.5)


def test_the_interval_of_the_accuracies_is_tangos() -> None:
    # Complete response before and after consolidation therapy (Cavo et al. 2012), as the tests of chapter 8 in the R
    # package contingencytables (Fagerland, Lydersen and Laake 2017, "Statistical Analysis of Contingency Tables") have
    # it: of 161 patients 6 before only, 16 after only; -0.1240 to -0.0054.
    own, other, total = 6, 16, 161
    assert tango(own, other, total, 0.95) == pytest.approx((-0.1240, -0.0054), abs=0.00005)
    rows = np.arange(total)
    mine, theirs = (rows < own).astype(int), ((rows >= own) & (rows < own + other)).astype(int)
    found = differences(np.ones(total, dtype=int), [mine], [theirs], 2)["accuracy"]
    assert found.interval == tango(own, other, total, 0.95)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.sampled_from([0.5, 0.95, 0.99]))
def test_tangos_bounds_are_roots_of_the_published_quartic(own: int, other: int, rest: int, confidence: float) -> None:
    # Source of the polynomial: Yang, Sun and Hardin 2013, "A non-iterative implementation of Tango's score confidence
    # interval for a paired difference of proportions".
    n, gap = own + other + max(rest, 1), own - other
    g = stats.norm.ppf((1 + confidence) / 2) ** 2
    quartic = [
        n**2 * (n / g + 1) ** 2,
        -n * gap * (n / g + 1) * (4 * n / g + 1),
        2 * n * gap**2 * (3 * n / g + 2) / g - n**2 * ((own + other) / g + 1),
        n * gap * (2 * (own + other) / g + 1) - gap**3 * (4 * n / g + 1) / g,
        gap**2 * (gap**2 / g - (own + other)) / g,
    ]
    low, high = tango(own, other, n, confidence)
    assert low < gap / n < high
    for bound in (low, high):
        assert np.polyval(quartic, bound) == pytest.approx(0, abs=1e-9 * n**4)


def test_draws_that_differ_much_leave_no_interval_beyond_1() -> None:
    found = differences(GOLD, [GOLD], [right_on(0.0, 1), right_on(0.9, 1)], 3, **SETTINGS)
    assert {found[score].interval[1] for score in metrics.INTERVAL_SCORES} == {1.0}
    assert found["mcc"].interval[1] == 2.0


def test_the_difference_changes_sign_with_the_order() -> None:
    good, bad = right_on(0.9, 1), right_on(0.5, 2)
    found = differences(GOLD, [good], [bad], 3, **SETTINGS)
    other_way = differences(GOLD, [bad], [good], 3, **SETTINGS)
    for score, gap in found.items():
        sign = -1 if score in metrics.LOWER_IS_BETTER else 1
        low, high = sorted(sign * bound for bound in gap.interval)
        assert 0 < low < sign * gap.difference < high
        assert other_way[score].difference == -gap.difference
        assert max(sign * bound for bound in other_way[score].interval) < 0


def test_pairing_is_tighter_than_two_separate_intervals() -> None:
    one = right_on(0.8, 1)
    other = one.copy()
    other[:10] = GOLD[:10]
    low, high = differences(GOLD, [one], [other], 3, **SETTINGS)["accuracy"].interval
    separate = classification_report(GOLD, None, one, ["a", "b", "c"], **SETTINGS).intervals["accuracy"]
    assert high - low < (separate[1] - separate[0]) / 2


def test_what_is_hard_for_both_cancels_out() -> None:
    a = right_on(0.6, 1)
    b = a.copy()
    b[np.flatnonzero(a == GOLD)[:3]] = -1
    low, high = differences(GOLD, [a], [b], 3, **SETTINGS)["accuracy"].interval
    assert -0.005 < low < 0.01 < high < 0.03  # each alone is known to 0.05


def test_draws_that_differ_widen_the_difference_by_students() -> None:
    a, others = right_on(0.95, 1), [right_on(share, 5) for share in (0.5, 0.6, 0.7)]
    found = differences(GOLD, [a], others, 3, **SETTINGS)["accuracy"]
    accuracies = [metrics.core(GOLD, other, 3)["accuracy"] for other in others]
    assert found.difference == pytest.approx(metrics.core(GOLD, a, 3)["accuracy"] - np.mean(accuracies))
    half = stats.t.ppf(0.975, 2) * stats.sem(accuracies)
    rows = differences(GOLD, [a], [others[1]], 3, **SETTINGS)["accuracy"]
    width = found.interval[1] - found.interval[0]
    assert 2 * half < width < 2 * half + rows.interval[1] - rows.interval[0]


def test_the_sides_may_have_other_numbers_of_draws_and_each_side_widens_the_interval() -> None:
    draws, one = [right_on(share, 5) for share in (0.6, 0.7, 0.8)], right_on(0.7, 5)
    scores = [metrics.core(GOLD, draw, 3)["macro_f1"] for draw in draws]
    left = differences(GOLD, draws, [one], 3, **SETTINGS)["macro_f1"]
    right = differences(GOLD, [one], draws, 3, **SETTINGS)["macro_f1"]
    assert left.difference == pytest.approx(np.mean(scores) - metrics.core(GOLD, one, 3)["macro_f1"])
    assert left.difference == pytest.approx(-right.difference)
    for found in (left, right):
        assert found.interval[1] - found.interval[0] > 2 * stats.t.ppf(0.975, 2) * stats.sem(scores)


def test_a_wider_confidence_makes_a_wider_interval() -> None:
    a, b = right_on(0.9, 1), right_on(0.8, 2)
    narrow, wide = (
        differences(GOLD, [a], [b], 3, **{**SETTINGS, "confidence": level})["accuracy"].interval
        for level in (0.5, 0.99)
    )
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_blocks_do_not_change_the_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = right_on(0.9, 1), right_on(0.8, 2)
    whole = differences(GOLD, [a], [b], 3, **SETTINGS)
    monkeypatch.setattr(intervals, "CHUNK_CELLS", 100)
    assert differences(GOLD, [a], [b], 3, **SETTINGS) == whole


def test_resamples_of_a_difference_have_two_rows_more() -> None:
    a, b = right_on(0.9, 1)[:60], np.where(np.arange(60) % 17 == 0, -1, right_on(0.8, 2)[:60])
    rng = np.random.default_rng(0)
    # 62 rows: those of the test, one that only a has right and one that only b has, of each label in its share.
    wrong = [(GOLD[:60] + k) % 3 for k in (1, 2)]
    own, other = np.concatenate([a, *[GOLD[:60]] * 2, *wrong]), np.concatenate([b, *wrong, *[GOLD[:60]] * 2])
    chances, references = np.repeat([1, *[1 / 120] * 4], 60) / 62, np.tile(GOLD[:60], 5)
    drawn = (rng.choice(300, 60, p=chances) for _ in range(2000))
    gaps = [
        metrics.core(references[rows], own[rows], 3)["macro_f1"]
        - metrics.core(references[rows], other[rows], 3)["macro_f1"]
        for rows in drawn
    ]
    found = differences(GOLD[:60], [a], [b], 3, **{**SETTINGS, "bootstrap_samples": 2000})["macro_f1"]
    # The quantiles' own standard error at 2,000 samples of a spread of 0.06 is 0.004.
    assert found.interval == pytest.approx(np.quantile(gaps, [0.025, 0.975]), abs=0.016)


def test_an_interval_of_a_difference_contains_it() -> None:
    # One of four rows is right: F1 2/3, 0 and 0. Labels that a resample misses do not count, so most score more.
    references, answers = np.array([0, 0, 1, 2]), np.array([0, -1, -1, -1])
    for found in differences(references, [answers], [np.full(4, -1)], 3, confidence=0.1).values():
        assert found.interval[0] <= found.difference <= found.interval[1]


# --- the bootstrap of one classifier ----------------------------------------------------------------------------------


def judged(references: Ints, predictions: Ints, samples: int = 1000, seed: int = 7) -> dict[str, Any]:
    return bootstrap(confusion(references, predictions, 3), samples, 0.95, seed)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 2)), min_size=1, max_size=40), st.integers(0, 9))
def test_an_interval_contains_its_score_and_has_a_width(rows: list[tuple[int, int]], seed: int) -> None:
    references, predictions = np.array(rows).T
    for name, (low, high) in judged(references, predictions, 500, seed).items():
        assert 0 <= low <= metrics.core(references, predictions, 3)[name] <= high <= 1
        assert high - low > 0.05


@pytest.mark.parametrize("rows", [1, 5, 30, 300])
def test_where_all_rows_are_right_or_wrong_the_intervals_do_not_collapse(rows: int) -> None:
    references = np.arange(rows) % 3
    # The exact bound for N of N right at 95 %: a share below it gives N right with a probability below 2.5 %.
    exact = 0.025 ** (1 / rows)
    for low, high in judged(references, references, 2000).values():
        assert high == 1
        assert low == pytest.approx(exact, abs=0.35 if rows < 30 else 0.04)
    for answers in ((references + 1) % 3, np.full(rows, -1)):
        for low, high in judged(references, answers, 2000).values():
            assert low == 0
            assert high > min(0.5, 1 / rows)


@pytest.mark.parametrize("seed", range(10))
def test_the_macro_f1_interval_contains_the_macro_f1(random_rows: Callable[..., Any], seed: int) -> None:
    references, predictions, _ = random_rows(120, seed)
    low, high = judged(references, predictions)["macro_f1"]
    assert low < metrics.core(references, predictions, 3)["macro_f1"] < high


def test_the_accuracy_interval_is_the_binomials() -> None:
    # 3,166 rows at 0.93: the 95 % interval is the accuracy +- 1.96 sqrt(0.93 * 0.07 / 3166) = +- 0.0089.
    references = np.zeros(3166, dtype=int)
    predictions = (np.arange(3166) >= round(0.93 * 3166)).astype(int)
    found = judged(references, predictions, 4000)["accuracy"]
    assert found == pytest.approx(stats.binom.ppf([0.025, 0.975], 3166, 0.93) / 3166, abs=0.001)


@pytest.mark.parametrize(("right", "total"), [(0, 30), (30, 30), (17, 30), (1, 1), (565, 608)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_the_accuracy_interval_is_wilsons(right: int, total: int, confidence: float) -> None:
    expected = stats.binomtest(right, total).proportion_ci(confidence, method="wilson")
    assert wilson(right, total, confidence) == pytest.approx(tuple(expected))
    references = np.zeros(total, dtype=int)
    answers = (np.arange(total) >= right).astype(int)
    assert bootstrap(confusion(references, answers, 3), 100, confidence, 0)["accuracy"] == wilson(
        right, total, confidence
    )


def test_resamples_have_the_distribution_of_rows_drawn_one_by_one(random_rows: Callable[..., Any]) -> None:
    references, predictions, _ = random_rows(60)
    rng = np.random.default_rng(0)
    # 62 rows: those of the test, one that is right and one that is wrong, of each label in its share.
    pool = np.concatenate([references] * 4), np.concatenate([predictions, *((references + k) % 3 for k in range(3))])
    chances = np.repeat([1, 1 / 60, 1 / 120, 1 / 120], 60) / 62
    drawn = (rng.choice(240, 60, p=chances) for _ in range(4000))
    values = [metrics.core(pool[0][rows], pool[1][rows], 3)["macro_f1"] for rows in drawn]
    # The quantiles' own standard error at 4,000 samples is below 0.002.
    assert judged(references, predictions, 4000)["macro_f1"] == pytest.approx(
        np.quantile(values, [0.025, 0.975]), abs=0.012
    )


def test_resamples_follow_the_seed(random_rows: Callable[..., Any]) -> None:
    references, predictions, _ = random_rows(80)
    assert judged(references, predictions, seed=1) == judged(references, predictions, seed=1)
    assert judged(references, predictions, seed=1) != judged(references, predictions, seed=2)


def test_blocks_do_not_change_the_resamples(monkeypatch: pytest.MonkeyPatch, random_rows: Callable[..., Any]) -> None:
    references, predictions, _ = random_rows(80)
    whole = judged(references, predictions)
    monkeypatch.setattr(intervals, "CHUNK_CELLS", 100)
    assert judged(references, predictions) == whole


def test_blocks_hold_no_more_numbers_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "CHUNK_CELLS", 100)
    # 7 kinds of rows, but a confusion matrix of 3 labels has 12 cells: 8 resamples are at most 100 numbers.
    blocks = list(intervals._drawn(np.full(7, 2.0), 14, 30, 0, 3))
    assert [len(block) for block in blocks] == [8, 8, 8, 6]
    assert all((block.sum(axis=1) == 14).all() for block in blocks)
