"""Parse one format into rows: lines, fastText, JSONL, a JSON array, a table with delimiters (CSV, TSV), Parquet.

A row's number counts the data rows from 1: the header is none, a quoted field may hold line ends, and a blank line is a
row only between lines of text. The text formats get the lines of an open file or stream, so that `readers` alone deals
with files and encodings.
"""

import csv
import itertools
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loraft.config.names import listed
from loraft.data.columns import require_columns
from loraft.data.records import BadRow, Row
from loraft.errors import DataError, first_line

FASTTEXT = "__label__"  # what stands before each label of a fastText file
LONGEST_FIELD = 2**31 - 1  # characters; the csv module's own limit is 131,072, and a C long may have 32 bits


def line_rows(lines: Iterable[str], text_column: str) -> Iterator[Row | BadRow]:
    """One row a line; blank lines between others are rows without text, at the end they are no rows."""
    return without_empty_end(Row(row, {text_column: line.rstrip("\r\n")}) for row, line in enumerate(lines, start=1))


def without_empty_end(rows: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
    """The rows without those at the end in which every column is blank, as spreadsheets leave them over."""
    blank: list[Row | BadRow] = []
    for item in rows:
        blank.append(item)
        if isinstance(item, BadRow) or not all(map(is_blank, item.columns.values())):
            # Only now is it known that the rows so far are not at the end.
            yield from blank
            blank.clear()


def is_blank(value: Any) -> bool:
    """Whether a cell holds nothing, or white space only."""
    return value is None or (isinstance(value, str) and not value.strip())


def fasttext_rows(lines: Iterable[str], text_column: str, label_column: str) -> Iterator[Row | BadRow]:
    """One row a line: its words that begin with `__label__` are labels, the rest is text; blank lines are no rows.

    Several labels become a list, which tasks with one label a row refuse.

    Source: https://fasttext.cc/docs/en/supervised-tutorial.html
    """
    for row, line in enumerate((line for line in lines if line.strip()), start=1):
        names = re.findall(rf"(?<!\S){FASTTEXT}(\S+)", line)
        text = re.sub(rf"(?<!\S){FASTTEXT}\S+\s*", "", line).strip()
        yield Row(row, {text_column: text, label_column: names[0] if len(names) == 1 else names or None})


def jsonl_rows(lines: Iterable[str]) -> Iterator[Row | BadRow]:
    """One JSON object a line; blank lines are no rows."""
    for row, line in enumerate((line for line in lines if line.strip()), start=1):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:  # no JSON, a number of thousands of digits, deep nesting
            yield BadRow(row, f"not JSON ({_problem(error)})")
            continue
        yield _object_row(row, value)


def array_rows(text: str, where: str) -> Iterator[Row | BadRow]:
    """The objects of a JSON array.

    Raises:
        DataError: the text is not JSON.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where}: not JSON ({_problem(error)}); give an array of objects, or one object a line"
        ) from error
    yield from itertools.starmap(_object_row, enumerate(values, start=1))


def _problem(error: Exception) -> str:
    """What is wrong with a JSON text; Python's hint for programmers is left out."""
    return "nested too deeply" if isinstance(error, RecursionError) else str(error).partition(";")[0]


def _object_row(row: int, value: Any) -> Row | BadRow:
    if isinstance(value, dict):
        return Row(row, {unicodedata.normalize("NFC", name): cell for name, cell in value.items()})
    return BadRow(row, f"not a JSON object (got {type(value).__name__})")


def table_rows(
    lines: Iterable[str], delimiter: str, where: str, required: Sequence[str], seen: list[str] | None = None
) -> Iterator[Row | BadRow]:
    """The rows of a table whose first line that is not blank is the header, which is added to `seen`.

    Blank lines, and at the end rows in which every field is blank, are no rows.

    Raises:
        DataError: the header is malformed, repeats a name or lacks a required column.
    """
    csv.field_size_limit(LONGEST_FIELD)
    # strict=True makes a stray or unclosed quote an error of its own row; otherwise the quoted field would silently
    # take in the rows after it.
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        not_blank = (names for names in reader if any(name.strip() for name in names))
        header = column_names(next(not_blank, []), required, where)
    except csv.Error as error:
        raise DataError(f"{where}: the header line is malformed ({error}); fix its quotes") from error
    if seen is not None:
        seen += header
    yield from without_empty_end(_fields(reader, header, f"quote fields with {delimiter!r}"))


def _fields(reader: Iterator[list[str]], header: Sequence[str], hint: str) -> Iterator[Row | BadRow]:
    for row in itertools.count(1):
        try:
            fields = next(line for line in reader if line)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRow(row, f"malformed, perhaps a stray or unclosed quote ({error})")
            continue
        while len(fields) > len(header) and not fields[-1].strip():
            fields.pop()
        if len(fields) != len(header):
            yield BadRow(row, f"{len(fields)} fields, but the header has {len(header)}; {hint}")
        else:
            yield Row(row, dict(zip(header, fields, strict=True)))


def column_names(header: Iterable[str], required: Sequence[str], where: str) -> list[str]:
    """The columns that a header names, composed (NFC); without those that a spreadsheet left over at the end.

    An unnamed column between others is called by its number, such as "column 2".

    Raises:
        DataError: a name repeats, or a required one is missing.
    """
    names = [unicodedata.normalize("NFC", name).strip() for name in header]
    while names and not names[-1]:
        names.pop()
    require_columns([name for name in names if name], required, where)
    names = [name or f"column {number}" for number, name in enumerate(names, start=1)]
    _refuse_repeated(names, where)
    return names


def _refuse_repeated(names: Sequence[str], where: str) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{where}: column names repeat (got {listed(twice)} more than once); rename one")


def parquet_rows(path: Path, required: Sequence[str], seen: list[str] | None = None) -> Iterator[Row]:
    """The rows of a Parquet file, read in batches; its columns are added to `seen`.

    Raises:
        DataError: the file cannot be read, or lacks a required column.
    """
    with _open_parquet(path) as file:
        names = [unicodedata.normalize("NFC", name) for name in file.schema_arrow.names]
        require_columns(names, required, str(path))
        _refuse_repeated(names, str(path))
        if seen is not None:
            seen += names
        rows = (columns for batch in file.iter_batches() for columns in batch.rename_columns(names).to_pylist())
        yield from itertools.starmap(Row, enumerate(rows, start=1))


def parquet_label_names(path: Path, column: str) -> list[str]:
    """The names of the ids in a column, in id order, where `datasets` wrote the file and knew names; else none.

    Raises:
        DataError: the file cannot be read.
    """
    with _open_parquet(path) as file:
        metadata = file.schema_arrow.metadata or {}
    try:
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][column]
        return [str(name) for name in feature.get("feature", feature)["names"]]  # "feature": of the labels in a list
    except (AttributeError, KeyError, TypeError, ValueError):  # written by another program, or a column without names
        return []


@contextmanager
def _open_parquet(path: Path) -> Iterator[Any]:
    import pyarrow.parquet

    try:
        # Opened here: pyarrow would take the path for an address where it begins with s3: or the like.
        with path.open("rb") as opened, pyarrow.parquet.ParquetFile(opened) as file:
            yield file
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check the path") from error
    except (pyarrow.ArrowInvalid, OSError) as error:
        if getattr(error, "filename", None) is not None:  # the system's, not pyarrow's
            raise unreadable(path, error) from error
        raise DataError(
            f"{path}: not a readable Parquet file ({first_line(error)}); check that it is complete"
        ) from error


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for a file that the system does not open or read."""
    what = getattr(error, "strerror", None) or first_line(error)
    hint = (
        "--format text reads the files in it" if os.path.isdir(path) else "check its permissions and that it is whole"
    )
    return DataError(f"{path}: cannot be read ({what}); {hint}")
