"""Significance tests against scipy, enumeration and procedures by hand."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import binomtest

from loraft.evaluation import intervals, significance, verdicts
from loraft.evaluation.intervals import Difference
from loraft.evaluation.metrics import SCORES, core


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_equals_the_binomial_test_on_rows_that_differ(pairs: list[tuple[bool, bool]]) -> None:
    a, b = np.array(pairs).T
    result = significance.mcnemar(a, b)
    assert (result.b, result.c) == (np.sum(a & ~b), np.sum(~a & b))
    differing = result.b + result.c
    expected = binomtest(result.b, differing, 0.5).pvalue if differing else 1.0
    assert result.p_value == pytest.approx(expected)


def test_mcnemar_refuses_different_rows() -> None:
    with pytest.raises(ValueError, match="same rows"):
        significance.mcnemar([True], [True, False])


@given(st.lists(st.integers(-3, 3), max_size=9))
def test_the_sign_flip_test_counts_the_patterns_of_signs_that_are_as_extreme(gains: list[int]) -> None:
    patterns = [sum(g * s for g, s in zip(gains, signs, strict=True)) for signs in product((-1, 1), repeat=len(gains))]
    expected = np.mean([abs(total) >= abs(sum(gains)) for total in patterns])
    assert significance.sign_flip(gains) == pytest.approx(expected)


def test_the_sign_flip_test_stays_exact_where_counts_of_patterns_pass_the_range_of_floats() -> None:
    gains = [1] * 1600 + [-1] * 1500  # 2 ** 3100 patterns
    assert significance.sign_flip(gains) == pytest.approx(binomtest(1500, 3100).pvalue, rel=1e-9)
    assert significance.sign_flip([3 * gain for gain in gains]) == pytest.approx(
        significance.sign_flip(gains), rel=1e-9
    )
    assert significance.sign_flip([2, -2, 0]) == 1.0


def gap(references: Any, own: Any, other: Any, score: str = "macro_f1") -> float:
    return core(references, own, 3)[score] - core(references, other, 3)[score]


@settings(deadline=None, max_examples=12)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 2), st.integers(-1, 2)), min_size=1, max_size=8))
def test_the_permutation_test_estimates_the_share_of_swaps_that_are_as_extreme(rows: list[tuple[int, ...]]) -> None:
    references, own, other = np.array(rows).T
    swaps = np.array(list(product([False, True], repeat=len(rows))))  # all 2^N
    gaps = [gap(references, np.where(swap, other, own), np.where(swap, own, other)) for swap in swaps]
    exact = np.mean(np.abs(gaps) >= abs(gap(references, own, other)) - 1e-12)
    # Four standard errors of a share over 9,999 permutations are at most 0.02.
    assert significance.permutation(references, [own], [other], 3) == pytest.approx(exact, abs=0.02)


def test_the_permutation_test_agrees_with_scipys() -> None:
    rng = np.random.default_rng(5)
    references = rng.integers(0, 3, 40)
    own, other = (np.where(rng.random(40) < share, references, rng.integers(0, 3, 40)) for share in (0.9, 0.55))
    expected = stats.permutation_test(
        (own, other), lambda x, y: gap(references, x, y), permutation_type="samples", vectorized=False,
        n_resamples=1500, rng=1,
    )  # fmt: skip
    assert 0.01 < expected.pvalue < 0.2
    assert significance.permutation(references, [own], [other], 3) == pytest.approx(expected.pvalue, abs=0.02)


def test_the_permutation_test_of_the_accuracy_is_mcnemars() -> None:
    references, other = np.zeros(40, dtype=int), np.arange(40) % 3
    own = np.where(np.arange(40) < 20, 0, other)
    exact = significance.mcnemar(own == 0, other == 0).p_value
    assert significance.permutation(references, [own], [other], 3, score="accuracy") == pytest.approx(exact, abs=0.01)


def test_draws_of_a_model_are_swapped_together_and_do_not_count_as_rows() -> None:
    references, own = np.arange(30) % 3, np.arange(30) % 3
    other = np.where(np.arange(30) < 4, (own + 1) % 3, own)
    once = significance.permutation(references, [own], [other], 3)
    assert significance.permutation(references, [own], [other] * 5, 3) == once
    assert significance.permutation(references, [other] * 5, [own], 3) == pytest.approx(once, abs=0.02)
    assert 0.1 < once < 0.2  # 2 / 2^4: only the swaps of all four rows or of none are as extreme


def test_blocks_do_not_change_the_permutation_test(monkeypatch: pytest.MonkeyPatch) -> None:
    references, own, other = np.arange(20) % 3, np.arange(20) % 2, np.arange(20) % 3 - 1
    whole = significance.permutation(references, [own], [other], 3, permutations=99)
    monkeypatch.setattr(intervals, "CHUNK_CELLS", 100)
    assert significance.permutation(references, [own], [other], 3, permutations=99) == whole


SETTINGS: dict[str, Any] = {"bootstrap_samples": 200, "confidence": 0.95, "seed": 0}
GOLD = np.arange(60) % 3


def wrong_on(rows: int, first: int = 0) -> Any:
    return np.where((np.arange(60) >= first) & (np.arange(60) < first + rows), (GOLD + 1) % 3, GOLD)


def test_all_scores_of_all_pairs_are_corrected_together() -> None:
    found = significance.compared(GOLD, [([GOLD], [wrong_on(n)]) for n in (6, 12, 0)], 3, **SETTINGS)
    tests = [one for of_pair in found for one in of_pair.values()]
    assert [one.p_holm for one in tests] == significance.holm([one.p_value or 0.0 for one in tests])
    assert found[0]["accuracy"].p_value == pytest.approx(2 / 2**6)  # McNemar with 6 rows to 0
    assert {(one.difference, one.p_value, one.p_holm) for one in found[2].values()} == {(0.0, 1.0, 1.0)}
    assert [significance.shown(of_pair["accuracy"], 0.95) for of_pair in found] == [0, 1, 0]


def test_a_difference_that_other_draws_may_not_have_is_not_shown() -> None:
    steady, unsteady = [wrong_on(14), wrong_on(14, 1), wrong_on(14, 2)], [wrong_on(1), wrong_on(2), wrong_on(39)]
    (of_steady,), (of_unsteady,) = (
        significance.compared(GOLD, [([GOLD], d)], 3, **SETTINGS) for d in (steady, unsteady)
    )
    assert [significance.shown(one, 0.95) for one in of_steady.values()] == [1, 1]
    assert [significance.shown(one, 0.95) for one in of_unsteady.values()] == [0, 0]
    accuracies = [core(GOLD, draw, 3)["accuracy"] for draw in unsteady]
    assert of_unsteady["accuracy"].p_value == pytest.approx(stats.ttest_1samp(accuracies, 1.0).pvalue)


def test_of_two_models_with_draws_the_test_over_draws_is_welchs() -> None:
    own, other = np.array([0.7, 0.8, 0.75]), np.array([0.6, 0.5, 0.9, 0.4])
    expected = stats.ttest_ind(own, other, equal_var=False).pvalue
    assert significance._over_draws(own, other) == pytest.approx(expected)
    assert significance._over_draws(own[:1], other[:1]) == 0.0


@pytest.mark.parametrize(
    ("gap", "p_holm", "sign"), [(-0.1, 0.05, -1), (0.1, 0.05, 1), (-0.1, 0.0501, 0), (-0.1, None, 0)]
)
def test_a_difference_is_shown_by_its_corrected_p_and_not_by_its_interval(
    gap: float, p_holm: float | None, sign: int
) -> None:
    assert significance.shown(Difference(gap, (-0.2, -0.05), 0.001, p_holm), 0.95) == sign


@pytest.mark.parametrize(
    ("interval", "p_holm", "note"),
    [
        ((0.1, 0.3), 0.2, "the interval leaves out 0, but the corrected p decides: no difference is shown"),
        ((-0.1, 0.3), 0.01, "the interval holds 0, but the corrected p decides: a difference is shown"),
        ((0.1, 0.3), 0.01, None),
        ((-0.1, 0.3), 0.2, None),
    ],
)
def test_where_interval_and_test_disagree_a_note_says_that_the_test_decides(
    monkeypatch: pytest.MonkeyPatch, interval: tuple[float, float], p_holm: float, note: str | None
) -> None:
    gap = Difference(0.2, interval)
    monkeypatch.setattr(significance, "differences", lambda *args, **kwargs: dict.fromkeys(SCORES, gap))
    monkeypatch.setattr(significance, "_p_value", lambda *args: p_holm)
    assert significance.compared(GOLD, [([GOLD], [GOLD])], 3, **SETTINGS)[0]["accuracy"].note == note


def test_holm_reproduces_the_textbook_example() -> None:
    # Holm's procedure by hand: 0.01 * 4, max(0.04, 0.03 * 3) ... in ascending order, made monotone, capped at 1.
    assert significance.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert significance.holm([0.9, 0.8]) == [1.0, 1.0]
    assert significance.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float], level: float) -> None:
    rejected = set()
    for step, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[index] * (len(p_values) - step) > level:
            break
        rejected.add(index)
    assert {i for i, p in enumerate(significance.holm(p_values)) if p <= level} == rejected


@pytest.mark.parametrize(
    ("accuracy", "macro_f1", "said"),
    [
        ((-0.1, 0.01), (0.1, 0.01), "is worse than it (accuracy) and better (macro F1)"),
        ((-0.1, 0.01), (-0.1, 0.06), "is worse than it (accuracy)"),
        ((0.1, 0.05), (0.1, 0.01), "is better than it (accuracy, macro F1)"),
        ((0.1, 0.06), (-0.1, 0.9), "cannot be told apart from it (accuracy, macro F1)"),
    ],
)
def test_a_verdict_names_the_scores_that_it_rests_on(
    accuracy: tuple[float, float], macro_f1: tuple[float, float], said: str
) -> None:
    found = {"accuracy": accuracy, "macro_f1": macro_f1}
    differences = {score: Difference(gap, (0.0, 0.0), p, p) for score, (gap, p) in found.items()}
    assert verdicts.against(differences, 0.95, "it") == said
