"""Excel files as openpyxl writes them."""

import zipfile
from datetime import date, datetime
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from loraft.data.records import BadRow, Row
from loraft.data.xlsx import xlsx_rows
from loraft.errors import DataError


def book(path: Path, *sheets: list[list[Any]], merged: str | None = None) -> Path:
    """An Excel file with the rows of its sheets, which are called Tờ1, Tờ2, ...; the cells `merged` are merged."""
    made = openpyxl.Workbook()
    made.remove(made.active)
    for number, rows in enumerate(sheets, start=1):
        sheet = made.create_sheet(f"Tờ{number}")
        for row in rows:
            sheet.append(row)
        if merged:
            sheet.merge_cells(merged)
    made.save(path)
    return path


def test_cells_keep_their_type_and_empty_ones_are_none(tmp_path: Path) -> None:
    rows = [
        [" sentence ", None, "nha\u0303n", None],
        [],
        ["dễ hiểu", "x", 2],
        ["một_x000D_\nhai", None, 0.5, ""],
        [True, None, datetime(2024, 1, 1, 12)],
        [None, None, date(2024, 1, 2)],
        ["#N/A", None, 1],
        ["khá", None, "#DIV/0!"],
        ["hay", None, 1, "bên cạnh"],
        [None, " "],
        [],
    ]
    path = book(tmp_path / "a.xlsx", rows, [])
    assert list(xlsx_rows(path, None, ("sentence",))) == [
        Row(1, {"sentence": None, "column 2": None, "nhãn": None}),
        Row(2, {"sentence": "dễ hiểu", "column 2": "x", "nhãn": 2}),
        Row(3, {"sentence": "một\r\nhai", "column 2": None, "nhãn": 0.5}),
        Row(4, {"sentence": True, "column 2": None, "nhãn": datetime(2024, 1, 1, 12)}),
        Row(5, {"sentence": None, "column 2": None, "nhãn": datetime(2024, 1, 2)}),
        BadRow(6, "'sentence' holds the error #N/A"),
        Row(7, {"sentence": "khá", "column 2": None, "nhãn": "#DIV/0!"}),
        BadRow(8, "a cell beside the named columns"),
    ]


def test_titles_and_merged_cells_may_stand_above_the_header(tmp_path: Path) -> None:
    rows = [["Khảo sát học kỳ 1"], [], ["sentence", "điểm"], ["hay", 5]]
    path = book(tmp_path / "a.xlsx", rows, merged="A1:B1")
    assert list(xlsx_rows(path, None, ("sentence",))) == [Row(1, {"sentence": "hay", "điểm": 5})]
    path = book(tmp_path / "b.xlsx", rows[2:], merged="B1:C1")
    assert list(xlsx_rows(path, None, ("sentence",))) == [Row(1, {"sentence": "hay", "điểm": 5})]


def test_a_sheet_is_chosen_by_name_and_never_silently(tmp_path: Path) -> None:
    path = book(tmp_path / "a.xlsx", [["sentence", "nhãn"]], [["sentence", "nhãn"], [7]])
    assert list(xlsx_rows(path, "Tờ2", ("sentence",))) == [Row(1, {"sentence": 7, "nhãn": None})]
    assert list(xlsx_rows(path, "Tờ1", ("sentence",))) == []
    with pytest.raises(DataError, match=r"not one sheet with cells \(got Tờ1, Tờ2\); choose with --set data.sheet"):
        list(xlsx_rows(path, None, ("sentence",)))
    with pytest.raises(DataError, match=r"no such sheet \(got data.sheet='x'\); allowed are Tờ1, Tờ2"):
        list(xlsx_rows(path, "x", ("sentence",)))
    with pytest.raises(DataError, match="no column 'câu'"):
        list(xlsx_rows(path, "Tờ1", ("câu",)))


def test_what_is_no_excel_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_text("sentence\nhay\n", encoding="utf-8")
    with pytest.raises(DataError, match="not a readable Excel file"):
        list(xlsx_rows(tmp_path / "a.xlsx", None, ()))
    whole = book(tmp_path / "c.xlsx", [["sentence"]]).read_bytes()
    (tmp_path / "a.xlsx").write_bytes(whole[:-99])
    with pytest.raises(DataError, match="not a readable Excel file"):
        list(xlsx_rows(tmp_path / "a.xlsx", None, ()))
    with pytest.raises(DataError, match="no such file"):
        list(xlsx_rows(tmp_path / "b.xlsx", None, ()))


def test_the_size_that_a_program_writes_of_a_sheet_does_not_count(tmp_path: Path) -> None:
    book(tmp_path / "a.xlsx", [["sentence", "nhãn"], ["hay", 2]])
    with zipfile.ZipFile(tmp_path / "a.xlsx") as whole, zipfile.ZipFile(tmp_path / "b.xlsx", "w") as changed:
        for name in whole.namelist():
            changed.writestr(name, whole.read(name).replace(b'<dimension ref="A1:B2"', b'<dimension ref="A1:A1"'))
    assert list(xlsx_rows(tmp_path / "b.xlsx", None, ())) == [Row(1, {"sentence": "hay", "nhãn": 2})]
