"""Labelled splits, from bundled data, the hub, folders and files, checked before anything heavy starts.

Text is composed to NFC here, at the door, and nowhere else. What is wrong with a row is said with its file and
number; what was left out is counted in the split's notes.
"""

import difflib
import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from loraft.bundled import bundled_data
from loraft.config.schema import DataConfig
from loraft.data.labels import by_name
from loraft.data.readers import SUFFIXES, class_names, read_rows
from loraft.data.records import BadRow, Row
from loraft.errors import DataError

# Names that other people give to the three splits; the first that is there counts.
ALIASES = {"validation": ("validation", "valid", "dev", "val")}


class NoSplitError(DataError):
    """The source is there, and holds no such split."""


def open_source(
    section: DataConfig, name: str, required: tuple[str, str], role: str, labels: Sequence[str]
) -> tuple[Iterable[Row | BadRow], str]:
    """The rows of a split as they are, and where they come from in human words."""
    source = Path(section.source).expanduser()
    if _is_file(name):
        path = Path(name).expanduser()
    elif section.source in bundled_data():
        path = _file_of_split(bundled_data()[section.source], name)
    elif source.is_dir():
        path = _file_of_split(source, name)
    elif _is_file(section.source):
        if role != "train":  # the same rows for training and for measuring would give numbers that mean nothing
            raise NoSplitError(
                f"{source}: one file holds one split, the train split (got a request for {role}); give a folder with"
                f" train and {role} files, or --set data.{role}_split=FILE"
            )
        path = source
    elif re.fullmatch(r"[\w.-]+(/[\w.-]+)?", section.source) and not section.source.startswith("."):
        return _hub_rows(section, name, required[1], labels)
    else:
        raise DataError(
            f"{source}: no such folder or file; give a folder, a file ({' '.join(SUFFIXES)}), a hub id,"
            f" or a bundled name ({', '.join(bundled_data())})"
        )
    rows: Iterable[Row | BadRow] = read_rows(path, required)
    if path.suffix.lower() == ".parquet":
        rows = by_name(rows, class_names(path, required[1]), required[1], str(path), labels)
    return rows, str(path)


def _is_file(name: str) -> bool:
    # A file that is there is no hub id and no split's name, also where its suffix will be refused.
    path = Path(name).expanduser()
    return path.suffix.lower() in SUFFIXES or (path.suffix != "" and path.is_file())


def _file_of_split(folder: Path, name: str) -> Path:
    for stem in ALIASES.get(name, (name,)):
        found = [folder / f"{stem}{suffix}" for suffix in SUFFIXES if (folder / f"{stem}{suffix}").is_file()]
        if len(found) > 1:
            raise DataError(
                f"{folder}: several files for split {name} (got {', '.join(path.name for path in found)}); keep one,"
                f" or name one with --set data.{name}_split=FILE"
            )
        if found:
            return found[0]
    there = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    raise NoSplitError(
        f"{folder}: no file for split {name} (got {', '.join(there) or 'no data files'}); expected"
        f" {name}{{{','.join(SUFFIXES)}}}"
    )


def _hub_rows(
    section: DataConfig, name: str, label_column: str, labels: Sequence[str]
) -> tuple[Iterable[Row | BadRow], str]:
    import datasets

    where = f"hub {section.source}" + (f" at {section.revision}" if section.revision else "") + f", split {name}"
    try:
        loaded = datasets.load_dataset(
            section.source, split=name, revision=section.revision, cache_dir=section.cache_dir
        )
    except Exception as error:  # upstream raises a dozen unrelated types, from ConnectionError to RuntimeError
        kind = NoSplitError if str(error).startswith("Unknown split") else DataError
        raise kind(f"{where}: cannot be loaded ({error}); {_hub_hint(section, error)}") from error
    names = getattr(loaded.features.get(label_column), "names", None) or []
    rows = itertools.starmap(Row, enumerate(loaded, start=1))
    return by_name(rows, names, label_column, where, labels), where


def _hub_hint(section: DataConfig, error: Exception) -> str:
    close = difflib.get_close_matches(section.source, bundled_data(), n=1)
    if close:
        return f"did you mean the bundled {close[0]!r}?"
    if isinstance(error, ConnectionError):
        return "there is no such local folder either; check the network and HF_HUB_OFFLINE, or give a local folder"
    if "script" in str(error).lower():
        return "set --set data.revision=refs/convert/parquet"
    return "check the name, the revision and the split, or log in with `hf auth login`"
