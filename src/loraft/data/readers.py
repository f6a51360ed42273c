"""Read rows from files and streams of any supported format, one at a time.

This file opens the source, finds out its encoding and format, and hands its lines to a parser of `formats`.
"""

import contextlib
import csv
import gzip
import io
import itertools
import json
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TextIO

from loraft.config.data_section import DataConfig
from loraft.data import formats
from loraft.data import tcvn3 as _codec  # noqa: F401 - importing it registers the codec
from loraft.data.columns import missing_column, sentence
from loraft.data.records import BadRow, Example, Row
from loraft.data.xlsx import xlsx_rows
from loraft.errors import DataError

Format = Literal["auto", "lines", "text", "jsonl", "csv", "tsv"]
TEXT_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")
SUFFIXES = (*TEXT_SUFFIXES, ".parquet", ".xlsx", *(suffix + ".gz" for suffix in TEXT_SUFFIXES))
AS_THEY_ARE = DataConfig()  # files without settings of their own
# The beginning of a file that is no text: control characters, or what PDF, PNG and old Office files begin with.
BINARY = re.compile("[\x00-\x08\x0e-\x1f]|^(%PDF|\udc89PNG|\udcd0\udccf|PAR1)")


def read_inputs(
    source: Path | TextIO, format: Format = "auto", text_column: str = "sentence", section: DataConfig = AS_THEY_ARE
) -> Iterator[Example | BadRow]:
    """Unlabelled sentences one by one, in order; memory does not grow with the number of rows.

    Args:
        source: a file, or a stream such as stdin. A stream that wraps bytes is switched to UTF-8.
        format: "auto" goes by the file's suffix (an unknown one: lines). For a stream or a file without suffix it goes
            by the first line that is not blank: a JSON object, an array of them, or a header that has the text
            column; everything else is lines. Parquet and Excel files are known by their suffix. An array is read
            whole. "text": the whole file is one text; of a folder, each text file in it, its name in column `file`.
        text_column: the column that holds the sentence; all others are kept in `extra`.
        section: encoding, delimiter and sheet.

    Yields:
        An `Example` without label, or a `BadRow` where a row is unreadable or has no text. In a file of lines a blank
        line between others is such a row; at the end, and in all other formats, blank lines are no rows.

    Raises:
        DataError: the file is missing, is no text, is cut off in the middle of a character, or has no such column.
    """
    return (unlabelled(item, text_column) for item in input_rows(source, format, text_column, section))


def unlabelled(item: Row | BadRow, text_column: str) -> Example | BadRow:
    """The row's sentence as an Example without label, or why it has none."""
    if isinstance(item, BadRow):
        return item
    text, reason = sentence(item.columns, text_column)
    if reason is not None or not text:
        return BadRow(item.row, reason or "no text")
    return Example(text, None, item.row, {key: item.columns[key] for key in item.columns if key != text_column})


def read_rows(path: Path, required: Sequence[str] = (), section: DataConfig = AS_THEY_ARE) -> Iterator[Row | BadRow]:
    """The rows of a file with columns, in order; its format is known by the suffix.

    Args:
        path: a file with one of `SUFFIXES`, or a fastText file: any other suffix, its first line begins with
            `__label__`. Text is UTF-8 with or without a byte-order mark, or UTF-16 with one, unless `section` names the
            encoding; any line ends.
        required: columns that a file with a header must have. JSON rows are left to the caller. A fastText file gives
            its text and labels these names.
        section: encoding, delimiter and sheet.

    Raises:
        DataError: no such file, an unknown suffix, a file that is not what its suffix says, a missing column.
    """
    suffix = suffix_of(path)
    if suffix == ".parquet":
        yield from formats.parquet_rows(path, required)
    elif suffix == ".xlsx":
        yield from xlsx_rows(path, section.sheet, required)
    elif suffix in SUFFIXES:
        yield from _file_rows(path, suffix.removeprefix(".").removesuffix(".gz"), required, section)
    else:
        yield from _file_rows(path, "fasttext", required, section)


def suffix_of(path: Path) -> str:
    """The suffix in small letters, with the one before it where the file is compressed: `.csv.gz`."""
    return "".join(path.suffixes[-2 if path.suffix.lower() == ".gz" else -1 :]).lower()


def input_rows(
    source: Path | TextIO, format: Format, text_column: str, section: DataConfig = AS_THEY_ARE
) -> Iterator[Row | BadRow]:
    """The rows of a file or stream of unlabelled sentences, with all their columns; see `read_inputs`."""
    required = (text_column,)
    if isinstance(source, Path):
        if format == "text":
            yield from _whole_texts(source, text_column, section)
        elif format == "auto" and suffix_of(source) in SUFFIXES:
            yield from read_rows(source, required, section)
        else:
            format_of_file = "unknown" if format == "auto" and source.suffix else format
            yield from _file_rows(source, format_of_file, required, section)
        return
    if isinstance(source, io.TextIOWrapper):
        # Undecodable bytes become lone surrogates, so that one bad byte makes its own row bad and no other.
        source.reconfigure(encoding=section.encoding or "utf-8", errors="surrogateescape")
    if format == "text":
        yield Row(1, {text_column: source.read().removeprefix("\ufeff")})
    else:
        yield from _text_rows(source, format, getattr(source, "name", "stdin"), required, section)


