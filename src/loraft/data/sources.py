"""Find the rows of a split: in a file, a folder, the bundled data, or a data set on the hub."""

import difflib
import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from loraft.bundled import bundled_data
from loraft.config.data_section import DataConfig
from loraft.data.columns import require_columns
from loraft.data.formats import parquet_label_names
from loraft.data.labels import ids_to_names
from loraft.data.readers import SUFFIXES, read_rows, suffix_of
from loraft.data.records import BadRow, Row
from loraft.data.text_folders import has_texts, text_folder_rows
from loraft.errors import DataError

# File names, without suffix, under which other programs write a split; the first one that exists is taken.
ALIASES = {"validation": ("validation", "valid", "dev", "val")}


SAVED = "state.json"  # in every folder of `Dataset.save_to_disk`
SHARD = r"-\d+-of-\d+(-\w+)?"  # after the split's name, in files of the hub's client


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
        paths = [Path(name).expanduser()]
    elif section.source in bundled_data():
        paths = _files_of_split(bundled_data()[section.source], name)
    elif source.is_dir() and not _is_one_split(source):
        paths = _files_of_split(source / section.subset if section.subset else source, name)
    elif source.is_dir() or _is_file(section.source):
        if role != "train":  # measuring on the rows of the training would give scores that mean nothing
            raise NoSplitError(
                f"{source}: one file holds one split, the train split (got a request for {role}); give a folder with"
                f" train and {role} files, --set data.{role}_split=FILE, or --set 'data.split=[0.8, 0.1, 0.1]'"
            )
        paths = [source]
    elif re.fullmatch(r"[\w.-]+(/[\w.-]+)?", section.source) and not section.source.startswith("."):
        return _hub_rows(section, name, required[1] if required else "", labels)
    else:
        raise DataError(
            f"{source}: no such folder or file; give a folder, a file ({' '.join(SUFFIXES)}), a hub id,"
            f" or a bundled name ({', '.join(bundled_data())})"
        )
    parts = (_rows_of(path, required, section, labels) for path in paths)
    if len(paths) == 1 and not paths[0].is_dir():
        return next(parts), str(paths[0])
    numbered = enumerate(itertools.chain.from_iterable(parts), start=1)
    return (replace(item, row=row) for row, item in numbered), str(paths[0] if len(paths) == 1 else paths[0].parent)


def _rows_of(
    path: Path, required: tuple[str, str], section: DataConfig, labels: Sequence[str]
) -> Iterable[Row | BadRow]:
    """The rows of one file, or of a folder that holds one split; with names for the ids of labels that it names."""
    if (path / SAVED).is_file():
        import datasets

        try:
            saved = datasets.load_from_disk(str(path))
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(f"{path}: cannot be loaded ({error}); save it again with save_to_disk") from error
        require_columns(saved.column_names, required, str(path))
        return _named(saved, section, required[1], str(path), labels)
    if path.is_dir():
        return text_folder_rows(path, required, section)
    rows = read_rows(path, required, section)
    names = section.label_names or []
    if not names and path.suffix.lower() == ".parquet":
        names = parquet_label_names(path, required[1])
    return ids_to_names(rows, names, required[1], str(path), labels)


def _named(
    loaded: Any, section: DataConfig, label_column: str, where: str, labels: Sequence[str]
) -> Iterable[Row | BadRow]:
    """The rows of a data set of `datasets`, with names for the ids of its labels where it has them."""
    feature = loaded.features.get(label_column)
    feature = getattr(feature, "feature", feature)  # of the labels in a list
    names = section.label_names or getattr(feature, "names", None) or []
    return ids_to_names(itertools.starmap(Row, enumerate(loaded, start=1)), names, label_column, where, labels)


def _is_file(name: str) -> bool:
    # A file that exists is neither a hub id nor a split's name, even where its format is not supported.
    path = Path(name).expanduser()
    return not path.is_dir() and (suffix_of(path) in SUFFIXES or (path.suffix != "" and path.is_file()))


def _is_one_split(folder: Path) -> bool:
    """Whether a folder holds one split itself: a saved data set, or texts by label."""
    names = {one.name.partition(".")[0].casefold() for one in folder.iterdir()}
    splits = {"train", "test", *ALIASES["validation"]}
    return (folder / SAVED).is_file() or (not names & splits and has_texts(folder))


