"""Results in Python: short text, HTML with every text escaped, pandas with every number."""

import sys
from typing import Any

import pytest

from loraft.display.tabled import LONGEST, WIDTH, Measured, Tabled
from loraft.errors import LoraftError

SCRIPT = "<script>alert('điểm')</script>"


class Result(Tabled):
    def __init__(self, *rows: dict[str, Any], head: str = "góp ý") -> None:
        self.rows, self.head = list(rows), head

    def _table(self) -> tuple[str, list[dict[str, Any]]]:
        return self.head, self.rows


def test_text_has_a_line_for_each_row_with_aligned_numbers() -> None:
    shown = Result(
        {"nhãn": "tích cực", "F1": Measured(0.75, (0.7, 0.8)), "rows": 1200},
        {"nhãn": "tiêu cực", "F1": Measured(0.5, sd=0.01), "rows": None},
    )
    assert repr(shown).splitlines() == [
        "Result: góp ý",
        "nhãn                         F1   rows",
        "tích cực  0.7500 [0.700, 0.800]  1,200",
        "tiêu cực         0.5000 ±0.0100",
    ]


def test_pandas_has_intervals_and_deviations_in_columns_of_their_own() -> None:
    frame = Result({"nhãn": "tích cực", "F1": Measured(1 / 3, (0.25, 0.5), 0.125)}, {"nhãn": "<b>"}).to_pandas()
    assert frame.iloc[0].to_dict() == {"nhãn": "tích cực", "F1": 1 / 3, "F1_sd": 0.125, "F1_low": 0.25, "F1_high": 0.5}
    assert frame["nhãn"].tolist() == ["tích cực", "<b>"]
    assert frame["F1"].isna().tolist() == [False, True]


def test_columns_whose_names_end_alike_stay_columns() -> None:
    assert "price_low" in repr(Result({"price": 0.5, "price_low": 0.25}))


def test_html_escapes_every_text() -> None:
    page = Result({SCRIPT: SCRIPT, "b": 1}, head=SCRIPT)._repr_html_()
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(&#x27;điểm&#x27;)") == 3
    assert page.count("<td>") == 2


def test_control_characters_are_visible() -> None:
    assert "\x1b" not in repr(Result({"a": "\x1b[31mđỏ"}, head="\x1b[2J"))


def test_many_rows_columns_and_letters_are_cut_short_and_counted() -> None:
    shown = Result(*({f"cột thứ {n}": "chữ " * 40 for n in range(9)} for _ in range(3166)))
    lines = repr(shown).splitlines()
    assert len(lines) == 18
    assert max(map(len, lines[1:])) <= max(WIDTH, 2 * (LONGEST + 2))
    assert lines[-1] == "3,151 more rows and 7 more columns: to_pandas()"
    assert lines[-1] in shown._repr_html_()
    assert shown.to_pandas().shape == (3166, 9)


def test_nothing_is_a_table_too() -> None:
    assert repr(Result()) == "Result: góp ý\nnothing"
    assert Result().to_pandas().empty


def test_without_pandas_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(LoraftError, match="pip install pandas"):
        Result({"a": 1}).to_pandas()