def _whole_texts(path: Path, text_column: str, section: DataConfig) -> Iterator[Row | BadRow]:
    """A file as one text; or the text files of a folder, by name."""
    files = sorted(one for one in path.iterdir() if one.is_file() and one.name[0] != ".") if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no files in the folder (got none); give a file, or a folder of text files")
    for row, file in enumerate(files, start=1):
        with _open(file, section) as stream:
            text = stream.read().removeprefix("\ufeff")
        _refuse_binary(text, str(file))
        yield Row(row, {text_column: text} | ({"file": file.name} if path.is_dir() else {}))


def _file_rows(path: Path, format: str, required: Sequence[str], section: DataConfig) -> Iterator[Row | BadRow]:
    with _open(path, section) as stream:
        try:
            yield from _text_rows(stream, format, str(path), required, section)
        except UnicodeError as error:  # only UTF-16 raises; in UTF-8 a bad byte becomes a surrogate, see `_open`
            raise DataError(f"{path}: not valid text ({error}); save it as UTF-8") from error
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(f"{path}: cannot be read to its end ({error}); check that it is complete") from error


def _open(path: Path, section: DataConfig) -> TextIO:
    try:
        plain = path.open("rb")
        file = io.BufferedReader(gzip.GzipFile(fileobj=plain)) if path.suffix.lower() == ".gz" else plain
        # The encoding is found by a look at the first two bytes of the open file: opening it a second time would lose
        # them where the path is a pipe.
        is_utf_16 = section.encoding is None and file.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff")
        # newline="" leaves line ends inside quotes to the csv module.
        if is_utf_16:
            return io.TextIOWrapper(file, encoding="utf-16", newline="")
        return io.TextIOWrapper(file, encoding=section.encoding or "utf-8", errors="surrogateescape", newline="")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check the path") from error
    except OSError as error:
        what = error.strerror or error
        raise DataError(f"{path}: cannot be read ({what}); check the path and its permissions") from error


def _refuse_binary(text: str, where: str) -> None:
    if BINARY.search(text):
        raise DataError(
            f"{where}: is no text (got {text[:8].encode(errors='surrogateescape')!r}); give UTF-8 text, or a file whose"
            f" suffix says its format ({' '.join(SUFFIXES)})"
        )


def _text_rows(
    stream: Iterable[str], format: str, where: str, required: Sequence[str], section: DataConfig
) -> Iterator[Row | BadRow]:
    # Read up to the first line that is not blank, which decides the format; then parse these lines and the rest.
    lines = iter(stream)
    head = [next(lines, "").removeprefix("\ufeff")]
    while head[-1] and not head[-1].strip():
        head.append(next(lines, ""))
    first = head[-1]
    _refuse_binary(first, where)
    delimiter = section.delimiter
    if named := re.fullmatch(r"sep=(.)\r?\n?", first):  # the line with which Excel is told the delimiter
        head, delimiter = [next(lines, "")], delimiter or named[1]
        first = head[0]
    whole = itertools.chain(head, lines)
    if format in ("fasttext", "unknown"):  # the suffix says nothing
        if not first.startswith(formats.FASTTEXT) and format == "fasttext":
            suffix = suffix_of(Path(where)) or "no suffix"
            allowed = f"{' '.join(SUFFIXES)}, or lines that begin with {formats.FASTTEXT}"
            raise DataError(f"{where}: unknown file format (got {suffix}); allowed are {allowed}")
        format = "fasttext" if first.startswith(formats.FASTTEXT) else "lines"
    if format == "auto":
        format = "csv" if named else _detect_format(first, where, required[0])
    if format == "json":
        format = "array" if first.lstrip().startswith("[") else "jsonl"
    if format == "lines":
        yield from formats.line_rows(whole, required[0])
    elif format == "fasttext":
        yield from formats.fasttext_rows(whole, *(*(required or ("text",)), "label")[:2])
    elif format == "jsonl":
        yield from formats.jsonl_rows(whole)
    elif format == "array":
        yield from formats.array_rows("".join(whole), where)
    else:
        delimiter = delimiter or ("\t" if format == "tsv" else _delimiter(first, required))
        yield from formats.table_rows(whole, delimiter, where, required)


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
    if first.startswith(formats.FASTTEXT):
        return "fasttext"
    delimiter = _delimiter(first, (text_column,))
    return "csv" if text_column in _header(first, delimiter) else "lines"


def _delimiter(first: str, required: Sequence[str]) -> str:
    """The delimiter with which the header has most of the required columns, and then most columns.

    Spreadsheets in locales with a decimal comma, Vietnamese among them, write semicolons and call it CSV.
    """

    def fit(delimiter: str) -> tuple[int, int]:
        header = _header(first, delimiter)
        return len(set(required) & set(header)), len(header)

    return max(",;\t|", key=fit)


def _header(line: str, delimiter: str) -> list[str]:
    with contextlib.suppress(csv.Error):
        names = next(csv.reader([line], delimiter=delimiter, strict=False), [])
        return [unicodedata.normalize("NFC", name).strip() for name in names]
    return []
