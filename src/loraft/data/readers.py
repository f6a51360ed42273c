"""Read rows from files and streams of any supported format, one at a time.

This file opens the source, finds out its encoding and format, and hands its lines to a parser of `formats`.
"""

import csv
import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TextIO

from loraft.data import formats
from loraft.data.columns import missing_column, sentence
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
        yield from formats.parquet_rows(path, required)
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
        # Undecodable bytes become lone surrogates, so that one bad byte makes its own row bad and no other.
        source.reconfigure(encoding="utf-8", errors="surrogateescape")
    yield from _text_rows(source, format, getattr(source, "name", "stdin"), required)


def _file_rows(path: Path, format: str, required: Sequence[str]) -> Iterator[Row | BadRow]:
    with _open(path) as stream:
        try:
            yield from _text_rows(stream, format, str(path), required)
        except UnicodeError as error:  # only UTF-16 raises; in UTF-8 a bad byte becomes a surrogate, see `_open`
            raise DataError(f"{path}: not valid text ({error}); save it as UTF-8") from error


def _open(path: Path) -> TextIO:
    try:
        file = path.open("rb")
        # The encoding is found by a look at the first two bytes of the open file: opening it a second time would lose
        # them where the path is a pipe.
        is_utf_16 = file.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff")
        # newline="" leaves line ends inside quotes to the csv module.
        if is_utf_16:
            return io.TextIOWrapper(file, encoding="utf-16", newline="")
        return io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error


def _text_rows(stream: Iterable[str], format: str, where: str, required: Sequence[str]) -> Iterator[Row | BadRow]:
    # Read up to the first line that is not blank, which decides the format; then parse these lines and the rest.
    lines = iter(stream)
    head = [next(lines, "").removeprefix("\ufeff")]
    while head[-1] and not head[-1].strip():
        head.append(next(lines, ""))
    first = head[-1]
    whole = itertools.chain(head, lines)
    if format == "auto":
        format = _detect_format(first, where, required[0])
    if format == "json":
        format = "array" if first.lstrip().startswith("[") else "jsonl"
    if format == "lines":
        yield from formats.line_rows(whole, required[0])
    elif format == "jsonl":
        yield from formats.jsonl_rows(whole)
    elif format == "array":
        yield from formats.array_rows("".join(whole), where)
    else:
        yield from formats.table_rows(whole, "\t" if format == "tsv" else _delimiter(first), where, required)


def _detect_format(first: str, where: str, text_column: str) -> str:
    """The format of a stream by its first line that is not blank.

    Raises:
        DataError: the line is a JSON object without the text column; its source would be labelled as a sentence.
    """
    # An array of objects: "[" alone on the line, or followed by an object. "[thầy] hay" is a sentence.
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


def _delimiter(header: str) -> str:
    # Spreadsheets in locales with a decimal comma, Vietnamese among them, write semicolons and call it CSV.
    return ";" if ";" in header and "," not in header else ","
