"""Labelled splits, from bundled data, the hub, folders and files, checked before anything heavy starts.

Text is composed to NFC here, at the door, and nowhere else. What is wrong with a row is said with its file and
number; what was left out is counted in the split's notes.
"""

import difflib
import hashlib
import itertools
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loraft.bundled import bundled_data
from loraft.config import Config, DataConfig
from loraft.errors import DataError
from loraft.reading import (
    SUFFIXES,
    BadRow,
    Example,
    Row,
    class_names,
    missing_column,
    read_inputs,
    read_rows,
    sentence,
)

__all__ = ["BadRow", "Example", "NoSplitError", "Split", "load_data", "load_split", "read_inputs", "training_splits"]

# Names that other people give to the three splits; the first that is there counts.
ALIASES = {"validation": ("validation", "valid", "dev", "val")}

SHOWN_ERRORS = 5


class NoSplitError(DataError):
    """The source is there, and holds no such split."""


@dataclass(frozen=True)
class Split:
    """Labelled examples of one split."""

    name: str
    examples: tuple[Example, ...]
    source: str  # in human words
    notes: dict[str, int] = field(default_factory=dict)  # what was found or left out, in human words: number of rows

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def texts(self) -> list[str]:
        """The N sentences."""
        return [example.text for example in self.examples]

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """The N label ids."""
        return np.array([example.label for example in self.examples], dtype=np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over texts and label ids in their order, in hexadecimal: equal for equal data, however stored."""
        digest = hashlib.sha256()
        for example in self.examples:
            digest.update(json.dumps([example.text, example.label]).encode() + b"\n")
        return digest.hexdigest()


def training_splits(config: Config) -> dict[str, Split]:
    """The splits that a training needs: train, validation and test."""
    return {name: load_data(config, name) for name in ("train", "validation", "test")}


def load_data(config: Config, name: str) -> Split:
    """The labelled rows of a split as a config asks for them, within its limits; see `load_split`."""
    prompt, data = config.prompt, config.data
    limits = {"train": data.max_train_rows, "validation": data.max_eval_rows, "test": data.max_test_rows}
    return load_split(
        data, name, labels=prompt.labels or [], label_column=prompt.label_column or "label", limit=limits.get(name)
    )


def load_split(
    section: DataConfig, split: str | Path, *, labels: Sequence[str], label_column: str, limit: int | None = None
) -> Split:
    """The labelled rows of one split.

    Args:
        section: source, columns, names of the splits. A bundled name means the bundled data, also where a local folder
            has that name: `./feedback` reaches the folder.
        split: "train", "validation" or "test", which `section` may rename; another split's name; or a file, which is
            read whatever the source is.
        labels: label names in id order. Rows give names (case and `_` for a space do not matter) or ids from 0;
            names come first, and where a name is itself a whole number there are no ids.
        label_column: the task's column; `section.label_column` comes first.
        limit: at most so many rows, taken at even distances, so that a file sorted by label keeps all labels.

    Raises:
        NoSplitError: the source has no such split.
        DataError: the source cannot be read, a column is missing, a row is malformed or its label unknown, or no
            row is left. Up to five rows are named.
    """
    column = section.label_column or label_column
    name = str(getattr(section, f"{split}_split")) if split in ("train", "validation", "test") else str(split)
    rows, source = _open_source(section, name, (section.text_column, column), str(split), labels)
    notes: Counter[str] = Counter()
    examples = list(_examples(rows, source, section.text_column, column, labels, notes))

    first_of: dict[tuple[str, int | None], Example] = {}
    for example in examples:
        first_of.setdefault((example.text, example.label), example)
    repeated = len(examples) - len(first_of)
    if repeated and section.drop_duplicates and split == "train":
        examples = list(first_of.values())
        notes["duplicate rows dropped"] = repeated
    elif repeated:
        notes["duplicate rows"] = repeated

    if limit is not None and len(examples) > limit:
        notes["rows left out by the limit"] = len(examples) - limit
        examples = [examples[i * len(examples) // limit] for i in range(limit)]
    if not examples:
        found = f"got {notes['blank rows skipped']} blank rows" if notes else "got an empty source"
        raise DataError(f"{source}: no row with text and label ({found}); add rows or name another split")
    return Split(str(split), tuple(examples), source, dict(notes))


def _open_source(
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
        rows = _by_name(rows, class_names(path, required[1]), required[1], str(path), labels)
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
    return _by_name(rows, names, label_column, where, labels), where


def _by_name(
    rows: Iterable[Row | BadRow], names: Sequence[str], label_column: str, where: str, labels: Sequence[str]
) -> Iterable[Row | BadRow]:
    """The rows with names for label ids, where the source has names: copies of one data set order their ids otherwise.

    Raises:
        DataError: a name is none of the task's labels.
    """
    read_label = _label_reader(labels)
    if any(read_label(label) is None for label in names):
        theirs = ", ".join(names)
        raise DataError(
            f"{where}: the names of {label_column!r} are not the task's labels (got {theirs}; the task has"
            f" {', '.join(labels)}), and ids alone may mean other labels; --set 'prompt.labels=[{theirs}]' with"
            " prompt.label_words, what the prompt calls them, in the same order, or --task FILE with these labels"
        )

    def named(item: Row | BadRow) -> Row | BadRow:
        value = item.columns.get(label_column) if isinstance(item, Row) else None
        if not (isinstance(item, Row) and isinstance(value, int) and 0 <= value < len(names)):
            return item
        return Row(item.row, {**item.columns, label_column: names[value]})

    return map(named, rows)


def _hub_hint(section: DataConfig, error: Exception) -> str:
    close = difflib.get_close_matches(section.source, bundled_data(), n=1)
    if close:
        return f"did you mean the bundled {close[0]!r}?"
    if isinstance(error, ConnectionError):
        return "there is no such local folder either; check the network and HF_HUB_OFFLINE, or give a local folder"
    if "script" in str(error).lower():
        return "set --set data.revision=refs/convert/parquet"
    return "check the name, the revision and the split, or log in with `hf auth login`"


def _examples(
    rows: Iterable[Row | BadRow],
    source: str,
    text_column: str,
    label_column: str,
    labels: Sequence[str],
    notes: Counter[str],
) -> Iterator[Example]:
    read_label = _label_reader(labels)
    reasons: list[str] = []
    for item in rows:
        reason: str | None
        if isinstance(item, BadRow):
            reason = item.reason
        else:
            text, reason = sentence(item.columns, text_column)
            if reason is None and not text:
                notes["blank rows skipped"] += 1
                continue
            if reason is None and label_column not in item.columns:
                reason = missing_column(label_column, item.columns)
            elif reason is None:
                label = read_label(item.columns[label_column])
                if label is not None:
                    extra = {k: v for k, v in item.columns.items() if k not in (text_column, label_column)}
                    yield Example(text, label, item.row, extra)
                    continue
                reason = f"unknown label in {label_column!r} (got {item.columns[label_column]!r})"
        reasons.append(f"{source} row {item.row}: {reason}")
    if reasons:
        more = len(reasons) - SHOWN_ERRORS
        lines = reasons[:SHOWN_ERRORS] + ([f"... and {more} more such rows"] if more > 0 else [])
        lines.append(
            f"allowed labels are {_allowed(labels)}; mend the rows, or set data.text_column, data.label_column"
        )
        raise DataError("\n".join(lines))


def _label_reader(labels: Sequence[str]) -> Callable[[Any], int | None]:
    ids = {_fold(label): index for index, label in enumerate(labels)}
    ids |= {label: index for index, label in enumerate(labels)}
    if _ids_allowed(labels):
        ids |= {str(index): index for index in range(len(labels))}

    def read(value: Any) -> int | None:
        # 2.0 is an id after a trip through a data frame with gaps.
        text = re.sub(r"^(\d+)\.0$", r"\1", str(value).strip())
        return ids.get(text, ids.get(_fold(text)))

    return read


def _ids_allowed(labels: Sequence[str]) -> bool:
    # With labels "1" to "5" a row's 1 is the name; reading 0 as an id beside it would mix two scales.
    return not any(re.fullmatch(r"[+-]?\d+", label.strip()) for label in labels)


def _allowed(labels: Sequence[str]) -> str:
    names = ", ".join(labels)
    return f"{names}, or ids 0 to {len(labels) - 1}" if _ids_allowed(labels) else names


def _fold(label: str) -> str:
    return re.sub(r"[\s_]+", " ", unicodedata.normalize("NFC", label)).strip().casefold()
