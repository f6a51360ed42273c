"""Significance tests against scipy, enumeration and procedures by hand."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from loraft.evaluation import significance


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
