"""Rows out of files and streams: lines, JSONL, JSON, CSV, TSV, Parquet, as they come from other people's programs.

A row that cannot be read is an item of its own (`BadRow`), so that a caller may refuse the file or go on.
"""

import csv
import difflib
import io
import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TextIO

from loraft.data.records import BadRow, Example, Row
from loraft.errors import DataError

Format = Literal["auto", "lines", "jsonl", "csv", "tsv"]
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


def read_inputs(
    source: Path | TextIO, format: Format = "auto", text_column: str = "sentence"
) -> Iterator[Example | BadRow]:
    """Unlabelled sentences one by one, in order; memory does not grow with the number of rows.

    Args:
        source: a file, or a stream such as stdin. A stream that wraps bytes is switched to UTF-8.
        format: "auto" goes by the file's suffix (an unknown one: lines). For a stream or a file without suffix it goes
            by the first line that is not blank: a JSON object, an array of them, or a header that has the text
            column; everything else is lines. Parquet is known by its suffix. An array is read whole.
        text_column: the column that holds the sentence; all others are kept in `extra`.

    Yields:
        An `Example` without label, or a `BadRow` where a row is unreadable or has no text. In a file of lines a blank
        line between others is such a row; at the end, and in all other formats, blank lines are no rows.

    Raises:
        DataError: the file is missing, is cut off in the middle of a character, or has no such column.
    """
    for item in _input_rows(source, format, text_column):
        if isinstance(item, BadRow):
            yield item
            continue
        text, reason = sentence(item.columns, text_column)
        if reason is None and not text:
            reason = "no text"
        if reason is not None:
            yield BadRow(item.row, reason)
        else:
            yield Example(text, None, item.row, {key: item.columns[key] for key in item.columns if key != text_column})


