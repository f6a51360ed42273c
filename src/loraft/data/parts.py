"""Parts of input files, for several workers to read: each has a bounded number of rows, and all have every row once.

A part of a Parquet file, and of CSV, TSV and JSON lines in UTF-8, is read by itself. In other files the rows before it
are read, too: compressed ones, arrays, Excel files, lines, and text in another encoding.
"""

import glob
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from loraft.config.names import show
from loraft.data.columns import CUT, LONGEST
from loraft.data.formats import is_blank, jsonl_rows, parquet_rows
from loraft.data.readers import SUFFIXES, Format, input_rows, lines_of, suffix_of, text_rows
from loraft.data.records import BadRow, FileSettings, Row
from loraft.errors import ConfigError, DataError, listed

MOST_BYTES = 2**26  # of a part in the file, where its rows are long: bounds a worker's memory
CUTTABLE = ("jsonl", "csv", "tsv")


@dataclass(frozen=True)
class Part:
    """Some rows of one file.

    Attributes:
        path: of the file.
        number: of the part in its file, from 0.
        rows: how many it has.
        first: how many rows of the file come before it.
        kind: "parquet", or a format of lines; "" for a file that is read from its begin.
        start: where it begins in a file of lines, in bytes.
        stop: where it ends there.
        head: bytes of the header there.
        columns: of all rows of the file, where each row of JSON may have its own; others are in the header.
    """

    path: str
    number: int
    rows: int
    first: int
    kind: str = ""
    start: int = 0
    stop: int = 0
    head: int = 0
    columns: Sequence[str] = ()


def input_files(given: Path, output: Path) -> list[Path]:
    """The files that a path, a folder or a pattern names, in order.

    Of a folder or a pattern, files that begin with . or _ are none, nor are those in the folder of the output.

    Raises:
        ConfigError: nothing is there, or they are of several formats.
    """
    if os.path.isfile(given):  # False for what no file can be called
        return [Path(os.path.abspath(given))]
    if os.path.isdir(given):
        found = [one for one in sorted(given.iterdir()) if suffix_of(one) in SUFFIXES]
        what = "no files to read in the folder"
    elif is_pattern(given):
        found = [Path(one) for one in sorted(glob.glob(os.path.expanduser(given), recursive=True))]
        what = "nothing matches"
    else:
        found, what = [], "no such file"
    own = os.path.realpath(output)
    # A link to nowhere stays: it is told as a file that cannot be read, or its rows would be lost without a word.
    found = [one for one in found if os.path.isfile(one) or not os.path.exists(one)]
    what = "only files of the output, or whose names begin with _ or ." if found else what
    found = [one for one in found if one.name[0] not in "._"]
    found = [one for one in found if own not in map(str, Path(os.path.realpath(one)).parents)]
    if not found:
        raise ConfigError(f"--input: {what} (got {show(str(given))}); give a file, a folder or a pattern in quotes")
    suffixes = sorted({suffix_of(one).removesuffix(".gz") for one in found})
    if len(suffixes) > 1:
        raise ConfigError(
            f"--input: files of several formats (got {listed(one or 'no suffix' for one in suffixes)}); predict one"
            " after the other, such as --input 'data/*.parquet'"
        )
    return [Path(os.path.abspath(one)) for one in found]


def is_pattern(path: Path) -> bool:
    """Whether a path is a pattern of several, and not the name of a file."""
    return any(letter in str(path) for letter in "*?[") and not os.path.exists(path)


def parts_of(path: Path, format: Format, text_column: str, settings: FileSettings, most: int) -> list[Part]:
    """Splits a file; the arguments as in `input_rows`.

    Args:
        path: the file.
        format: of it.
        text_column: that it must have.
        settings: encoding, delimiter and sheet.
        most: rows of a part.

    Returns:
        Its parts in order, at least one.

    Raises:
        DataError: the file cannot be read, or has no such column.
    """
    suffix = suffix_of(path)
    if format == "auto" and suffix == ".parquet":
        return _of_parquet(path, text_column, most)
    kind = suffix.removeprefix(".") if format == "auto" else format
    if kind in (*CUTTABLE, "json") and not suffix.endswith(".gz") and not settings.encoding:
        with _opened(path) as file:
            begin = file.read(2**12)
        array = kind == "json" and begin.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
        if not array and not begin.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16
            return _of_lines(path, "jsonl" if kind == "json" else kind, text_column, settings, most)
    names: dict[str, None] = {}
    rows = sum(1 for _ in _noting(input_rows(path, format, text_column, settings), names))
    return [replace(one, columns=_columns(names)) for one in _by_rows(path, "", rows, most)]


