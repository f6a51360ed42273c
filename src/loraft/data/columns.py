"""Check the columns of a row: whether one is missing, and whether the sentence is usable text.

Every sentence of a file or stream passes `sentence`, which brings it into Unicode's composed form (NFC).
"""

import difflib
import json
import shlex
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from loraft.config.names import show
from loraft.data.records import BadRow, Example
from loraft.errors import DataError, listed

UNDECODABLE = "not valid UTF-8"  # how the reason begins for which such a row is refused
AS_UTF8 = "save the file as UTF-8, or set data.encoding"  # and how it ends
LONGEST = 2**24  # characters of a line, or of a file that is one text
CUT = "\udfff"  # stands at the end of a line that was cut there; no decoder gives it
TOO_LONG = f"longer than {LONGEST:,} characters"


def sentence(columns: dict[str, Any], text_column: str) -> tuple[str, str | None]:
    """The row's sentence, and None; or an empty text and the reason why the row has no usable sentence.

    Args:
        columns: column name to value.
        text_column: the column of the sentence.

    Returns:
        The sentence in NFC, stripped, with line ends as newlines. A blank one is empty without a reason: training skips
        such rows, prediction reports them.
    """
    if text_column not in columns:
        return "", missing_column(text_column, columns)
    value = columns[text_column]
    if value is None:
        return "", None
    if not isinstance(value, str):
        return "", f"{text_column!r} is not text (got {show(value)})"
    try:
        # The reader turns undecodable bytes into lone surrogates, which no encoding can write. All columns are checked,
        # since predictions are written with the other columns beside them.
        json.dumps(columns, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        if error.object[error.start] == CUT and len(error.object) > LONGEST:
            return "", TOO_LONG
        half = ord(error.object[error.start])
        if not 0xDC80 <= half <= 0xDCFF:  # what no byte was turned into
            return "", f"holds half of a surrogate pair (U+{half:04X}), which is no letter; remove it"
        return "", f"{UNDECODABLE}; {AS_UTF8}"
    except (ValueError, RecursionError) as error:  # an integer of too many digits, too deep a nesting
        return "", f"a column cannot be written ({error})"
    value = value.replace("\r\n", "\n").replace("\r", "\n")  # the same text, whichever system wrote it
    return unicodedata.normalize("NFC", value).strip(), None


def given_sentence(text: object, row: int) -> Example | BadRow:
    """A sentence that a caller gives by itself, checked and composed as one that is read from a file.

    What is no text (a number, None) becomes a BadRow, as in a file.
    """
    checked, reason = sentence({"text": text}, "text")
    return Example(checked, None, row) if checked else BadRow(row, reason or "no text")


def missing_column(name: str, columns: Iterable[str]) -> str:
    """The message that a column is missing: which columns exist, and the one with the most similar name."""
    known = [str(column) for column in columns]
    by_lower_case = {column.casefold(): column for column in known}
    close = difflib.get_close_matches(name.casefold(), by_lower_case, n=1, cutoff=0.5)
    hint = f", did you mean {by_lower_case[close[0]]!r}?" if close else ""
    return f"no column {name!r} (got {listed(known) or 'none'}){hint}"


def require_columns(header: Sequence[str], required: Sequence[str], where: str) -> None:
    """Refuses a file whose header lacks a column.

    Args:
        header: the columns of the file.
        required: the text column; or the text column and the label column.
        where: the file or stream, for the message.

    Raises:
        DataError: a required column is missing; the message names the option that renames it.
    """
    for name in required:
        if name not in header:
            shown = f"; loraft data {shlex.quote(where)} shows what is in it" if len(required) > 1 else ""
            raise DataError(f"{where}: {missing_column(name, header)}; name it with {_option(name, required)}{shown}")


def _option(name: str, required: Sequence[str]) -> str:
    if len(required) == 1:  # sentences without labels, which only `loraft predict` reads
        return "--text-column NAME"
    key = "text_column" if name == required[0] else "label_column"
    return f"--set data.{key}=NAME"
