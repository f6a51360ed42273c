"""Results in Python: short text, HTML with every text escaped, pandas with every number."""

import sys
from typing import Any

import pytest

from loraft.display.tabled import LONGEST, WIDTH, Measured, Tabled
from loraft.errors import LoraftError
from loraft.evaluation.explanation import Explanation, ExplanationList, WordEffect
from loraft.evaluation.predict import Prediction
from loraft.evaluation.prediction_table import Predictions

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


def test_a_long_line_above_the_table_is_cut_short() -> None:
    shown = Result({"a": 1}, head="thầy giảng bài\n" * 100)
    above = repr(shown).splitlines()[0]
    assert above.startswith("Result: thầy giảng bài thầy")
    assert len(above) <= 2 * WIDTH
    assert len(repr(shown).splitlines()) == 3


def test_another_way_to_the_whole_table_is_named_where_there_is_one() -> None:
    class Other(Result):
        whole = ".other.to_pandas()"

    assert repr(Other(*({"a": n} for n in range(20)))).splitlines()[-1] == "5 more rows: .other.to_pandas()"


def test_a_part_of_a_list_is_a_table_and_an_empty_one_has_columns() -> None:
    found = Predictions([Prediction(row, "câu", "tốt", {"tốt": 0.75, "kém": 0.25}) for row in (1, 2, 3)])
    assert found[1:].to_pandas()["row"].tolist() == [2, 3]
    assert found[-1].row == 3
    assert list(found[:0].to_pandas()) == ["row", "text", "label", "confidence"]


def test_explanations_are_a_table_of_words() -> None:
    words = (WordEffect("bài", 0, 3, 1.5), WordEffect("hay", 4, 7, -0.5))
    found = ExplanationList([Explanation(n, "bài hay", "tốt", 0.75, 1.1, words) for n in (1, 2)])
    frame = found.to_pandas()
    assert frame["row"].tolist() == [1, 1, 2, 2]
    assert frame[["word", "effect"]].to_numpy().tolist() == [["bài", 1.5], ["hay", -0.5]] * 2
    assert repr(found).splitlines()[0] == "ExplanationList: 2 explanations; effect in nats"


def test_nothing_is_a_table_too() -> None:
    assert repr(Result()) == "Result: góp ý\nnothing"
    assert Result().to_pandas().empty


def test_without_pandas_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(LoraftError, match="pip install pandas"):
        Result({"a": 1}).to_pandas()
