"""Tables of plain text: how they are aligned, and how they are printed without a terminal."""

import pytest
from rich.table import Table

from loraft.display.page import cells
from loraft.display.table import add_row, listing, narrow_table, number_table, shorten, show

MARKUP = "[red]đỏ[/red] [/b]"


def justified(table: Table) -> list[str]:
    return [column.justify for column in table.columns]


def test_numbers_are_right_aligned_and_the_first_column_is_not() -> None:
    assert justified(number_table("tên", "a", "b")) == ["left", "right", "right"]


def test_a_narrow_tables_last_column_is_words() -> None:
    assert justified(narrow_table("a", "b", "tên")) == ["right", "right", "left"]


def test_a_listing_is_left_aligned() -> None:
    table = listing(["a", "b"], [("1", "2"), ("3", "4")])
    assert justified(table) == ["left", "left"]
    assert cells(table) == (["a", "b"], [["1", "2"], ["3", "4"]])


def test_square_brackets_are_text_in_heads_and_cells() -> None:
    for table in (number_table(MARKUP, MARKUP), narrow_table(MARKUP, MARKUP), listing([MARKUP] * 2, [])):
        add_row(table, MARKUP, MARKUP)
        assert cells(table) == ([MARKUP] * 2, [[MARKUP] * 2])


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [("abcde", 5, "abcde"), ("abcdef", 5, "abcd…"), ("abc def", 5, "abc…"), ("a" * 90, 90, "a" * 90)],
)
def test_a_text_is_cut_to_the_limit_with_its_ellipsis(text: str, limit: int, expected: str) -> None:
    assert shorten(text, limit) == expected


def test_without_a_terminal_a_row_is_one_line_without_frame_or_colour(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = number_table("câu", "số"), listing(["x"], [["y"]])
    add_row(first, "một câu dài " * 20, MARKUP)
    show([first, second])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert [" ".join(line.split()) for line in lines] == [
        "câu số", f"{'một câu dài ' * 20}{MARKUP}", "", "x", "y", ""
    ]  # fmt: skip
