"""Read a folder of text files with their labels as names: a folder of texts a label, or a file of lines a label."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from loraft.data.readers import TEXT_SUFFIXES, Format, input_rows, stem_of, suffix_of
from loraft.data.records import BadRow, FileSettings, Row


def has_texts(folder: Path) -> bool:
    """Whether a folder has text files, or folders with text files: its labels."""
    return any(_files(folder)) or any(_files(one) for one in _folders(folder))


def text_folder_rows(folder: Path, required: Sequence[str], settings: FileSettings) -> Iterator[Row | BadRow]:
    """A row for each file of each subfolder, which is the label, then one for each line of the files of the folder.

    A file's name without its suffix is the label of its lines.

    Args:
        folder: the folder of one split.
        required: names for the columns of text and label.
        settings: the encoding.
    """
    text_column, label_column = required or ("text", "label")
    sources: list[tuple[str, Path, Format]] = []
    for inner in _folders(folder):
        sources += [(inner.name, file, "text") for file in _files(inner)]
    sources += [(stem_of(file), file, "lines") for file in _files(folder)]
    for label, file, format in sources:
        for item in input_rows(file, format, text_column, settings):
            if isinstance(item, BadRow):
                yield BadRow(item.row, f"{item.reason} ({file.name})")
            else:
                yield Row(item.row, {**item.columns, label_column: label, "file": file.name})


def _files(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if suffix_of(one) in TEXT_SUFFIXES and one.is_file())


def _folders(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.is_dir())
