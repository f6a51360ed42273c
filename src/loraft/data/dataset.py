"""Load labelled splits: read the rows, match their labels, count duplicates, apply the row limits.

With `data.split`, the splits are drawn from the rows of the train split. Every row that cannot be used is reported with
its file and row number. Rows that were skipped, dropped or left out are counted in the split's notes.
"""

import hashlib
import json
import shlex
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loraft.config.data_section import DataConfig
from loraft.config.names import listed
from loraft.config.schema import Config
from loraft.data.columns import missing_column, sentence, shown
from loraft.data.dropping import dropped
from loraft.data.label_sets import label_set_reader
from loraft.data.labels import allowed_labels, is_unlabelled, label_named, label_reader, whole_number
from loraft.data.records import BadRow, Example, Row
from loraft.data.sources import NoSplitError, open_source
from loraft.data.splitting import drawn_splits, fold_rows
from loraft.errors import DataError, Note

SHOWN_ERRORS = 5  # rows named in one message
LIMITS = {"train": "max_train_rows", "validation": "max_eval_rows", "test": "max_test_rows"}  # keys of `data`
KEEP_ALL = {"drop_duplicates": False, "drop_conflicts": False, "drop_leaked": False}  # for every split but train
# Notes: of a limit, of rows without sentence, of rows without label.
LEFT_OUT, BLANK, UNLABELLED = "rows left out by the limit", "blank rows skipped", "unlabelled rows skipped"
UNUSED = "rows of the source's own {} split unused (data.split)"
UNKNOWN_LABEL, UNNAMED_ID = "unknown label", "a number that does not say which label it means"
NO_LABEL = "no label"  # how the reason begins for which a row without label is refused


@dataclass(frozen=True)
class SplitSummary:
    """What reports and `metrics.json` say of a split."""

    source: str
    rows: int
    notes: dict[str, int]


