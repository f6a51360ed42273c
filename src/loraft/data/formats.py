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
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from loraft.data.columns import CUT, LONGEST, TOO_LONG, require_columns
from loraft.data.records import BadRow, Row
from loraft.errors import DataError, Note, first_line, listed

FASTTEXT = "__label__"  # what stands before each label of a fastText file
DEEPEST = 100  # levels of nesting in a JSON row
# What a value raises that Python has no value for: a date out of range, invalid UTF-8, an unknown time zone.
UNREADABLE = (ArithmeticError, ValueError, TypeError, NotImplementedError)
PARQUET_BATCH = 1024  # rows; of long rows more would take much memory


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
        yield BadRow(row, TOO_LONG) if line.endswith(CUT) else _json_row(row, line)


def array_rows(text: str, where: str) -> Iterator[Row | BadRow]:
    """The objects of a JSON array.

    Raises:
        DataError: the text is not JSON.
    """
    try:
        yield from itertools.starmap(_object_row, enumerate(json.loads(text), start=1))
        return
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error}); give an array of objects, or one object a line") from error
    except (ValueError, RecursionError):  # a number or a nesting in one of its rows, which stops none of the others
        pass
    yield from itertools.starmap(_json_row, enumerate(_elements(text, where), start=1))


def _elements(text: str, where: str) -> Iterator[str]:
    """The source of each element of a JSON array, which is not parsed."""
    depth, start = 0, 0
    for found in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]|,', text, flags=re.DOTALL):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        if depth == 1 and found[0] == "[":
            start = found.end()
        elif depth == (found[0] == ",") and found[0] in ",]" and text[start : found.start()].strip():
            yield text[start : found.start()]
            start = found.end()
    if depth:
        raise DataError(f"{where}: not JSON (the array does not end); give an array of objects, or one object a line")


def _json_row(row: int, text: str) -> Row | BadRow:
    try:
        return _object_row(row, json.loads(text))
    except json.JSONDecodeError as error:
        return BadRow(row, f"not JSON ({error})")
    except ValueError:  # Python's own bound on the digits of an integer
        return BadRow(row, "not JSON (a number has more than 4,300 digits)")
    except RecursionError:
        return BadRow(row, f"not JSON (nested deeper than {DEEPEST} levels)")


def _object_row(row: int, value: Any) -> Row | BadRow:
    if not isinstance(value, dict):
        return BadRow(row, f"not a JSON object (got {type(value).__name__})")
    if _is_deeper(value, DEEPEST):  # what writes it again goes less deep than what reads it
        return BadRow(row, f"nested deeper than {DEEPEST} levels")
    return Row(row, {unicodedata.normalize("NFC", name): cell for name, cell in value.items()})


def _is_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return bool(inner) and (levels == 0 or any(_is_deeper(one, levels - 1) for one in inner))


def table_rows(
    lines: Iterable[str], delimiter: str, where: str, required: Sequence[str], seen: list[str] | None = None
) -> Iterator[Row | BadRow]:
    """The rows of a table whose first line that is not blank is the header, which is added to `seen`.

    Blank lines, and at the end rows in which every field is blank, are no rows.

    Raises:
        DataError: the header is malformed, repeats a name or lacks a required column.
    """
    csv.field_size_limit(LONGEST)  # the csv module's own limit is 131,072
    reader = _Records(lines, delimiter)
    try:
        not_blank = (names for names in reader if any(name.strip() for name in names))
        header = column_names(next(not_blank, []), required, where)
    except csv.Error as error:
        raise DataError(f"{where}: the header line is malformed ({error}); fix its quotes") from error
    if seen is not None:
        seen += header
    yield from without_empty_end(_fields(reader, header, f"quote fields with {delimiter!r}"))


