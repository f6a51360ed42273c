"""Read the rows of an Excel file (.xlsx): shared and inline strings, numbers, truth values, and dates.

Source: ECMA-376, part 1, chapter 18 (SpreadsheetML).
"""

import posixpath
import re
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from loraft.data.columns import require_columns
from loraft.data.records import BadRow, Row
from loraft.errors import DataError

BUILT_IN_DATES = {*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)}  # of number formats, 18.8.30
LINK = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"


def xlsx_rows(path: Path, sheet: str | None, required: Sequence[str]) -> Iterator[Row | BadRow]:
    """The rows of one sheet, whose first row that is not empty is the header; empty rows are no rows.

    A number without a fraction is an int, a cell in a date format a datetime, an empty cell None.

    Args:
        path: the file.
        sheet: its name; None is the only sheet that has cells.
        required: columns that the header must have.

    Raises:
        DataError: the file is no Excel file, has no such sheet or several, or the header lacks a column.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield from _rows(_Book(archive, path), sheet, required)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check the path") from error
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, ElementTree.ParseError) as error:
        raise DataError(f"{path}: not a readable Excel file ({error}); save it as .xlsx without a password") from error


class _Book:
    """The parts of a workbook that all sheets share: their names, the strings, and which styles are dates."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self.archive, self.path = archive, path
        main = next((part for part in archive.namelist() if part.endswith("xl/workbook.xml")), "xl/workbook.xml")
        folder = posixpath.dirname(main)
        book, links = self._parse(main), self._parse(f"{folder}/_rels/workbook.xml.rels")
        targets = {link.get("Id"): posixpath.join(folder, link.get("Target", "")) for link in links}
        targets = {key: target.removeprefix("/") for key, target in targets.items()}
        self.sheets = {sheet.get("name", ""): targets[sheet.get(LINK)] for sheet in book.iterfind("{*}sheets/{*}sheet")}
        parts = set(archive.namelist())
        shared = f"{folder}/sharedStrings.xml"
        self.strings = [_text(item) for item in self._parse(shared)] if shared in parts else []
        styles = f"{folder}/styles.xml"
        self.dates = _date_styles(self._parse(styles)) if styles in parts else set()
        properties = book.find("{*}workbookPr")
        since_1904 = properties is not None and properties.get("date1904") in ("1", "true")
        # Day 60 of the other calendar is 29 February 1900, which did not exist: days after it count from 30 December.
        self.day_zero = datetime(1904, 1, 1) if since_1904 else datetime(1899, 12, 30)

    def _parse(self, part: str) -> ElementTree.Element:
        return ElementTree.fromstring(self.archive.read(part))

    def chosen(self, name: str | None) -> str:
        """The part that holds the sheet of that name, or the only one with cells."""
        filled = [one for one, part in self.sheets.items() if re.search(rb"<(\w+:)?c[ >]", self.archive.read(part))]
        names = ", ".join(self.sheets)
        if name is None and len(filled) > 1:
            raise DataError(
                f"{self.path}: several sheets have cells (got {', '.join(filled)}); choose with --set data.sheet=NAME"
            )
        if name is not None and name not in self.sheets:
            raise DataError(f"{self.path}: no such sheet (got data.sheet={name!r}); allowed are {names}")
        return self.sheets[name or (filled or [*self.sheets])[0]]

    def value(self, cell: ElementTree.Element) -> Any:
        """What a cell holds; for an error its text as an `_ErrorCell`."""
        kind, given = cell.get("t", "n"), cell.findtext("{*}v")
        if kind == "inlineStr":
            inline = cell.find("{*}is")
            return None if inline is None else _text(inline)
        if given is None:
            return None
        if kind == "s":
            return self.strings[int(given)]
        if kind == "e":
            return _ErrorCell(given)
        if kind == "b":
            return given == "1"
        if kind != "n":  # the text of a formula, or a date in ISO 8601
            return _unescaped(given)
        number = float(given)
        if int(cell.get("s", 0)) in self.dates:
            return self.day_zero + timedelta(days=number)
        return int(number) if number.is_integer() else number


class _ErrorCell(str):
    """The text of a cell that holds an error, such as #N/A."""


def _rows(book: _Book, sheet: str | None, required: Sequence[str]) -> Iterator[Row | BadRow]:
    header: dict[int, str] = {}  # number of the column to its name
    count = 0
    with book.archive.open(book.chosen(sheet)) as part:
        for _, element in ElementTree.iterparse(part):
            if not element.tag.endswith("}row"):
                continue
            cells: dict[int, Any] = {}
            for position, cell in enumerate(element.iterfind("{*}c")):
                column = _column(cell.get("r", "")) if cell.get("r") else position
                cells[column] = book.value(cell)
            element.clear()
            cells = {column: value for column, value in cells.items() if value not in (None, "")}
            if not cells:
                continue
            if not header:
                header = {c: unicodedata.normalize("NFC", str(value)).strip() for c, value in sorted(cells.items())}
                require_columns([*header.values()], required, str(book.path))
                if len(set(header.values())) != len(header):
                    names = ", ".join(header.values())
                    raise DataError(f"{book.path}: column names repeat (got {names}); rename one")
                continue
            count += 1
            wrong = next((value for value in cells.values() if isinstance(value, _ErrorCell)), None)
            if wrong is not None or cells.keys() - header.keys():
                yield BadRow(count, f"a cell holds the error {wrong}" if wrong else "a cell beside the named columns")
            else:
                yield Row(count, {name: cells.get(column) for column, name in header.items()})
    if not header:
        require_columns([], required, str(book.path))


def _column(reference: str) -> int:
    """The number of the column in a reference such as "AB12", from 0."""
    number = 0
    for letter in re.match(r"[A-Z]*", reference)[0]:  # type: ignore[index]
        number = 26 * number + ord(letter) - ord("A") + 1
    return number - 1


def _text(item: ElementTree.Element) -> str:
    """The text of a string and its runs, without the phonetic ones."""
    return _unescaped("".join(part.text or "" for part in [*item.iterfind("{*}t"), *item.iterfind("{*}r/{*}t")]))


def _unescaped(text: str) -> str:
    # Characters that XML cannot hold, and returns, are written _x000D_; 18.4.1 (ST_Xstring).
    return re.sub(r"_x([0-9A-Fa-f]{4})_", lambda found: chr(int(found[1], 16)), text)


def _date_styles(styles: ElementTree.Element) -> set[int]:
    """The numbers of the cell styles whose number format shows a date or a time."""
    own = {int(one.get("numFmtId", 0)): one.get("formatCode", "") for one in styles.iterfind("{*}numFmts/{*}numFmt")}
    # Letters in quotes, after a backslash or in brackets such as [Red] are no part of a date.
    dates = {key for key, code in own.items() if re.search(r"[dmyhs]", re.sub(r'"[^"]*"|\\.|\[[^\]]*\]', "", code))}
    formats = [int(style.get("numFmtId", 0)) for style in styles.iterfind("{*}cellXfs/{*}xf")]
    return {index for index, key in enumerate(formats) if key in dates | (BUILT_IN_DATES - own.keys())}
