"""Read the rows of an Excel file (.xlsx) with openpyxl."""

import zipfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from loraft.data.formats import column_names
from loraft.data.records import BadRow, Row
from loraft.errors import DataError

TITLE_ROWS = 5  # rows that may stand above the header


def xlsx_rows(path: Path, sheet: str | None, required: Sequence[str]) -> Iterator[Row | BadRow]:
    """The rows of one sheet below its header; empty rows are no rows.

    The header is the first row that has all required columns, if it is one of the first that are not empty: titles may
    stand above it. Otherwise it is the first row. Numbers and dates keep their type; an empty cell is None, a formula
    the value that was saved with it. Of merged cells only the first has a value.

    Args:
        path: the file.
        sheet: its name; None is the only sheet that has cells.
        required: columns that the header must have.

    Raises:
        DataError: the file is no Excel file, has no such sheet or several, or the header lacks a column.
    """
    import openpyxl

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            rows = _filled_rows(_chosen(book.worksheets, sheet, path))
            first = list(islice(rows, TITLE_ROWS))
            names = [["" if cell is None else str(cell) for cell in values] for values, _ in first]
            start = next((at for at, one in enumerate(names) if {*required} <= {*map(str.strip, one)}), 0)
            header = column_names(names[start] if names else [], required, str(path))
            below = (item for part in (first[start + 1 :], rows) for item in part)
            for row, (values, error) in enumerate(below, start=1):
                if error is not None or any(not _empty(value) for value in values[len(header) :]):
                    yield BadRow(row, f"a cell holds the error {error}" if error else "a cell beside the named columns")
                else:
                    values += [None] * (len(header) - len(values))
                    yield Row(row, dict(zip(header, values, strict=False)))
        finally:
            book.close()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check the path") from error
    except (OSError, KeyError, ValueError, SyntaxError, zipfile.BadZipFile) as error:  # a ParseError is a SyntaxError
        raise DataError(f"{path}: not a readable Excel file ({error}); save it as .xlsx without a password") from error


def _chosen(sheets: Sequence[Any], name: str | None, path: Path) -> Any:
    """The sheet of that name, or the only one with cells."""
    if name is not None:
        for sheet in sheets:
            if sheet.title == name:
                return sheet
        titles = ", ".join(sheet.title for sheet in sheets)
        raise DataError(f"{path}: no such sheet (got data.sheet={name!r}); allowed are {titles}")
    filled = [sheet for sheet in sheets if next(_filled_rows(sheet), None)] or sheets[:1]
    if len(filled) != 1:
        titles = ", ".join(sheet.title for sheet in filled)
        raise DataError(f"{path}: not one sheet with cells (got {titles or 'none'}); choose with --set data.sheet=NAME")
    return filled[0]


def _filled_rows(sheet: Any) -> Iterator[tuple[list[Any], str | None]]:
    """The values of each row that is not empty, and the first error among them, such as #N/A."""
    sheet.reset_dimensions()  # some programs write wrong ones
    for cells in sheet.iter_rows():
        # Excel writes a carriage return as _x000D_ (ECMA-376, part 1, 22.9.2.19), which openpyxl leaves so.
        values = [c.value.replace("_x000D_", "\r") if isinstance(c.value, str) else c.value for c in cells]
        if not all(map(_empty, values)):
            yield values, next((c.value for c in cells if c.data_type == "e"), None)


def _empty(value: Any) -> bool:
    return value is None or value == ""
