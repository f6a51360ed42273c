"""Tables of plain text: how they are aligned, and how they are printed without a terminal."""

import pytest
from rich.table import Table

from loraft.display.page import cells
from loraft.display.table import add_row, fitted, listing, narrow_table, number_table, shorten, show, show_lines

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
    add_row(first, "một câu dài " * 200, MARKUP)
    show([first, second])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert [" ".join(line.split()) for line in lines] == [
        "câu số", f"{'một câu dài ' * 200}{MARKUP}", "", "x", "y", ""
    ]  # fmt: skip


def four() -> Table:
    table = number_table("tên", "điểm", "giây", "bộ nhớ", drop=("bộ nhớ", "giây"))
    add_row(table, "hạng-16", "0.8225 [0.766, 0.869]", "1,234.5", "13,912 MB")
    return table


def test_a_wide_terminal_shows_the_table_as_it_is() -> None:
    table = four()
    assert fitted(table, 80) == [table]


def test_intervals_go_below_their_numbers_before_a_column_is_left_out() -> None:
    (made,) = fitted(four(), 43)
    assert cells(made)[1] == [["hạng-16", "0.8225\n[0.766, 0.869]", "1,234.5", "13,912 MB"]]


def test_columns_are_left_out_in_the_stated_order_and_a_line_names_them() -> None:
    for width, heads in ((39, ["tên", "điểm", "giây"]), (31, ["tên", "điểm", "giây"]), (29, ["tên", "điểm"])):
        made, line = fitted(four(), width)
        assert [head.replace("\n", " ") for head in cells(made)[0]] == heads
        gone = ", ".join(head for head in ("bộ nhớ", "giây") if head not in heads)
        # 7 + 14 + 7 + 9 cells and 3 blanks between them
        assert str(line) == f"left out: {gone}; a terminal of 40 columns or --json shows all"


def test_a_table_that_still_does_not_fit_is_turned_with_all_its_columns() -> None:
    (text,) = fitted(four(), 20)
    assert str(text).splitlines() == [
        "tên: hạng-16", "điểm: 0.8225", "  [0.766, 0.869]", "giây: 1,234.5", "bộ nhớ: 13,912 MB"
    ]  # fmt: skip


def test_show_returns_the_heads_that_no_table_has(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert show([four()]) == set()
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    for columns, heads in (("80", set()), ("31", {"bộ nhớ"}), ("29", {"bộ nhớ", "giây"}), ("20", set())):
        monkeypatch.setenv("COLUMNS", columns)
        assert show([four()]) == heads
        assert show([four(), number_table("giây")]) == heads - {"giây"}


def test_a_column_of_names_is_broken_only_where_leaving_out_others_does_not_help() -> None:
    table = narrow_table("giờ", "tên", drop=("giờ",))
    table.whole = ("tên",)
    add_row(table, "12", "một-cái-tên-rất-dài-không-có-dấu-cách")
    assert [cells(part) for part in fitted(table, 38)[:1]] == [(["tên"], [["một-cái-tên-rất-dài-không-có-dấu-cách"]])]
    assert cells(fitted(table, 30)[0])[0] == ["giờ", "tên"]


def test_notes_are_broken_at_blanks_on_a_terminal_and_long_paths_stay_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    note = "ghi chú: /một/đường/dẫn/rất/dài/không-có-dấu-cách có ba mươi dòng thừa"
    show_lines([note])
    assert capsys.readouterr().out == f"{note}\n"
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    show_lines([note])
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "ghi chú:", "/một/đường/dẫn/rất/dài/không-có-dấu-cách", "có ba mươi dòng thừa"
    ]  # fmt: skip