def part_rows(
    part: Part, format: Format, text_column: str, settings: FileSettings, header: list[str] | None = None
) -> Iterator[Row | BadRow]:
    """The rows of a part, with their numbers in the file; arguments and errors as in `input_rows`.

    Raises:
        DataError: the file cannot be read, or the part does not have the number of rows that it had.
    """
    path, count = Path(part.path), 0
    for item in _rows(part, path, format, text_column, settings, header):
        count += 1
        yield item
    if part.rows != count:
        raise DataError(
            f"{path}: has changed (got {count:,} rows after row {part.first:,}, not {part.rows:,}); leave the file as"
            " it is until the end"
        )


def _rows(
    part: Part, path: Path, format: Format, text_column: str, settings: FileSettings, header: list[str] | None
) -> Iterator[Row | BadRow]:
    stop = part.first + part.rows
    if not part.kind:
        yield from islice(input_rows(path, format, text_column, settings, header), part.first, stop)
    elif part.kind == "parquet":
        yield from parquet_rows(path, (text_column,), header, part.first, stop)
    else:
        with _opened(path) as file:
            content = file.read(part.head)
            file.seek(part.start)
            content += file.read(part.stop - part.start)
        stream = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", errors="surrogateescape", newline="")
        if part.kind == "jsonl" and part.start:  # its first line is not the head of a file
            rows = jsonl_rows(lines_of(stream))
        else:
            rows = text_rows(lines_of(stream), part.kind, part.path, (text_column,), settings, header)
        for item in rows:
            yield replace(item, row=part.first + item.row)


def _of_parquet(path: Path, text_column: str, most: int) -> list[Part]:
    from pyarrow.parquet import read_metadata

    next(iter(parquet_rows(path, (text_column,))), None)  # tells what is wrong with the file
    with _opened(path) as file:
        known = read_metadata(file)
    size = sum(known.row_group(at).total_byte_size for at in range(known.num_row_groups))
    most = max(1, min(most, MOST_BYTES * known.num_rows // max(1, size)))
    return _by_rows(path, "parquet", known.num_rows, most)


def _by_rows(path: Path, kind: str, rows: int, most: int) -> list[Part]:
    begins = range(0, max(1, rows), most)
    return [Part(str(path), number, min(most, rows - first), first, kind) for number, first in enumerate(begins)]


class _Lines(Iterator[str]):
    """The lines of a file as a parser takes them, which knows how far the parser has come.

    Attributes:
        header: is filled by the parser of a table before it asks for its first row.
        head: bytes up to the end of that header.
        taken: bytes of the lines that the parser has.
    """

    def __init__(self, file: BinaryIO, header: list[str]) -> None:
        self.header, self.head, self.taken = header, 0, 0
        self._pieces = self._read(file)

    def _read(self, file: BinaryIO) -> Iterator[str]:
        for raw in file:
            text = raw.decode("utf-8", "surrogateescape")
            # A carriage return by itself ends a line, too.
            yield from io.StringIO(text, newline="") if "\r" in text else (text,)

    def __next__(self) -> str:
        if self.header and not self.head:
            self.head = self.taken
        piece = next(self._pieces)
        self.taken += len(piece.encode("utf-8", "surrogateescape"))
        return piece if len(piece) < LONGEST or piece[LONGEST - 1] in "\r\n" else piece[:LONGEST] + CUT


def _of_lines(path: Path, kind: str, text_column: str, settings: FileSettings, most: int) -> list[Part]:
    """Cuts after a record that has been read whole, is not malformed, and is not blank, as records at the end may be.

    After a malformed record the parser reads lines a second time. It has none of them left when it takes a new one.
    """
    header: list[str] = []
    names: dict[str, None] = {}
    found: list[Part] = []
    rows = first = start = seen = 0
    with _opened(path) as file:
        lines = _Lines(file, header)
        for item in _noting(text_rows(lines, kind, str(path), (text_column,), settings, header), names):
            rows += 1
            begin = start or lines.head
            new, seen = lines.taken > seen, lines.taken
            if rows - first < most and lines.taken - begin < MOST_BYTES:
                continue
            if new and isinstance(item, Row) and not all(map(is_blank, item.columns.values())):
                found.append(Part(str(path), len(found), rows - first, first, kind, begin, lines.taken, lines.head))
                first, start = rows, lines.taken
        if rows > first or not found:
            begin = start or lines.head
            found.append(Part(str(path), len(found), rows - first, first, kind, begin, lines.taken, lines.head))
    return [replace(one, columns=_columns(names)) for one in found]


def _noting(rows: Iterable[Row | BadRow], names: dict[str, None]) -> Iterator[Row | BadRow]:
    """The same rows; their columns are added to `names`."""
    for item in rows:
        if isinstance(item, Row):
            names.update(dict.fromkeys(item.columns))
        yield item


def _columns(names: Iterable[str]) -> tuple[str, ...]:
    """As they are written: with ? for what no encoding can write."""
    return tuple(name.encode(errors="replace").decode() for name in names)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
