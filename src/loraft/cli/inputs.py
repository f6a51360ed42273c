"""Where the sentences of a command come from: its arguments, a file, or stdin."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from loraft.cli.console import say
from loraft.cli.options import choice
from loraft.config.names import show
from loraft.data.readers import AS_IT_IS, Format, count_rows, input_rows
from loraft.data.records import BadRow, FileSettings, Row
from loraft.errors import ConfigError
from loraft.progress import remove

if TYPE_CHECKING:
    from loraft.config.data_section import DataConfig

Sentences = Annotated[list[str] | None, typer.Argument(metavar="TEXT...", help="Sentences; - or none reads stdin.")]
InputFile = Annotated[
    Path | None,
    typer.Option(
        "--input", "--file", help="CSV, TSV, JSONL, Parquet, Excel, text, .gz of text.", show_default="the sentences"
    ),
]
InputFormat = Annotated[
    str, choice(*get_args(Format), help="Of the input; text: the file, or each file of a folder, is one text.")
]
TextColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="Column of the sentence.", show_default="as in training")
]


def file_settings(data: "DataConfig", sets: Sequence[str]) -> FileSettings:
    """How the input is read: by what `--set` says. The run's own settings were for the files of its training."""
    given = {item.partition("=")[0].strip() for item in sets}
    own = [field.name for field in fields(FileSettings) if f"data.{field.name}" in given]
    return FileSettings(**{name: getattr(data, name) for name in own})


def given_rows(
    command: str,
    texts: list[str],
    file: Path | None,
    format: str,
    text_column: str,
    settings: FileSettings,
    header: list[str],
) -> tuple[Iterable[Row | BadRow], str]:
    """The rows that a command line gives, and in words where they come from.

    Args:
        command: its name, for messages.
        texts: sentences; "-" or none is stdin.
        file: instead of them.
        format: of the file or of stdin.
        text_column: that `Row.columns` has the sentence in.
        settings: how the file is read.
        header: is filled with the file's columns.

    Raises:
        ConfigError: several sources, or none, or an unknown format.
        DataError: the file cannot be read.
    """
    formats: tuple[Format, ...] = get_args(Format)
    known = next((one for one in formats if one == format), None)
    if known is None:
        raise ConfigError(f"--format: unknown (got {show(format)}); allowed: {', '.join(formats)}")
    if texts and file is not None:
        raise ConfigError(f"--input and sentences: two sources (got {file} and {show(texts[0])}); give one of them")
    if "-" in texts and len(texts) > 1:
        raise ConfigError("-: stdin and sentences are two sources (got both); give one of them")
    if texts and texts != ["-"]:
        sentences = (Row(row, {text_column: text}) for row, text in enumerate(texts, start=1))
        return sentences, f"{len(texts)} {'sentence' if len(texts) == 1 else 'sentences'}"
    if file is not None:
        rows = input_rows(file, known, text_column, settings, header)
        # The first row is read now: a missing file or column is told before a backbone is loaded.
        return chain(list(islice(rows, 1)), rows), str(file)
    if sys.stdin is None or (not texts and sys.stdin.isatty()):
        raise ConfigError(
            f"{command}: nothing to label; loraft {command} 'câu phản hồi', --input FILE, or lines on stdin"
        )
    rows = input_rows(sys.stdin, known, text_column, settings, header)
    return (_typed(rows, known) if sys.stdin.isatty() else rows), "stdin"


def _typed(rows: Iterable[Row | BadRow], format: Format) -> Iterator[Row | BadRow]:
    """The rows that a person types, whose terminal is left alone from the first one on."""
    remove()
    say("Ctrl-D ends the text" if format == "text" else "one sentence a line, Ctrl-D ends")
    yield from rows


def number_of_rows(
    texts: list[str], file: Path | None, format: str = "auto", settings: FileSettings = AS_IT_IS
) -> int | None:
    """How many rows a command line gives, with unreadable ones; None where that cannot be told soon."""
    if file is None:
        return len(texts) if texts and texts != ["-"] else None
    if not file.is_file():
        return None
    if format == "auto" and file.suffix.lower() == ".parquet":
        from pyarrow.parquet import read_metadata

        return int(read_metadata(file).num_rows)
    return count_rows(file, format, settings)