@dataclass(frozen=True)
class Split:
    """Labelled examples of one split."""

    name: str
    examples: tuple[Example, ...]
    source: str  # file, or hub id with revision and split
    notes: dict[str, int] = field(default_factory=dict)  # what was found or left out: number of rows
    pool: str | None = None  # with data.split: fingerprint of all the rows they were drawn from, whatever their order

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def summary(self) -> SplitSummary:
        """Source, number of rows and notes."""
        return SplitSummary(self.source, len(self), self.notes)

    @property
    def texts(self) -> list[str]:
        """The N sentences."""
        return [example.text for example in self.examples]

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """The N label ids."""
        return np.array([example.label for example in self.examples], dtype=np.int64)

    def label_sets(self, num_labels: int) -> npt.NDArray[np.bool_]:
        """Whether each of the N rows has each of the K labels, (N, K), of a split with any number of labels a row."""
        found_NK = np.zeros((len(self), num_labels), dtype=bool)
        for row, example in zip(found_NK, self.examples, strict=True):
            row[list(example.label) if isinstance(example.label, tuple) else []] = True
        return found_NK

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over texts and label ids in their order, in hexadecimal: equal for equal data, however stored."""
        return _fingerprint(self.examples)


def _fingerprint(examples: Iterable[Example], *, ordered: bool = True) -> str:
    digest = hashlib.sha256()
    lines = (json.dumps([example.text, example.label]) for example in examples)
    for line in lines if ordered else sorted(lines):
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def training_splits(config: Config) -> dict[str, Split]:
    """The splits that a training needs: train, validation and test."""
    return {name: load_data(config, name) for name in LIMITS}


def load_data(config: Config, name: str) -> Split:
    """The labelled rows of a split as a config asks for them, within its limits; see `load_split`."""
    prompt, data = config.prompt, config.data
    limit = getattr(data, LIMITS[name]) if name in LIMITS else None
    label_column = prompt.label_column or "label"
    several = prompt.kind == "multilabel"
    given: dict[str, Any] = {"id_columns": prompt.id_columns or (), "labels": prompt.labels or [], "several": several}
    if data.fold is None or name not in LIMITS:
        return load_split(data, name, label_column=label_column, limit=limit, **given)
    whole = load_split(data, "train", label_column=label_column, limit=data.max_train_rows, **given)
    return _of_fold(whole, name, data, given["labels"])


def _of_fold(whole: Split, name: str, section: DataConfig, labels: Sequence[str]) -> Split:
    """The rows of `whole` that are the test rows of a fold, or of the others a tenth as validation, or the rest."""
    fold, seed = str(section.fold), section.split_seed
    number, folds = map(int, fold.split("/"))
    rows = fold_rows(whole.examples, name, number, folds, seed, labels, whole.source)
    notes, pool = whole.notes if name == "train" else {}, _fingerprint(whole.examples, ordered=False)
    return Split(name, tuple(rows), f"{whole.source} ({name} of fold {fold}, seed {seed})", notes, pool)


def load_split(
    section: DataConfig,
    split: str | Path,
    *,
    labels: Sequence[str],
    label_column: str,
    id_columns: Sequence[str] = (),
    limit: int | None = None,
    several: bool = False,
) -> Split:
    """The labelled rows of one split.

    Args:
        section: source, columns, names of the splits. A bundled name means the bundled data, even where a local folder
            has that name: `./feedback` is the folder.
        split: "train", "validation" or "test", which `section` may rename; another split's name; or a file, which is
            read whatever the source is.
        labels: label names in id order. Rows give names (case and `_` for a space do not matter) or ids from 0;
            names come first, and where a name is itself a whole number there are no ids.
        label_column: the task's column; `section.label_column` comes first.
        id_columns: ids count only in rows with all these columns; in others they may mean anything, and are refused.
        several: whether a row has any number of labels, see `label_sets`.
        limit: at most so many rows, taken at even distances, so that a file sorted by label keeps all labels.

    Raises:
        NoSplitError: the source has no such split.
        DataError: the source cannot be read, a column is missing, a row is malformed, its label unknown or (unless
            `section.unlabelled` is "skip") missing, or no row is left. Up to five rows are named.
    """
    column = section.label_column or label_column
    shares = dict(zip(LIMITS, section.split or (), strict=bool(section.split)))
    role = "train" if shares.get(str(split)) else str(split)  # of the rows in the source
    name = str(getattr(section, f"{role}_split")) if role in LIMITS else role
    rows, source = open_source(section, name, (section.text_column, column), role, labels)
    notes: Counter[str] = Counter()
    examples = list(_examples(rows, source, section, column, _LabelIds(labels, id_columns, section, several), notes))
    pool = None
    if shares.get(str(split)):
        pool, number = _fingerprint(examples, ordered=False), list(LIMITS).index(str(split))
        drawn = drawn_splits(examples, [*shares.values()], section.split_seed, labels, source)
        examples = [example for example, one in zip(examples, drawn, strict=True) if one == number]
        source += f" ({shares[str(split)]:.0%} drawn for {split}, seed {section.split_seed})"
        if split == "train":
            notes.update(_unused(section, [role for role, share in shares.items() if share and role != "train"]))
        else:
            notes.clear()  # of all rows: told with those of train

    def measured_on() -> list[str]:
        """The sentences of the validation and the test split, of those that the source has."""
        texts = []
        for other in ("validation", "test"):
            with suppress(NoSplitError):
                texts += load_split(
                    section, other, labels=labels, label_column=label_column, id_columns=id_columns, several=several
                ).texts
        return texts

    dropping = section if split == "train" else section.model_copy(update=KEEP_ALL)
    examples = dropped(examples, dropping, measured_on, notes)

    if limit is not None and len(examples) > limit:
        notes[LEFT_OUT] = len(examples) - limit
        examples = [examples[i * len(examples) // limit] for i in range(limit)]
    if not examples:
        found = ", ".join(f"{number} {what.removesuffix(' skipped')}" for what, number in notes.items())
        raise DataError(
            f"{source}: no row with text and label (got {found or 'an empty source'}); add rows, or name another split"
            f" or data.label_column (now {column!r})"
        )
    return Split(str(split), tuple(examples), source, dict(notes), pool)


def _unused(section: DataConfig, drawn: Iterable[str]) -> dict[str, int]:
    """Rows of the splits that the source has itself although they are drawn from its train split, as notes."""
    notes = {}
    for role in drawn:
        with suppress(DataError):  # most sources have no such split
            rows, _ = open_source(section, str(getattr(section, f"{role}_split")), (), role, ())
            notes[UNUSED.format(role)] = sum(1 for _ in rows)
    return {what: number for what, number in notes.items() if number}


def _examples(
    rows: Iterable[Row | BadRow],
    source: str,
    section: DataConfig,
    label_column: str,
    ids: "_LabelIds",
    notes: Counter[str],
) -> Iterator[Example]:
    """Yields the rows with sentence and label; counts what is left out; refuses all bad rows together at the end."""
    bad: list[BadRow] = []
    labelled = False  # whether any row has a label, allowed or not
    for row in rows:
        example = row if isinstance(row, BadRow) else _example(row, section, label_column, ids)
        if isinstance(example, str):
            notes[example] += 1
        elif isinstance(example, BadRow):
            bad.append(example)
            labelled |= example.reason.startswith((UNKNOWN_LABEL, UNNAMED_ID))
        else:
            labelled = True
            yield example
    if bad:
        lines, hints = [], {""}
        for item in bad[:SHOWN_ERRORS]:
            what, _, way = item.reason.partition("; ")  # what to do is said once
            lines.append(f"{source} row {item.row}: {what}" + (f"; {way}" if way not in hints else ""))
            hints.add(way)
        if len(bad) > SHOWN_ERRORS:
            lines.append(f"... and {len(bad) - SHOWN_ERRORS} more such rows")
        hint = "correct the rows, or set data.text_column, data.label_column"
        if any(item.reason.startswith(UNNAMED_ID) for item in bad):
            hint = "name them with --set 'data.label_names=[NAME OF 0, NAME OF 1, ...]'"
        if any(item.reason.startswith((UNKNOWN_LABEL, UNNAMED_ID)) for item in bad):
            hint += f", or write a task for these labels: loraft task new --data {shlex.quote(section.source)}"
        if labelled and any(item.reason.startswith(NO_LABEL) for item in bad):  # skipping leaves rows
            hint += ", or data.unlabelled=skip"
        lines.append(f"allowed labels are {ids.allowed(bad)}; {hint}")
        raise DataError("\n".join(lines))


def _example(row: Row, section: DataConfig, label_column: str, ids: "_LabelIds") -> Example | BadRow | str:
    """The row with its label id, or why it cannot be used, or the note under which it is left out and counted.

    A blank sentence is left out whatever its label.
    """
    text, reason = sentence(row.columns, section.text_column)
    if reason is not None:
        return BadRow(row.row, reason)
    if not text:
        return BLANK
    cell = row.columns.get(label_column)
    if ids.unlabelled(cell) and section.unlabelled == "skip":
        return UNLABELLED
    if label_column not in row.columns:
        return BadRow(row.row, f"{NO_LABEL}: {missing_column(label_column, row.columns)}")
    label = ids.of(cell, row)
    if label is None:
        number = whole_number(cell) is not None and ids.columns
        what = NO_LABEL if ids.unlabelled(cell) else UNNAMED_ID if number else UNKNOWN_LABEL
        return BadRow(row.row, f"{what} in {label_column!r} (got {shown(cell)})")
    extra = {key: value for key, value in row.columns.items() if key not in (section.text_column, label_column)}
    return Example(text, label, row.row, extra)


class _LabelIds:
    """From a cell to a label id, where ids count only in rows with certain columns."""

    def __init__(self, labels: Sequence[str], columns: Sequence[str], section: DataConfig, several: bool) -> None:
        self.labels, self.columns, self._several = labels, set(columns), several
        self._named: Callable[[Any], int | tuple[int, ...] | None]
        self._any: Callable[[Any], int | tuple[int, ...] | None]
        names = section.label_names or []  # of the ids in a text with several; a single id has its name already
        one, by_id = label_reader(labels, ids_count=False), label_reader(labels)
        self._named, self._any = one, by_id
        if several:
            self._named = label_set_reader(one, section.label_separator)
            self._any = label_set_reader(lambda value: by_id(label_named(value, names)), section.label_separator)

    def unlabelled(self, cell: Any) -> bool:
        """Whether a cell holds no label: null, NaN, or blank text where a row has one label."""
        return is_unlabelled(cell) and not (self._several and isinstance(cell, str))

    def of(self, cell: Any, row: Row) -> int | tuple[int, ...] | None:
        """The label id of a cell, or its label ids; None for no label, and for an id in another data set's row."""
        return self._any(cell) if self.columns <= row.columns.keys() else self._named(cell)

    def allowed(self, bad: Sequence[BadRow]) -> str:
        """The allowed labels, for the message about bad rows."""
        ids_count = not any(item.reason.startswith(UNNAMED_ID) for item in bad)
        return allowed_labels(self.labels) if ids_count else listed(self.labels)


