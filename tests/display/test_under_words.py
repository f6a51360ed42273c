"""Words with numbers below them: lines fit, columns stand under each other, nothing acts on the terminal."""

import pytest
from rich.cells import cell_len

from loraft.display.under_words import under_words

WORDS = [("thầy", "+0.69", "green"), ("dạy", "-0.38", "red"), ("nghiêng", "0.00", ""), ("ở", "+10.00", "bold green")]


def test_each_number_stands_below_its_word() -> None:
    made = under_words(WORDS, 80)
    assert made.plain == "thầy   dạy    nghiêng  ở\n+0.69  -0.38  0.00     +10.00"
    assert [(made.plain[span.start : span.end], span.style) for span in made.spans if span.style] == [
        ("thầy", "green"), ("dạy", "red"), ("ở", "bold green"),
        ("+0.69", "green"), ("-0.38", "red"), ("+10.00", "bold green"),
    ]  # fmt: skip


@pytest.mark.parametrize("width", [1, 5, 12, 60, 80])
def test_lines_fit_the_width_and_lose_no_word(width: int) -> None:
    words = [*WORDS, ("http://" + "a" * 100, "+1.00", ""), ("老", "-1.00", ""), ("师", "+1.00", "")] * 5
    lines = under_words(words, width).plain.split("\n")
    assert max(cell_len(line) for line in lines[::3]) <= width
    assert max(cell_len(line) for line in lines[1::3]) <= max(width, 6)  # a number is never cut
    assert set(lines[2::3]) == {""}
    assert len(" ".join(lines[::3]).split()) == len(words)


def test_a_wide_character_takes_two_cells() -> None:
    assert under_words([("老老老老", "0.00", ""), ("a", "1", "")], 80).plain == "老老老老  a\n0.00      1"


def test_control_characters_are_visible_and_groups_are_one_line() -> None:
    made = under_words([("a\x1b[31m", "0.00", ""), ("b\n c\u202e", "0.00", "")], 80).plain
    assert made.split("\n")[0].split("  ") == ["a\\x1b[31m", "b c\\u202e"]


def test_no_words_are_no_lines() -> None:
    assert under_words([], 80).plain == ""
