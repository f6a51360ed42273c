"""Excel files that hold no labelled sentences, and the choice of a sheet."""

import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import openpyxl
import pytest
from helpers.bad_input import refusal

HEADER = ["sentence", "sentiment"]
SHEETS: dict[str, tuple[dict[str, list[list[object]]], list[str], str]] = {
    "no cells": ({"Sheet": []}, [], r"no column 'sentence' \(got none\)"),
    "two sheets with cells": ({"a": [HEADER], "b": [["ghi chú"]]}, [], r"not one sheet with cells \(got a, b\)"),
    "fifteen sheets": ({f"s{i}": [HEADER] for i in range(15)}, [], r"\(got s0, .* and 5 more\); choose with --set"),
    "a sheet that is not there": ({"a": [HEADER]}, ["data.sheet=b"], r"no such sheet \(got data\.sheet='b'\); allowed"),
    "another case of a sheet": ({"Góp ý": [HEADER]}, ["data.sheet=góp ý"], r"no such sheet .* allowed are Góp ý"),
    "a number for a sheet": ({"a": [HEADER]}, ["data.sheet='1'"], r"no such sheet \(got data\.sheet='1'\)"),
    "a sheet without cells": ({"a": [], "b": [HEADER]}, ["data.sheet=a"], r"no column 'sentence' \(got none\)"),
    "header only": ({"a": [HEADER]}, [], r"no row with text and label \(got an empty source\)"),
    "titles only": ({"a": [["Góp ý của sinh viên"], ["học kỳ 1"]]}, [], r"no column 'sentence' \(got Góp ý của sinh v"),
    "header below 20 titles": ({"a": [["t"]] * 20 + [HEADER, ["hay", "positive"]]}, [], r"no column .* \(got t\)"),
    "no labels": ({"a": [["sentence"], ["hay"]]}, [], r"no column 'sentiment' \(got sentence\)"),
    "header twice": ({"a": [[*HEADER, "sentiment"]]}, [], r"column names repeat \(got sentiment more than once\)"),
    "a number as text": ({"a": [HEADER, [5, "positive"]]}, [], r"row 1: 'sentence' is not text \(got 5\)"),
    "a date as text": ({"a": [HEADER, [datetime(2026, 1, 2), "positive"]]}, [], r"row 1: 'sentence' is not text"),
    "an error as text": ({"a": [HEADER, ["#N/A", "positive"]]}, [], r"row 1: 'sentence' holds the error #N/A"),
    "an error as label": ({"a": [HEADER, ["hay", "#DIV/0!"]]}, [], r"row 1: 'sentiment' holds the error #DIV/0!"),
    "a date as label": ({"a": [HEADER, ["hay", datetime(2026, 1, 2)]]}, [], r"row 1: unknown label in 'sentiment'"),
    "no label": ({"a": [HEADER, ["hay", None]]}, [], r"row 1: no label in 'sentiment'"),
    "a formula without value": ({"a": [HEADER, ["hay", "=1+1"]]}, [], r"row 1: no label in 'sentiment'"),
    "a cell beside the columns": ({"a": [HEADER, ["hay", "positive", "?"]]}, [], r"row 1: a cell beside the named col"),
    "an unknown label": ({"a": [HEADER, ["hay", "tốt"]]}, [], r"row 1: unknown label in 'sentiment' \(got 'tốt'\)"),
}  # fmt: skip


def text(path: Path) -> None:
    path.write_text("sentence,sentiment\nhay,positive\n", encoding="utf-8")


def old_format(path: Path) -> None:
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))


def empty_archive(path: Path) -> None:
    zipfile.ZipFile(path, "w").close()


def other_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train.csv", "sentence,sentiment\nhay,positive\n")


def without(part: str) -> Callable[[Path], None]:
    return lambda path: rewrite(path, lambda name, content: None if part in name else content)


def damaged(part: str, content: bytes) -> Callable[[Path], None]:
    return lambda path: rewrite(path, lambda name, old: content if part in name else old)


def rewrite(path: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    book = openpyxl.Workbook()
    book.active.append(HEADER)
    book.active.append(["thầy dạy hay", "positive"])
    book.save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            if (changed := change(name, content)) is not None:
                archive.writestr(name, changed)


def cut_off(path: Path) -> None:
    rewrite(path, lambda name, content: content)
    path.write_bytes(path.read_bytes()[:3000])


FILES = {
    "empty": Path.touch,
    "CSV": text,
    "old Excel, or with a password": old_format,
    "empty archive": empty_archive,
    "archive of a CSV": other_archive,
    "cut off": cut_off,
    "no workbook": without("workbook.xml"),
    "no sheets": without("sheet1.xml"),
    "no types": without("Content_Types"),
    "damaged sheet": damaged("sheet1.xml", b"<worksheet><sheetData><row>"),
    "damaged workbook": damaged("workbook.xml", b"<workbook"),
    "binary workbook": damaged("workbook.xml", bytes(50)),
    "entities that grow": damaged(
        "sheet1.xml", b'<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><worksheet>&b;</worksheet>'
    ),
}


@pytest.mark.parametrize(("sheets", "sets", "says"), SHEETS.values(), ids=SHEETS)
def test_a_workbook_without_labelled_sentences_is_refused(
    sheets: dict[str, list[list[object]]], sets: list[str], says: str
) -> None:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save("a.xlsx")
    refusal(["train", "--data", "a.xlsx", *(word for one in sets for word in ("--set", one))], r"^error:\s+a\.xl", says)


@pytest.mark.parametrize("write", FILES.values(), ids=FILES)
def test_a_file_that_is_no_workbook_is_refused(write: Callable[[Path], None]) -> None:
    write(Path("a.xlsx"))
    refusal(["data", "a.xlsx"], r"a\.xlsx: (not a readable Excel file \(.*\); save it as|no rows|not one sheet)")
