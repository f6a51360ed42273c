"""Read the rows of an Excel file (.xlsx) with openpyxl."""

import unicodedata
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from loraft.data.formats import column_names, is_blank, unreadable, without_empty_end
from loraft.data.records import BadRow, Row
from loraft.errors import DataError, first_line, listed

_Cells = tuple[list[Any], list[int]]  # the values of a row, and which of them are errors, such as #N/A
TITLE_ROWS = 20  # the header is looked for in so many rows


def xlsx_rows(
    path: Path, sheet: str | None, required: Sequence[str], seen: list[str] | None = None
) -> Iterator[Row | BadRow]:
    """The rows of one sheet below its header; empty rows between others count, at the end they are no rows.

    The header is the first row that has all required columns, so that titles may stand above it; otherwise the first
    row that is not empty. Numbers and dates keep their type; an empty cell is None, a formula the value that was saved
    with it. Of merged cells only the first has a value. An error such as #N/A makes its row bad in a required column
    only; elsewhere it is text.

    Args:
        path: the file.
        sheet: its name; None is the only sheet that has cells.
        required: columns that the header must have.
        seen: takes the header.

    Raises:
        DataError: the file is no Excel file, has no such sheet or several, or the header lacks a column.
    """
    import openpyxl

    try:
        with path.open("rb") as file:
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            rows = _rows(_chosen(book.worksheets, sheet, path))
            above = list(islice(rows, TITLE_ROWS))
            named = [[_name(cell) for cell in values] for values, _ in above]
            filled = [at for at, names in enumerate(named) if any(names)]
            start = next((at for at in filled if {*required} <= {*named[at]}), filled[0] if filled else 0)
            header = column_names(named[start] if named else [], required, str(path))
            if seen is not None:
                seen += header
            yield from without_empty_end(_below(header, required, chain(above[start + 1 :], rows)))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise unreadable(path, error) from error
    except (KeyError, ValueError, SyntaxError, zipfile.BadZipFile) as error:  # a ParseError is a SyntaxError
        raise DataError(
            f"{path}: not a readable Excel file ({first_line(error)}); save it as .xlsx without a password"
        ) from error


def _chosen(sheets: Sequence[Any], name: str | None, path: Path) -> Any:
    """The sheet of that name, or the only one with cells."""
    if name is not None:
        for sheet in sheets:
            if sheet.title == name:
                return sheet
        titles = listed(sheet.title for sheet in sheets)
        raise DataError(f"{path}: no such sheet (got data.sheet={name!r}); allowed are {titles}")
    filled = [sheet for sheet in sheets if any(map(_name, chain.from_iterable(values for values, _ in _rows(sheet))))]
    filled = filled or [*sheets[:1]]
    if len(filled) != 1:
        titles = listed(sheet.title for sheet in filled)
        raise DataError(f"{path}: not one sheet with cells (got {titles or 'none'}); choose with --set data.sheet=NAME")
    return filled[0]


def _rows(sheet: Any) -> Iterator[_Cells]:
    sheet.reset_dimensions()  # some programs write wrong ones
    for cells in sheet.iter_rows():
        # Excel writes a carriage return as _x000D_ (ECMA-376, part 1, 22.9.2.19), which openpyxl leaves so.
        values = [c.value.replace("_x000D_", "\r") if isinstance(c.value, str) else c.value for c in cells]
        yield values, [at for at, cell in enumerate(cells) if cell.data_type == "e"]


def _below(header: Sequence[str], required: Sequence[str], rows: Iterable[_Cells]) -> Iterator[Row | BadRow]:
    for row, (values, errors) in enumerate(rows, start=1):
        values += [None] * (len(header) - len(values))
        error = next((at for at in errors if at < len(header) and header[at] in required), None)
        if error is not None:
            yield BadRow(row, f"{header[error]!r} holds the error {values[error]}")
        elif not all(map(is_blank, values[len(header) :])):
            yield BadRow(row, "a cell beside the named columns")
        else:
            yield Row(row, dict(zip(header, values, strict=False)))


def _name(cell: Any) -> str:
    return "" if cell is None else unicodedata.normalize("NFC", str(cell)).strip()
