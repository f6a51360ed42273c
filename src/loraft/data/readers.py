"""Read rows from files and streams of any supported format, one at a time.

This file opens the source, finds out its encoding and format, and hands its lines to a parser of `formats`.
"""

import contextlib
import csv
import gzip
import io
import itertools
import json
import os
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TextIO

from loraft.config.names import show
from loraft.data import formats, tcvn3
from loraft.data.columns import CUT, LONGEST, TOO_LONG, missing_column, sentence
from loraft.data.records import BadRow, Example, FileSettings, Row
from loraft.data.xlsx import xlsx_rows
from loraft.errors import DataError

Format = Literal["auto", "lines", "text", "jsonl", "csv", "tsv"]
TABLE_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")
SUFFIXES = (*TABLE_SUFFIXES, ".parquet", ".xlsx", *(suffix + ".gz" for suffix in TABLE_SUFFIXES))
TEXT_SUFFIXES = (".txt", ".txt.gz")  # lines, fastText, or one text
AS_IT_IS = FileSettings()
LONG_NAME = 255  # letters, above which a message shows the begin of a path
# How a file begins that is no text: with NUL, another control character among its first 8, or as PDF, PNG, old Office
# files, Parquet and bzip2 begin. Bytes that are not UTF-8 were read as lone surrogates.
BINARY = re.compile("\x00|^.{0,7}[\x01-\x08\x0e-\x1a\x1c-\x1f]|^(%PDF|\udc89PNG|\udcd0\udccf|PAR1|BZh)")


def unlabelled(item: Row | BadRow, text_column: str) -> Example | BadRow:
    """The row's sentence as an Example without label, or why it has none."""
    if isinstance(item, BadRow):
        return item
    text, reason = sentence(item.columns, text_column)
    if reason is not None or not text:
        return BadRow(item.row, reason or "no text")
    return Example(text, None, item.row, {key: item.columns[key] for key in item.columns if key != text_column})


def read_rows(
    path: Path,
    required: Sequence[str] = (),
    settings: FileSettings = AS_IT_IS,
    header: list[str] | None = None,
) -> Iterator[Row | BadRow]:
    """The rows of a file with columns, in order; its format is known by the suffix.

    Args:
        path: a file with one of `SUFFIXES`, or a fastText file: any other suffix, its first line begins with
            `__label__`. Text is UTF-8 with or without a byte-order mark, or UTF-16 with one, unless `settings` name the
            encoding; any line ends.
        required: columns that a file with a header must have. JSON rows are left to the caller. A fastText file gives
            its text and labels these names.
        settings: encoding, delimiter and sheet.
        header: takes the names of the columns before the first row, also where there is no row; not those of JSON.

    Raises:
        DataError: no such file, an unknown suffix, a file that is not what its suffix says, a missing column.
    """
    suffix = suffix_of(path)
    if suffix == ".parquet":
        yield from formats.parquet_rows(path, required, header)
    elif suffix == ".xlsx":
        yield from xlsx_rows(path, settings.sheet, required, header)
    else:
        format = suffix.removeprefix(".").removesuffix(".gz") if suffix in SUFFIXES else "fasttext"
        yield from _file_rows(path, format, required, settings, header)


def suffix_of(path: Path) -> str:
    """The suffix in small letters, with the one before it where the file is compressed: `.csv.gz`."""
    return "".join(path.suffixes[-2 if path.suffix.lower() == ".gz" else -1 :]).lower()


def stem_of(path: Path) -> str:
    """The file's name without `suffix_of`, in composed form (NFC)."""
    return unicodedata.normalize("NFC", path.name[: len(path.name) - len(suffix_of(path))])


