"""Read a folder of text files with their labels as names: a folder of texts a label, or a file of lines a label."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from loraft.config.data_section import DataConfig
from loraft.data.readers import Format, input_rows
from loraft.data.records import BadRow, Row

SUFFIX = ".txt"


def has_texts(folder: Path) -> bool:
    """Whether a folder has text files, or folders with text files: its labels."""
    return any(_files(folder)) or any(_files(one) for one in _folders(folder))


def text_folder_rows(folder: Path, required: Sequence[str], section: DataConfig) -> Iterator[Row | BadRow]:
    """A row for each file of each subfolder, which is the label, then one for each line of the files of the folder.

    A file's name without its suffix is the label of its lines.

    Args:
        folder: the folder of one split.
        required: names for the columns of text and label.
        section: the encoding.
    """
    text_column, label_column = required or ("text", "label")
    sources: list[tuple[str, Path, Format]] = []
    for label in _folders(folder):
        sources += [(label.name, file, "text") for file in _files(label)]
    sources += [(file.stem, file, "lines") for file in _files(folder)]
    for label, file, format in sources:
        for item in input_rows(file, format, text_column, section):
            if isinstance(item, BadRow):
                yield BadRow(item.row, f"{item.reason} ({file.name})")
            else:
                yield Row(item.row, {**item.columns, label_column: label, "file": file.name})


def _files(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.suffix.lower() == SUFFIX and one.is_file())


def _folders(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.is_dir())
