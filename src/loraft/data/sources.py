"""Find the rows of a split: in a file, a folder, the bundled data, or a data set on the hub."""

import difflib
import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from loraft.bundled import bundled_data
from loraft.config.schema import DataConfig
from loraft.data.formats import parquet_label_names
from loraft.data.labels import ids_to_names
from loraft.data.readers import SUFFIXES, read_rows
from loraft.data.records import BadRow, Row
from loraft.errors import DataError

# File names, without suffix, under which other programs write a split; the first one that exists is taken.
ALIASES = {"validation": ("validation", "valid", "dev", "val")}


class NoSplitError(DataError):
    """The source exists, but has no such split."""


def open_source(
    section: DataConfig, name: str, required: tuple[str, str] | tuple[()], role: str, labels: Sequence[str]
) -> tuple[Iterable[Row | BadRow], str]:
    """The rows of a split as the source gives them, and a description of where they come from.

    Args:
        section: the source, its revision and cache folder.
        name: the split's name in the source, or a file.
        required: text column and label column; empty where they are not known yet.
        role: what the split is used for: "train", "validation", "test", or its name.
        labels: the task's labels, for sources that name the ids of their labels.

    Raises:
        NoSplitError: the source has no such split.
        DataError: the source does not exist, or cannot be read.
    """
    source = Path(section.source).expanduser()
    if _is_file(name):
        path = Path(name).expanduser()
    elif section.source in bundled_data():
        path = _file_of_split(bundled_data()[section.source], name)
    elif source.is_dir():
        path = _file_of_split(source, name)
    elif _is_file(section.source):
        if role != "train":  # measuring on the rows of the training would give scores that mean nothing
            raise NoSplitError(
                f"{source}: one file holds one split, the train split (got a request for {role}); give a folder with"
                f" train and {role} files, or --set data.{role}_split=FILE"
            )
        path = source
    elif re.fullmatch(r"[\w.-]+(/[\w.-]+)?", section.source) and not section.source.startswith("."):
        return _hub_rows(section, name, required[1] if required else "", labels)
    else:
        raise DataError(
            f"{source}: no such folder or file; give a folder, a file ({' '.join(SUFFIXES)}), a hub id,"
            f" or a bundled name ({', '.join(bundled_data())})"
        )
    rows: Iterable[Row | BadRow] = read_rows(path, required)
    names = section.label_names or []
    if not names and required and path.suffix.lower() == ".parquet":
        names = parquet_label_names(path, required[1])
    return ids_to_names(rows, names, required[1] if required else "", str(path), labels), str(path)


def _is_file(name: str) -> bool:
    # A file that exists is neither a hub id nor a split's name, even where its format is not supported.
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
    data_files = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    raise NoSplitError(
        f"{folder}: no file for split {name} (got {', '.join(data_files) or 'no data files'}); expected"
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
    names = section.label_names or getattr(loaded.features.get(label_column), "names", None) or []
    rows = itertools.starmap(Row, enumerate(loaded, start=1))
    return ids_to_names(rows, names, label_column, where, labels), where


def _hub_hint(section: DataConfig, error: Exception) -> str:
    close = difflib.get_close_matches(section.source, bundled_data(), n=1)
    if close:
        return f"did you mean the bundled {close[0]!r}?"
    if isinstance(error, ConnectionError):
        return "no local folder has this name either; check the network and HF_HUB_OFFLINE, or give a local folder"
    if "script" in str(error).lower():
        return "set --set data.revision=refs/convert/parquet"
    return "check the name, the revision and the split, or log in with `hf auth login`"
