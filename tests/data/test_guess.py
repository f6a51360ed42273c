"""Which column is taken for the texts and which one for the labels, in tables as people have them."""

from typing import Any

import pytest

from loraft.data.guess import MOST_VALUES, Column, columns_of, guess_label_columns, guess_text_column, names_in
from loraft.data.records import BadRow, Row

TEXTS = ["Giao hàng nhanh lắm", "Máy nóng ran, pin tụt nhanh", "Mong có thêm màu xanh", "ok"]


def table(**cells: list[Any]) -> dict[str, Column]:
    """Twelve rows, in which the cells of each column are repeated."""
    return columns_of(Row(i + 1, {name: values[i % len(values)] for name, values in cells.items()}) for i in range(12))


@pytest.mark.parametrize(
    ("cells", "text", "labels"),
    [
        ({"mã": [*range(12)], "nội dung": TEXTS, "loại": ["khen", "lỗi"]}, "nội dung", ["loại"]),
        # Usual names come first, whatever their diacritics, case and `_`; then few different values.
        ({"Text": TEXTS, "nơi": ["Huế", "Vinh"], "NHAN_CAM_XUC": ["0", "1", "2"]}, "Text", ["NHAN_CAM_XUC", "nơi"]),
        ({"nơi": ["Huế", "Vinh", "Cà Mau"], "text": TEXTS, "a": ["x", "y"]}, "text", ["a", "nơi"]),
        # A usual name need not have the longest texts; a link or a number is no text; a label may be unlike others.
        ({"bình luận": TEXTS, "trả lời mẫu": ["Cảm ơn anh chị đã góp ý ạ"], "label": [1.0, 2.0]},
         "bình luận", ["label"]),
        ({"link": [f"https://a.vn/{i}" for i in range(12)], "b": TEXTS, "sao": [5, 1]}, "b", ["sao"]),
        ({"text": TEXTS, "label": [*"abcdefghijkl"]}, "text", ["label"]),
        ({"text": TEXTS, "spam": [True, False]}, "text", ["spam"]),
        ({"text": TEXTS, "tags": [["a"], ["a", "b"]]}, "text", ["tags"]),
        # Nothing to find: one value only, all different, long texts; no texts.
        ({"text": TEXTS, "a": ["x"], "b": [*range(12)], "c": [f"{t} {t} {t}" for t in TEXTS[:2]]}, "c", ["text"]),
        ({"a": [1, 2]}, None, ["a"]),
    ],
)  # fmt: skip
def test_the_columns_of_texts_and_labels_are_found(
    cells: dict[str, list[Any]], text: str | None, labels: list[str]
) -> None:
    columns = table(**cells)
    assert guess_text_column(columns) == text
    assert guess_label_columns(columns, text) == labels


def test_a_column_counts_filled_cells_and_its_different_values() -> None:
    columns = columns_of([Row(1, {"a": "x y"}), BadRow(2, "?"), Row(3, {"a": None}), Row(4, {"a": "  ", "b": 2.0})])
    assert list(columns) == ["a", "b"]
    assert (columns["a"].filled, columns["a"].length, columns["a"].kind) == (1, 2.0, "text")
    assert (columns["b"].values, columns["b"].kind, columns["b"].example) == ({"2": 1}, "whole numbers", "2.0")
    many = columns_of(Row(i, {"label": i // 2}) for i in range(2 * MOST_VALUES + 2))
    assert (len(many["label"].values), guess_label_columns(many, None)) == (MOST_VALUES, [])


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        (2, ["2"]),
        ("2.0", ["2"]),
        (" e\u0301 ", ["é"]),
        (None, []),
        ("", []),
        (["a", 3, None], ["a", "3"]),
        (True, ["True"]),
    ],
)
def test_the_names_in_a_cell(cell: Any, names: list[str]) -> None:
    assert names_in(cell) == names
