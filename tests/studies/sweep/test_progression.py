"""Dots in a list of numbers are expanded where exactly one progression fits, and refused with the reason elsewhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraft.errors import ConfigError
from loraft.studies.sweep.progression import MOST_TERMS, expand_integers


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1,2,4,...,128", [1, 2, 4, 8, 16, 32, 64, 128]),
        ("1,2,3,...,8", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("4,8,12,...,20", [4, 8, 12, 16, 20]),
        ("128,64,...,1", [128, 64, 32, 16, 8, 4, 2, 1]),
        ("5,4,...,1", [5, 4, 3, 2, 1]),
        ("4,6,9,...,9", None),  # 9 is there already
        ("1,2,...,5", [1, 2, 3, 4, 5]),  # 1, 2, 4, 8 passes 5
        ("1,2,4,...,64,128", [1, 2, 4, 8, 16, 32, 64, 128]),
        ("1, 2, 4, …, 8", [1, 2, 4, 8]),
        ("8", [8]),
        ("3,1,2", [3, 1, 2]),
        ("0,1,...,3", [0, 1, 2, 3]),
    ],
)
def test_dots_stand_for_the_one_progression_that_fits(text: str, numbers: list[int] | None) -> None:
    if numbers is None:
        with pytest.raises(ConfigError):
            expand_integers(text, "--ranks")
    else:
        assert expand_integers(text, "--ranks") == numbers


@given(st.integers(-50, 50), st.integers(-9, 9).filter(bool), st.integers(4, 40))
def test_three_numbers_and_the_last_name_every_arithmetic_progression(first: int, step: int, count: int) -> None:
    numbers = [first + step * i for i in range(count)]
    assert expand_integers(f"{numbers[0]},{numbers[1]},{numbers[2]},...,{numbers[-1]}", "x") == numbers


@given(st.integers(1, 9), st.integers(2, 5), st.integers(4, 9))
def test_three_numbers_and_the_last_name_every_geometric_progression(first: int, ratio: int, count: int) -> None:
    numbers = [first * ratio**i for i in range(count)]
    assert expand_integers(f"{numbers[0]},{numbers[1]},{numbers[2]},...,{numbers[-1]}", "x") == numbers


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1,2,...,8", "arithmetic 1, 2, 3, ..., 8 or geometric 1, 2, 4, 8"),
        ("1,2,4,...,100", "arithmetic 1, 2, 3, ..., 100 and geometric 1, 2, 4, ..., 128"),
        ("1,8,16,...,64", "arithmetic 1, 8, 15, ..., 64 and geometric 1, 8, 64"),
        ("4,6,9,...,14", "geometric 4, 6, 9, 13.5"),
        ("1,2,4,...,32,100", "geometric 1, 2, 4, ..., 128"),
    ],
)
def test_anything_ambiguous_is_refused_with_the_expansions_that_were_tried(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        expand_integers(text, "--ranks")
    assert f"got {text!r}" in str(error.value)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("8,...,64", "at least two numbers before"),
        ("1,2,4,...", "at least one after"),
        ("1,2,...,8,...,64", "the dots only once"),
        ("1,1,...,1", "the first numbers are equal"),
        ("1,x", "not a whole number (got 'x'"),
        ("1,,2", "not a whole number (got ''"),
        ("1.5,2", "not a whole number (got '1.5'"),
        ("8,8", "the same number twice (got 8"),
        (f"1,2,3,...,{MOST_TERMS + 1}", "and on"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        expand_integers(text, "--ranks")
    assert str(error.value).startswith("--ranks: ")
    assert told in str(error.value)