def input_rows(
    source: Path | TextIO,
    format: Format = "auto",
    text_column: str = "sentence",
    settings: FileSettings = AS_IT_IS,
    header: list[str] | None = None,
) -> Iterator[Row | BadRow]:
    """The rows of a file or stream of unlabelled sentences, one by one; memory does not grow with their number.

    Args:
        source: a file, or a stream such as stdin. A stream that wraps bytes is switched to UTF-8.
        format: "auto" goes by the file's suffix; `.txt` is lines, or fastText where the first one begins with a label.
            For a stream or a file without suffix it goes by the first line that is not blank: a JSON object, an array
            of them, or a header that has the text column; everything else is lines. Parquet and Excel files are known
            by their suffix. An array is read whole. "text": the whole file is one text; of a folder, each file in it,
            its name in the column `file`.
        text_column: the column that holds the sentence; rows keep all others, too.
        settings: encoding, delimiter and sheet.
        header: as in `read_rows`.

    Raises:
        DataError: the file is missing, is no text, is cut off, has an unknown suffix, or has no such column.
    """
    required = (text_column,)
    if isinstance(source, Path):
        if len(str(source)) > LONG_NAME and not os.path.exists(source):  # False for what no file can be called
            raise DataError(f"{show(str(source))}: no such file; check the path")
        suffix = suffix_of(source)
        if format == "text":
            yield from _whole_texts(source, text_column, settings)
        elif format != "auto" or suffix in ("", ".gz"):
            yield from _file_rows(source, format, required, settings, header)
        elif suffix in TEXT_SUFFIXES:
            yield from _file_rows(source, "txt", required, settings)
        else:
            yield from read_rows(source, required, settings, header)
        return
    if isinstance(source, io.TextIOWrapper):
        # Undecodable bytes become lone surrogates, so that one bad byte makes its own row bad and no other.
        source.reconfigure(encoding=_encoding(settings), errors="surrogateescape")
    if format == "text":
        yield _whole(source, 1, text_column, "stdin")
    else:
        yield from text_rows(lines_of(source), format, getattr(source, "name", "stdin"), required, settings, header)


def count_rows(path: Path, format: str, settings: FileSettings) -> int | None:
    """How many rows `input_rows` gives, by a quick look at the lines; None where that needs a parser.

    A quote that is not closed makes them too few.
    """
    kind = suffix_of(path).removeprefix(".").removesuffix(".gz") if format == "auto" else format
    if kind not in ("txt", "lines", "jsonl", "csv", "tsv"):
        return None
    count = blank = 0
    quoted = False  # a quoted cell may hold ends of lines
    with contextlib.suppress(DataError), _opened(path, settings) as stream:
        for line in lines_of(stream):
            if line.strip() and not quoted:
                count, blank = count + blank + 1, 0
            elif kind in ("txt", "lines"):  # a row, unless at the end
                blank += 1
            quoted ^= kind in ("csv", "tsv") and line.count('"') % 2 == 1
    return max(0, count - (kind in ("csv", "tsv")))


def _whole_texts(path: Path, text_column: str, settings: FileSettings) -> Iterator[Row | BadRow]:
    """A file as one text; or the files of a folder, by name."""
    files = sorted(one for one in path.iterdir() if one.is_file() and one.name[0] != ".") if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no files in the folder (got none); give a file, or a folder of text files")
    for row, file in enumerate(files, start=1):
        with _opened(file, settings) as stream:
            whole = _whole(stream, row, text_column, str(file))
        if isinstance(whole, Row) and path.is_dir():
            whole = Row(row, {**whole.columns, "file": file.name})
        yield whole


def _whole(stream: TextIO, row: int, text_column: str, where: str) -> Row | BadRow:
    text = stream.read(LONGEST + 1).removeprefix("\ufeff")
    _refuse_binary(text, where)
    return Row(row, {text_column: text}) if len(text) <= LONGEST else BadRow(row, TOO_LONG)


def _file_rows(
    path: Path, format: str, required: Sequence[str], settings: FileSettings, header: list[str] | None = None
) -> Iterator[Row | BadRow]:
    with _opened(path, settings) as stream:
        # Some encodings write a tone as a character of its own, after the vowel.
        lines = lines_of(stream)
        if settings.encoding:
            lines = (unicodedata.normalize("NFC", line) for line in lines)
        yield from text_rows(lines, format, str(path), required, settings, header)


def lines_of(stream: TextIO) -> Iterator[str]:
    """The lines of a stream; a longer one than `LONGEST` is cut there and ends in `CUT`, so that its row is refused."""
    while line := stream.readline(LONGEST):
        if len(line) == LONGEST and line[-1] not in "\r\n":
            line += CUT
            while (rest := stream.readline(LONGEST)) and rest[-1] not in "\r\n":
                pass
        yield line