def _files_of_split(folder: Path, name: str) -> list[Path]:
    """The file of a split, its shards in order, or its folder; names count whatever their case."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder (got data.subset={folder.name!r}); name one that is there")
    places = [place for place in (folder, folder / "data") if place.is_dir()]
    entries = [path for place in places for path in sorted(place.iterdir())]
    files = [path for path in entries if suffix_of(path) in SUFFIXES and path.is_file()]
    for alias in ALIASES.get(name, (name,)):
        stem = unicodedata.normalize("NFC", alias).casefold()
        found = [path for path in files if _stem(path) == stem]
        if len(found) > 1:
            found.sort(key=lambda path: SUFFIXES.index(suffix_of(path)))
            raise DataError(
                f"{folder}: several files for split {name} (got {', '.join(path.name for path in found)}); keep one,"
                f" or name one with --set data.{name}_split=FILE"
            )
        shards = [path for path in files if re.fullmatch(re.escape(stem) + SHARD, _stem(path))]
        found = found or _whole(shards, folder, name)
        for path in entries:
            if not found and path.is_dir() and _stem(path) == stem:
                inside = sorted(one for one in path.iterdir() if suffix_of(one) in SUFFIXES)
                found = [path] if (path / SAVED).is_file() or (not inside and has_texts(path)) else inside
        if found:
            return found
    raise NoSplitError(
        f"{folder}: no file for split {name} (got {', '.join(path.name for path in files) or 'no data files'});"
        f" expected {name}{{{','.join(SUFFIXES)}}}"
    )


def _stem(path: Path) -> str:
    return unicodedata.normalize("NFC", path.name.removesuffix("".join(path.suffixes))).casefold()


def _whole(shards: list[Path], folder: Path, name: str) -> list[Path]:
    """The shards of a split, none of which may be missing."""
    if shards and len(shards) != (parts := int(_stem(shards[0]).partition("-of-")[2].partition("-")[0])):
        raise DataError(f"{folder}: parts of split {name} are missing (got {len(shards)} of {parts}); add them")
    return shards


def _hub_rows(
    section: DataConfig, name: str, label_column: str, labels: Sequence[str]
) -> tuple[Iterable[Row | BadRow], str]:
    import datasets

    subset = f"/{section.subset}" if section.subset else ""
    where = f"hub {section.source}{subset}" + (f" at {section.revision}" if section.revision else "")
    where += f", split {name}"
    options = {"name": section.subset} if section.subset else {}
    options |= {"revision": section.revision, "cache_dir": section.cache_dir}
    try:
        try:
            loaded = datasets.load_dataset(section.source, split=name, **options)
        except ValueError as error:
            loaded = datasets.load_dataset(section.source, split=_split_in_other_case(name, error), **options)
    except Exception as error:  # upstream raises a dozen unrelated types, from ConnectionError to RuntimeError
        kind = NoSplitError if str(error).startswith("Unknown split") else DataError
        raise kind(f"{where}: cannot be loaded ({error}); {_hub_hint(section, error)}") from error
    return _named(loaded, section, label_column, where, labels), where


def _split_in_other_case(name: str, error: ValueError) -> str:
    """The split that the error lists with that name, in another case or by another program's name; else raises it."""
    listed = re.findall(r"'([^']+)'", str(error).partition("one of")[2]) if "Unknown split" in str(error) else []
    by_name = {one.casefold(): one for one in listed}
    for alias in ALIASES.get(name, (name,)):
        if alias.casefold() in by_name:
            return by_name[alias.casefold()]
    raise error


def _hub_hint(section: DataConfig, error: Exception) -> str:
    close = difflib.get_close_matches(section.source, bundled_data(), n=1)
    if close:
        return f"did you mean the bundled {close[0]!r}?"
    if isinstance(error, ConnectionError):
        return "no local folder has this name either; check the network and HF_HUB_OFFLINE, or give a local folder"
    if "config name is missing" in str(error).lower():
        return "choose with --set data.subset=NAME"
    if "script" in str(error).lower():
        return "set --set data.revision=refs/convert/parquet"
    return "check the name, the revision and the split, or log in with `hf auth login`"