def sentence(columns: dict[str, Any], text_column: str) -> tuple[str, str | None]:
    """The row's sentence, composed (NFC) and stripped, empty if blank; and why it is none, else None."""
    if text_column not in columns:
        return "", missing_column(text_column, columns)
    value = columns[text_column]
    if value is None:
        return "", None
    if not isinstance(value, str):
        return "", f"{text_column!r} is not text (got {value!r})"
    try:
        json.dumps(columns, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return "", "not valid UTF-8; save the file as UTF-8"
    value = value.replace("\r\n", "\n").replace("\r", "\n")  # the same text, whichever system wrote it
    return unicodedata.normalize("NFC", value).strip(), None


def missing_column(name: str, columns: Iterable[str]) -> str:
    """What to say when a column is not there, with the nearest one that is."""
    known = [str(column) for column in columns]
    by_fold = {column.casefold(): column for column in known}
    close = difflib.get_close_matches(name.casefold(), by_fold, n=1, cutoff=0.5)
    hint = f", did you mean {by_fold[close[0]]!r}?" if close else ""
    return f"no column {name!r} (got {', '.join(known) or 'none'}){hint}"


def read_rows(path: Path, required: Sequence[str] = ()) -> Iterator[Row | BadRow]:
    """The rows of a file with columns, in order; its format is known by the suffix.

    Args:
        path: `.jsonl`, `.json` (an array of objects, or JSONL), `.csv`, `.tsv` or `.parquet`. UTF-8 with or without
            a byte-order mark, or UTF-16 with one; any line ends.
        required: columns that a file with a header must have. JSON rows are left to the caller.

    Raises:
        DataError: no such file, an unknown suffix, a file that is not what its suffix says, a missing column.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: unknown file format (got {suffix or 'no suffix'}); allowed are {' '.join(SUFFIXES)}")
    if suffix == ".parquet":
        yield from _parquet_rows(path, required)
        return
    yield from _file_rows(path, suffix.removeprefix("."), required)


def _input_rows(source: Path | TextIO, format: Format, text_column: str) -> Iterator[Row | BadRow]:
    required = (text_column,)
    if isinstance(source, Path):
        if format == "auto" and source.suffix.lower() in SUFFIXES:
            yield from read_rows(source, required)
            return
        yield from _file_rows(source, "lines" if format == "auto" and source.suffix else format, required)
        return
    if isinstance(source, io.TextIOWrapper):
        # Undecodable bytes become lone surrogates, which mark their own row as bad and no other.
        source.reconfigure(encoding="utf-8", errors="surrogateescape")
    yield from _text_rows(source, format, getattr(source, "name", "stdin"), required)


def _file_rows(path: Path, format: str, required: Sequence[str]) -> Iterator[Row | BadRow]:
    with _open(path) as stream:
        try:
            yield from _text_rows(stream, format, str(path), required)
        except UnicodeError as error:  # of UTF-16 only; in UTF-8 a bad byte spoils its own row and no other
            raise DataError(f"{path}: not valid text ({error}); save it as UTF-8") from error


def _text_rows(stream: Iterable[str], format: str, where: str, required: Sequence[str]) -> Iterator[Row | BadRow]:
    lines = iter(stream)
    head = [next(lines, "").removeprefix("\ufeff")]
    while head[-1] and not head[-1].strip():
        head.append(next(lines, ""))
    first = head[-1]
    whole = itertools.chain(head, lines)
    if format == "auto":
        format = _format_of(first, where, required[0])
    if format == "json":
        format = "array" if first.lstrip().startswith("[") else "jsonl"
    if format == "lines":
        yield from _line_rows(whole, required[0])
    elif format == "jsonl":
        yield from _jsonl_rows(whole)
    elif format == "array":
        yield from _array_rows("".join(whole), where)
    else:
        yield from _table_rows(whole, "\t" if format == "tsv" else _delimiter(first), where, required)


def _line_rows(lines: Iterable[str], text_column: str) -> Iterator[Row | BadRow]:
    blank: list[int] = []
    for row, line in enumerate(lines, start=1):
        if not line.strip():
            blank.append(row)
            continue
        # Only now are the blank lines known to stand between rows.
        yield from (BadRow(number, "no text") for number in blank)
        blank.clear()
        yield Row(row, {text_column: line.rstrip("\r\n")})


def _jsonl_rows(lines: Iterable[str]) -> Iterator[Row | BadRow]:
    for row, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            yield BadRow(row, f"not JSON ({error})")
            continue
        yield _object_row(row, value)


def _array_rows(text: str, where: str) -> Iterator[Row | BadRow]:
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}); give an array of objects, or one object a line") from error
    yield from itertools.starmap(_object_row, enumerate(values, start=1))


def _object_row(row: int, value: Any) -> Row | BadRow:
    if isinstance(value, dict):
        return Row(row, value)
    return BadRow(row, f"not a JSON object (got {type(value).__name__})")


def _table_rows(lines: Iterable[str], delimiter: str, where: str, required: Sequence[str]) -> Iterator[Row | BadRow]:
    # strict: a stray or unclosed quote is an error of its row; otherwise it would swallow rows without a word.
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        named = (names for names in reader if any(name.strip() for name in names))  # blank lines may come first
        header = [name.strip() for name in next(named, [])]
    except csv.Error as error:
        raise DataError(f"{where}: the header line is malformed ({error})") from error
    _require(header, required, where)
    if len(set(header)) != len(header):
        raise DataError(f"{where}: column names repeat (got {', '.join(header)}); rename one")
    while True:
        row = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRow(row, f"malformed, quotes perhaps ({error})")
            continue
        if fields and len(fields) != len(header):
            yield BadRow(
                row, f"{len(fields)} fields where the header has {len(header)}; quote fields with {delimiter!r}"
            )
        elif fields:  # a blank line is no row
            yield Row(row, dict(zip(header, fields, strict=True)))


def _parquet_rows(path: Path, required: Sequence[str]) -> Iterator[Row]:
    with _open_parquet(path) as file:
        _require(file.schema_arrow.names, required, str(path))
        rows = (columns for batch in file.iter_batches() for columns in batch.to_pylist())
        yield from itertools.starmap(Row, enumerate(rows, start=1))


def class_names(path: Path, column: str) -> list[str]:
    """The names behind the ids in a column of a Parquet file, in id order, as `datasets` writes them; else none.

    Raises:
        DataError: the file cannot be read.
    """
    with _open_parquet(path) as file:
        metadata = file.schema_arrow.metadata or {}
    try:
        return [str(name) for name in json.loads(metadata[b"huggingface"])["info"]["features"][column]["names"]]
    except (KeyError, TypeError, ValueError):  # another writer's file, or a column without names
        return []


@contextmanager
def _open_parquet(path: Path) -> Iterator[Any]:
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check the path") from error
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from error


def _require(header: Sequence[str], required: Sequence[str], where: str) -> None:
    for name in required:
        if name not in header:
            raise DataError(f"{where}: {missing_column(name, header)}; name it with {_column_key(name, required)}")


def _column_key(name: str, required: Sequence[str]) -> str:
    if len(required) == 1:  # sentences without labels, which only predict reads
        return "--text-column NAME"
    key = "text_column" if name == required[0] else "label_column"
    return f"--set data.{key}=NAME"


def _delimiter(header: str) -> str:
    # Spreadsheets in locales with a decimal comma, Vietnamese among them, write semicolons and call it CSV.
    return ";" if ";" in header and "," not in header else ","


def _format_of(first: str, where: str, text_column: str) -> str:
    """The format of a stream by its first line that is not blank.

    Raises:
        DataError: the line is a JSON object without the text column; its source would be labelled as a sentence.
    """
    if re.fullmatch(r"\s*\[\s*(\{.*)?", first, flags=re.DOTALL):
        return "array"
    try:
        value = json.loads(first)
    except (json.JSONDecodeError, RecursionError):
        value = None
    if isinstance(value, dict):
        if text_column not in value:
            hint = "name it with --text-column NAME, or label the lines as they are with --format lines"
            raise DataError(f"{where}: {missing_column(text_column, value)}; {hint}")
        return "jsonl"
    for delimiter in "\t,;":
        try:
            header = next(csv.reader([first], delimiter=delimiter), [])
        except csv.Error:
            continue
        if text_column in (name.strip() for name in header):
            return "tsv" if delimiter == "\t" else "csv"
    return "lines"


def _open(path: Path) -> TextIO:
    try:
        file = path.open("rb")
        # Opened once and peeked at, for what is read from a pipe does not come again.
        wide = file.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff")
        # newline="" leaves line ends inside quotes to the csv module.
        if wide:
            return io.TextIOWrapper(file, encoding="utf-16", newline="")
        return io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
