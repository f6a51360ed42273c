"""Labelled splits, from bundled data, the hub, folders and files, checked before anything heavy starts.

Text is composed to NFC here, at the door, and nowhere else. What is wrong with a row is said with its file and
number; what was left out is counted in the split's notes.
"""

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loraft.config.schema import Config, DataConfig
from loraft.data.labels import allowed_labels, label_reader
from loraft.data.readers import missing_column, sentence
from loraft.data.records import BadRow, Example, Row
from loraft.data.sources import open_source
from loraft.errors import DataError

SHOWN_ERRORS = 5


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
    rows, source = open_source(section, name, (section.text_column, column), str(split), labels)
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


def _examples(
    rows: Iterable[Row | BadRow],
    source: str,
    text_column: str,
    label_column: str,
    labels: Sequence[str],
    notes: Counter[str],
) -> Iterator[Example]:
    read_label = label_reader(labels)
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
            f"allowed labels are {allowed_labels(labels)}; mend the rows, or set data.text_column, data.label_column"
        )
        raise DataError("\n".join(lines))


_told: set[tuple[str, str]] = set()


def warn_of_notes(splits: Iterable[Split]) -> None:
    """Says what was found or left out when the rows were read; once, also where many trials read them."""
    for split in splits:
        if split.notes and (told := (split.source, str(split.notes))) not in _told:
            _told.add(told)
            found = ", ".join(f"{number} {what}" for what, number in split.notes.items())
            warnings.warn(f"{split.source}: {found}", stacklevel=3)
