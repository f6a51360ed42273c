"""Find the rows of a split: in a file, a folder, the bundled data, or a data set on the hub."""

import difflib
import itertools
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from loraft.bundled import bundled_data
from loraft.config.data_section import DataConfig
from loraft.data.columns import require_columns
from loraft.data.formats import UNREADABLE, parquet_label_names
from loraft.data.labels import ids_to_names
from loraft.data.readers import SUFFIXES, TEXT_SUFFIXES, read_rows, stem_of, suffix_of
from loraft.data.records import BadRow, FileSettings, Row
from loraft.data.text_folders import has_texts, text_folder_rows
from loraft.errors import DataError, first_line, listed
from loraft.hub import DATA_SET, Answer, ask

# File names, without suffix, under which other programs write a split; the first one that exists is taken.
ALIASES = {"validation": ("validation", "valid", "dev", "val")}
SAVED = "state.json"  # in every folder of `Dataset.save_to_disk`
SHARD = r"-\d+-of-\d+(-\w+)?"  # after the split's name, in files of the hub's client


class NoSplitError(DataError):
    """The source exists, but has no such split."""


def open_source(
    section: DataConfig, name: str, required: tuple[str, ...], role: str, labels: Sequence[str]
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
    source = Path(os.path.expanduser(section.source))
    folder = source / section.subset if section.subset else source
    if section.subset and (section.source in bundled_data() or _is_file(section.source)):
        raise DataError(f"data.subset: {section.source} has none (got {section.subset!r}); leave it out")
    if _is_file(name):
        paths = [Path(os.path.expanduser(name))]
    elif section.source in bundled_data():
        paths = _files_of_split(bundled_data()[section.source], name)
    elif os.path.isdir(source) and not (os.path.isdir(folder) and _is_one_split(folder, name)):
        paths = _files_of_split(folder, name)
    elif os.path.exists(source) or _is_file(section.source):
        if role != "train":  # measuring on the rows of the training would give scores that mean nothing
            raise NoSplitError(
                f"{source}: one file holds one split, the train split (got a request for {role}); give a folder with"
                f" train and {role} files, --set data.{role}_split=FILE, or --set 'data.split=[0.8, 0.1, 0.1]'"
            )
        paths = [folder]
    elif re.fullmatch(r"[\w.-]+(/[\w.-]+)?", section.source) and not section.source.startswith("."):
        return _hub_rows(section, name, required[1] if required else "", labels)
    else:
        raise DataError(
            f"{source}: no such folder or file; give a folder, a file ({' '.join(SUFFIXES)}), a hub id,"
            f" or a bundled name ({', '.join(bundled_data())})"
        )
    for path in paths:
        if not os.path.lexists(path):
            raise DataError(f"{path}: no such file; check the path")
        if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
            raise DataError(f"{path}: exists, but is no plain file (got a pipe or a device); save its rows in a file")
    parts = (_rows_of(path, required, section, labels) for path in paths)
    if len(paths) == 1 and not paths[0].is_dir():
        return next(parts), str(paths[0])
    numbered = enumerate(itertools.chain.from_iterable(parts), start=1)
    return (replace(item, row=row) for row, item in numbered), str(paths[0] if len(paths) == 1 else paths[0].parent)


def _rows_of(
    path: Path, required: tuple[str, ...], section: DataConfig, labels: Sequence[str]
) -> Iterable[Row | BadRow]:
    """The rows of one file, or of a folder that holds one split; with names for the ids of labels that it names."""
    label_column = required[1] if required else ""
    settings = FileSettings(section.encoding, section.delimiter, section.sheet)
    if (path / SAVED).is_file():
        import datasets

        try:
            saved = datasets.load_from_disk(str(path))
        except Exception as error:  # damaged files fail in as many ways as they have keys
            raise DataError(
                f"{path}: cannot be loaded ({first_line(error)}); save it again with save_to_disk"
            ) from error
        require_columns(saved.column_names, required, str(path))
        return _named(saved, section, label_column, str(path), labels)
    if path.is_dir():
        return text_folder_rows(path, required, settings)
    rows = read_rows(path, required, settings)
    names = section.label_names or []
    if not names and path.suffix.lower() == ".parquet":
        names = parquet_label_names(path, label_column)
    return ids_to_names(rows, names, label_column, str(path), labels)


def _named(
    loaded: Any, section: DataConfig, label_column: str, where: str, labels: Sequence[str]
) -> Iterable[Row | BadRow]:
    """The rows of a data set of `datasets`, with names for the ids of its labels where it has them."""
    feature = loaded.features.get(label_column)
    feature = getattr(feature, "feature", feature)  # of the labels in a list
    names = section.label_names or getattr(feature, "names", None) or []
    return ids_to_names(_readable(loaded), names, label_column, where, labels)


def _readable(loaded: Iterable[dict[str, Any]]) -> Iterator[Row | BadRow]:
    """The rows of a data set; where one cannot be read, that is the last one."""
    row = 0
    try:
        for row, columns in enumerate(loaded, start=1):
            yield Row(row, columns)
    except UNREADABLE as error:
        yield BadRow(row + 1, f"a column cannot be read ({error})")


def _is_file(name: str) -> bool:
    # A file that exists is neither a hub id nor a split's name, even where its format is not supported.
    path = Path(os.path.expanduser(name))  # os.path: a name that no file can have is none, not an error
    return not os.path.isdir(path) and (suffix_of(path) in SUFFIXES or (path.suffix != "" and os.path.isfile(path)))


def _is_one_split(folder: Path, name: str) -> bool:
    """Whether a folder holds one split itself: a saved data set, or texts by label."""
    if (folder / SAVED).is_file():
        return True
    entries = _entries(folder)
    splits = {"train", "test", *ALIASES["validation"], name.casefold()}
    return has_texts(folder) and not any(suffix_of(one) in SUFFIXES or _stem(one) in splits for one in entries)


def _files_of_split(folder: Path, name: str) -> list[Path]:
    """The file of a split, its parts in order, or its folder; names count whatever their case."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder (got data.subset={folder.name!r}); name one that is there")
    entries = _entries(folder)
    for alias in ALIASES.get(name, (name,)):
        stem = unicodedata.normalize("NFC", alias).casefold()
        found = [one for one in entries if _stem(one) == stem]
        files = [one for one in found if one.is_file()]
        if len(files) > 1:
            files.sort(key=lambda path: (*SUFFIXES, *TEXT_SUFFIXES).index(suffix_of(path)))
            raise DataError(
                f"{folder}: several files for split {name} (got {listed(path.name for path in files)}); keep one,"
                f" or name one with --set data.{name}_split=FILE"
            )
        parts = [one for one in entries if re.fullmatch(re.escape(stem) + SHARD, _stem(one))]
        if found := files or _whole(parts, folder, name) or [one for one in found if _of_split(one)]:
            return _of_split(found[0]) if found[0].is_dir() else found
    got = listed(one.name for one in entries) if entries else "no data files"
    raise NoSplitError(
        f"{folder}: no file for split {name} (got {got}); expected {name}{{{','.join(SUFFIXES)}}}, or a folder {name}"
    )


def _entries(folder: Path) -> list[Path]:
    """The data files and the folders of a folder, and of the folder `data` in it, where the hub's client puts them."""
    places = [place for place in (folder, folder / "data") if place.is_dir()]
    entries = [one for place in places for one in sorted(place.iterdir()) if one.name[0] not in "._"]
    return [one for one in entries if one.is_dir() or suffix_of(one) in (*SUFFIXES, *TEXT_SUFFIXES)]


def _of_split(folder: Path) -> list[Path]:
    """What a folder with a split's name holds: its data files, or the folder itself where it is read as one."""
    if not folder.is_dir() or (folder / SAVED).is_file():
        return [folder]
    return sorted(one for one in folder.iterdir() if suffix_of(one) in SUFFIXES) or [folder] * has_texts(folder)


def _stem(path: Path) -> str:
    return (path.name if path.is_dir() else stem_of(path)).casefold()


def _whole(parts: list[Path], folder: Path, name: str) -> list[Path]:
    """The parts of a split, none of which may be missing."""
    if parts and len(parts) != (number := int(_stem(parts[0]).partition("-of-")[2].partition("-")[0])):
        raise DataError(f"{folder}: parts of split {name} are missing (got {len(parts)} of {number}); add them")
    return parts


def _hub_rows(
    section: DataConfig, name: str, label_column: str, labels: Sequence[str]
) -> tuple[Iterable[Row | BadRow], str]:
    import datasets

    subset = f"/{section.subset}" if section.subset else ""
    where = f"hub {section.source}{subset}" + (f" at {section.revision}" if section.revision else "")
    where += f", split {name}"
    options: dict[str, str | None] = {"name": section.subset} if section.subset else {}
    options |= {"revision": section.revision, "cache_dir": section.cache_dir}
    answer = ask(DATA_SET, section.source, section.revision)
    if answer.problem and answer.reached:
        raise _not_on_hub(where, section, answer)
    try:
        with _cache_only(not answer.reached):
            try:
                loaded = datasets.load_dataset(section.source, split=name, **options)
            except ValueError as error:
                loaded = datasets.load_dataset(section.source, split=_split_in_other_case(name, error), **options)
    except Exception as error:  # upstream raises a dozen unrelated types, from ConnectionError to RuntimeError
        if isinstance(error, OSError) and not answer.reached:
            raise _not_on_hub(where, section, answer) from error
        kind = NoSplitError if str(error).startswith("Unknown split") else DataError
        raise kind(f"{where}: cannot be loaded ({first_line(error)}); {_hub_hint(section, error)}") from error
    return _named(loaded, section, label_column, where, labels), where


@contextmanager
def _cache_only(wanted: bool) -> Iterator[None]:
    """Inside the block `datasets` asks the hub nothing where that is wanted; without an answer it retries for long."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or wanted
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _not_on_hub(where: str, section: DataConfig, answer: Answer) -> DataError:
    way = _bundled_hint(section) or f"{answer.way}, or give a local folder"
    return DataError(f"{where}: cannot be loaded, and is no folder here: {answer.problem}; {way}")


def _split_in_other_case(name: str, error: ValueError) -> str:
    """The split that the error lists with that name, in another case or by another program's name; else raises it."""
    listed = re.findall(r"'([^']+)'", str(error).partition("one of")[2]) if "Unknown split" in str(error) else []
    by_name: dict[str, str] = {one.casefold(): one for one in listed}
    for alias in ALIASES.get(name, (name,)):
        if alias.casefold() in by_name:
            return by_name[alias.casefold()]
    raise error


def _bundled_hint(section: DataConfig) -> str:
    close = difflib.get_close_matches(section.source, bundled_data(), n=1)
    return f"did you mean the bundled {close[0]!r}?" if close else ""


def _hub_hint(section: DataConfig, error: Exception) -> str:
    if hint := _bundled_hint(section):
        return hint
    if isinstance(error, ConnectionError):
        return "check the network, or give a local folder"
    if "config name is missing" in str(error).lower():
        return "choose with --set data.subset=NAME"
    if "script" in str(error).lower():
        return "set --set data.revision=refs/convert/parquet"
    return "check the name, the revision and the split, or log in with `hf auth login`"