class _Records(Iterator[list[str]]):
    """The records of a table as lists of fields; after an error it goes on with the line after the record's first one.

    A quote that is not closed takes in the lines after it, up to the next quote or to the end of the file. They are
    records of their own, and are read again as such.

    Raises, from `next`:
        csv.Error: a stray or unclosed quote, or a field longer than csv's limit.
    """

    def __init__(self, lines: Iterable[str], delimiter: str) -> None:
        self._lines, self._again = iter(lines), deque[str]()
        self._taken: list[str] = []  # the lines of the present record
        # strict=True makes a stray or unclosed quote an error of its own record; otherwise the quoted field would
        # silently take in the records after it.
        self._reader = csv.reader(self._next_lines(), delimiter=delimiter, strict=True)
        self._delimiter = delimiter

    def _next_lines(self) -> Iterator[str]:
        while line := self._again.popleft() if self._again else next(self._lines, ""):
            self._taken.append(line)
            yield line

    def __next__(self) -> list[str]:
        self._taken.clear()
        repeated = len(self._again)
        try:
            fields = next(self._reader)
        except csv.Error:
            self._again.extendleft(reversed(self._taken[1:]))
            # After the end of its lines a reader does not begin again.
            self._reader = csv.reader(self._next_lines(), delimiter=self._delimiter, strict=True)
            raise
        # Of a record with a line end in it, the line that closes the quote is none by itself.
        line = self._taken[0]
        if repeated and any('"' in one and one in line and one.replace('"', '""') not in line for one in fields):
            raise csv.Error("a quote inside a field that is not quoted")
        return fields


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
            yield BadRow(row, f"{len(fields)} fields, but the header has {len(header)}; {hint}", hint)
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


def parquet_rows(
    path: Path, required: Sequence[str], seen: list[str] | None = None, start: int = 0, stop: int | None = None
) -> Iterator[Row | BadRow]:
    """The rows of a Parquet file from `start` up to `stop`, read in batches; its columns are added to `seen`.

    A cell that Python has no value for makes a row bad where its column is required. In other columns it is null, which
    one note tells at the end.

    Raises:
        DataError: the file cannot be read, or lacks a required column.
    """
    with _open_parquet(path) as file:
        names = [unicodedata.normalize("NFC", name) for name in file.schema_arrow.names]
        require_columns(names, required, str(path))
        _refuse_repeated(names, str(path))
        if seen is not None:
            seen += names
        batches = (batch.rename_columns(names) for batch in _batches(file, start, stop))
        lost: dict[str, list[str]] = {}
        every = (columns for batch in batches for columns in _columns(batch, required, lost))
        for row, columns in enumerate(every, start=start + 1):
            yield BadRow(row, columns) if isinstance(columns, str) else Row(row, columns)
    for name, why in lost.items():
        number = f"{len(why):,} {'cell' if len(why) == 1 else 'cells'}"
        warnings.warn(f"{path}: column {name!r}: {number} cannot be read ({why[0]}); taken as null", Note, stacklevel=1)


def _batches(file: Any, start: int, stop: int | None) -> Iterator[Any]:
    """The batches of some rows of a Parquet file; row groups that hold none of them are not read."""
    ends = list(itertools.accumulate(file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)))
    stop = file.metadata.num_rows if stop is None else stop
    begins = [0, *ends][:-1]
    chosen = [at for at, (begin, end) in enumerate(zip(begins, ends, strict=True)) if begin < stop and end > start]
    first = begins[chosen[0]] if chosen else 0  # row of the next batch
    for batch in file.iter_batches(batch_size=PARQUET_BATCH, row_groups=chosen) if chosen else ():
        begin, end = max(0, start - first), min(batch.num_rows, stop - first)
        first += batch.num_rows
        if begin < end:
            yield batch.slice(begin, end - begin)


def _columns(batch: Any, required: Sequence[str], lost: dict[str, list[str]]) -> Iterable[dict[str, Any] | str]:
    """The columns of each row of a batch, or why a required one is no value of Python; `lost` takes why others are."""
    with suppress(*UNREADABLE):
        return list(batch.to_pylist())
    return [_columns_of(batch.slice(row, 1), required, lost) for row in range(batch.num_rows)]


def _columns_of(row: Any, required: Sequence[str], lost: dict[str, list[str]]) -> dict[str, Any] | str:
    columns = {}
    for name, column in zip(row.schema.names, row.columns, strict=True):
        try:
            columns[name] = column[0].as_py()
        except UNREADABLE as error:
            if name in required:
                return f"column {name!r} cannot be read ({first_line(error)})"
            lost.setdefault(name, []).append(first_line(error))
            columns[name] = None
    return columns


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
    except (pyarrow.ArrowException, OSError) as error:
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