@contextlib.contextmanager
def _opened(path: Path, settings: FileSettings) -> Iterator[TextIO]:
    """A text file, also a compressed one, whose errors inside the block become DataErrors."""
    try:
        with path.open("rb") as plain:
            if path.is_char_device() and not plain.isatty() and os.path.realpath(path) != os.devnull:
                raise DataError(f"{path}: is a device, which may have no end; save its rows in a file")
            file = io.BufferedReader(gzip.GzipFile(fileobj=plain)) if path.suffix.lower() == ".gz" else plain
            # The encoding is found by a look at the first two bytes of the open file: opening it a second time would
            # lose them where the path is a pipe.
            has_mark = settings.encoding is None and file.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff")
            # Half a pair in UTF-16 becomes a lone surrogate, as does an undecodable byte elsewhere: a bad row.
            encoding, errors = ("utf-16", "surrogatepass") if has_mark else (_encoding(settings), "surrogateescape")
            # newline="" leaves line ends inside quotes to the csv module.
            yield io.TextIOWrapper(file, encoding=encoding, errors=errors, newline="")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check the path") from error
    except UnicodeError as error:  # only UTF-16 raises; elsewhere a bad byte becomes a surrogate
        raise DataError(f"{path}: not valid text ({error}); save it as UTF-8, or set data.encoding") from error
    except (EOFError, OSError, zlib.error) as error:
        raise formats.unreadable(path, error) from error


def _encoding(settings: FileSettings) -> str:
    tcvn3.register()
    return settings.encoding or "utf-8"


def _refuse_binary(text: str, where: str) -> None:
    if BINARY.search(text):
        raise DataError(
            f"{where}: is no text (got {text[:8].encode(errors='surrogateescape')!r}); give UTF-8 text, or a file whose"
            f" suffix says its format ({' '.join(SUFFIXES)})"
        )


def text_rows(
    stream: Iterable[str],
    format: str,
    where: str,
    required: Sequence[str],
    settings: FileSettings,
    header: list[str] | None,
) -> Iterator[Row | BadRow]:
    """The rows of lines, which `where` has; the other arguments as in `input_rows`, with a format by its name."""
    # Read up to the first line that is not blank, which decides the format; then parse these lines and the rest.
    lines = iter(stream)
    head = [next(lines, "").removeprefix("\ufeff")]
    while head[-1] and not head[-1].strip():
        head.append(next(lines, ""))
    _refuse_binary(head[-1], where)
    delimiter = settings.delimiter
    # Excel is told the delimiter by a line of its own.
    if format in ("auto", "csv", "tsv") and (named := re.fullmatch(r'("?)sep=(.)\1\r?\n?', head[-1])):
        format, delimiter, head = "csv", delimiter or named[2], [next(lines, "")]
    first, whole = head[-1], itertools.chain(head, lines)
    if format == "auto":
        format = _detect_format(first, where, required[0])
    elif format == "json":
        format = "array" if first.lstrip().startswith("[") else "jsonl"
    elif format == "txt":
        format = "fasttext" if first.startswith(formats.FASTTEXT) else "lines"
    elif format == "fasttext" and not first.startswith(formats.FASTTEXT):
        raise DataError(
            f"{where}: unknown file format (got {suffix_of(Path(where)) or 'no suffix'}); allowed are"
            f" {' '.join(SUFFIXES)}, and fastText, whose lines begin with {formats.FASTTEXT}; to label lines,"
            " loraft predict --format lines"
        )
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
        yield from formats.table_rows(whole, delimiter, where, required, header)


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
    except json.JSONDecodeError:
        value = None
    except (ValueError, RecursionError):  # JSON whose row will be refused
        value = {text_column: None} if first.lstrip().startswith("{") else None
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
        # A quote inside a name shows that a wrong delimiter cut through a quoted one.
        return len(set(required) & set(header)), sum('"' not in name for name in header)

    return max(",;\t|", key=fit)


def delimiter_in(path: Path, required: Sequence[str], settings: FileSettings) -> str:
    """The delimiter of a file with a table: that of the settings, a tab in a TSV file, else by the header."""
    with _opened(path, settings) as stream:
        first = next((line for line in lines_of(stream) if line.strip()), "")
    return settings.delimiter or ("\t" if ".tsv" in suffix_of(path) else _delimiter(first, required))


def _header(line: str, delimiter: str) -> list[str]:
    with contextlib.suppress(csv.Error):
        names = next(csv.reader([line], delimiter=delimiter, strict=False), [])
        return [unicodedata.normalize("NFC", name).strip() for name in names]
    return []