_reported: set[tuple[str, str]] = set()  # source and notes of the splits reported by this process


def warn_of_notes(splits: Iterable[Split]) -> None:
    """Warns of what was found or left out when splits were read.

    What the config asked for is a `Note`: rows skipped or dropped by a setting, and a limit, with how many of how many
    rows are used. Everything else is a plain warning. Each is given once, so that a sweep does not repeat it for every
    trial.
    """
    for split in splits:
        if (key := (split.source, str(split.notes))) in _reported:
            continue
        _reported.add(key)
        by_setting = {what for what in split.notes if what == UNLABELLED or what.endswith((" dropped", "(data.split)"))}
        for asked, category in ((False, UserWarning), (True, Note)):
            found = {what: n for what, n in split.notes.items() if what != LEFT_OUT and (what in by_setting) == asked}
            if found:
                listed = ", ".join(f"{number:,} {what}" for what, number in found.items())
                warnings.warn(f"{split.source}: {listed}", category, stacklevel=3)
        if LEFT_OUT in split.notes:
            of_all = f"{len(split):,} of {len(split) + split.notes[LEFT_OUT]:,}"
            by_key = f" (data.{LIMITS[split.name]})" if split.name in LIMITS else ""
            warnings.warn(f"using {of_all} {split.name} rows{by_key}", Note, stacklevel=3)
