"""Load labelled splits: read the rows, match their labels, count duplicates, apply the row limits.

With `data.split`, the splits are drawn from the rows of the train split. Every row that cannot be used is reported with
its file and row number. Rows that were skipped, dropped or left out are counted in the split's notes.
"""

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loraft.bundled import bundled_data
from loraft.config.data_section import DataConfig
from loraft.config.schema import Config
from loraft.data.dropping import dropped
from loraft.data.examples import Examples, Texts
from loraft.data.labelled_rows import UNLABELLED, LabelIds, labelled_rows
from loraft.data.sources import NoSplitError, open_source
from loraft.data.splitting import drawn_splits, fold_rows
from loraft.errors import DataError, Note

LIMITS = {"train": "max_train_rows", "validation": "max_eval_rows", "test": "max_test_rows"}  # keys of `data`
KEEP_ALL = {"drop_duplicates": False, "drop_conflicts": False, "drop_leaked": False}  # for every split but train
# How a source of `data.extra_train` is read: without what `data.source` needs, and with rows that wait for a label.
AS_EXTRA = dict.fromkeys(("subset", "revision", "encoding", "delimiter", "sheet", "split")) | {
    "train_split": "train", "unlabelled": "skip"
}  # fmt: skip
LEFT_OUT = "rows left out by the limit"  # a note
ADDED = "rows added (data.extra_train)"  # a note
SET_ASIDE = "rows set aside for calibration (data.calibration_share)"  # a note
LEAST_TO_SHARE = 200  # validation rows from which on half are set aside
UNUSED = "rows of the source's own {} split unused (data.split)"


@dataclass(frozen=True)
class SplitSummary:
    """What reports and `metrics.json` say of a split."""

    source: str
    rows: int
    notes: dict[str, int]


@dataclass(frozen=True)
class Split:
    """Labelled examples of one split; any sequence of them is taken, and kept as `Examples`."""

    name: str
    examples: Examples
    source: str  # file, or hub id with revision and split
    notes: dict[str, int] = field(default_factory=dict)  # what was found or left out: number of rows
    pool: str | None = None  # with data.split: fingerprint of all the rows they were drawn from, whatever their order

    def __post_init__(self) -> None:
        if not isinstance(self.examples, Examples):
            object.__setattr__(self, "examples", Examples(self.examples))

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def summary(self) -> SplitSummary:
        """Source, number of rows and notes."""
        return SplitSummary(self.source, len(self), self.notes)

    @property
    def texts(self) -> Texts:
        """The N sentences."""
        return self.examples.texts

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """The N label ids."""
        return np.array(self.examples.labels, dtype=np.int64)

    def label_sets(self, num_labels: int) -> npt.NDArray[np.bool_]:
        """Whether each of the N rows has each of the K labels, (N, K), of a split with any number of labels a row."""
        found_NK = np.zeros((len(self), num_labels), dtype=bool)
        for row, label in zip(found_NK, self.examples.labels, strict=True):
            row[list(label) if isinstance(label, tuple) else []] = True
        return found_NK

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over texts and label ids in their order, in hexadecimal: equal for equal data, however stored."""
        return _fingerprint(self.examples)


def _fingerprint(examples: Examples, *, ordered: bool = True) -> str:
    digest = hashlib.sha256()
    lines = (json.dumps(row) for row in zip(examples.texts, examples.labels, strict=True))
    for line in lines if ordered else sorted(lines):
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def training_splits(config: Config) -> dict[str, Split]:
    """The splits that a training needs: train, validation, test, and calibration where rows are set aside for it."""
    splits = {name: load_data(config, name) for name in LIMITS}
    kept, aside = _shared(config, splits["validation"])
    return splits if aside is None else {**splits, "validation": kept, "calibration": aside}


def _shared(config: Config, split: Split) -> tuple[Split, Split | None]:
    """The validation rows that choose checkpoint and temperature, and those that are set aside, if there are any.

    The rows of each label are shared alike, in an order that `data.split_seed` draws.
    """
    share, data = config.data.calibration_share, config.data
    if share is None:
        share = 0.5 if len(split) >= LEAST_TO_SHARE else 0.0
    if not share or config.prompt.kind == "multilabel" or data.fold is not None:
        return split, None
    aside_N, generator = np.zeros(len(split), dtype=bool), np.random.default_rng(data.split_seed)
    for k in np.unique(split.labels):
        of_label = generator.permutation(np.flatnonzero(split.labels == k))
        aside_N[of_label[: int(share * len(of_label))]] = True
    if not aside_N.any():
        return split, None
    kept, aside = ([example for example, one in zip(split.examples, aside_N, strict=True) if one == which]
                   for which in (False, True))  # fmt: skip
    notes = {**split.notes, SET_ASIDE: len(aside)}
    return replace(split, examples=Examples(kept), notes=notes), Split("calibration", Examples(aside), split.source)


def load_data(config: Config, name: str) -> Split:
    """The labelled rows of a split as a config asks for them, within its limits; see `load_split`.

    Those of `data.extra_train` follow the other training rows, and no limit counts them.
    """
    split = _own_rows(config, name)
    return _with_extra_rows(split, config) if name == "train" and config.data.extra_train else split


def _own_rows(config: Config, name: str) -> Split:
    """The rows of a split in the source itself."""
    data = config.data
    limit = getattr(data, LIMITS[name]) if name in LIMITS else None
    given = _of_the_task(config)
    if data.fold is None or name not in LIMITS:
        return load_split(data, name, limit=limit, **given)
    whole = load_split(data, "train", limit=data.max_train_rows, **given)
    return _of_fold(whole, name, data, given["labels"])


def _of_the_task(config: Config) -> dict[str, Any]:
    """What `load_split` needs to know of the task."""
    prompt = config.prompt
    return {
        "label_column": prompt.label_column or "label",
        "id_columns": prompt.id_columns or (),
        "labels": prompt.labels or [],
        "several": prompt.kind == "multilabel",
    }


def _with_extra_rows(split: Split, config: Config) -> Split:
    """The train split with the rows of `data.extra_train` behind its own; all of them are dropped as the config asks.

    A file that is named twice is read once. Rows that still wait for a label are counted in the notes. Validation and
    test stay as they are, so that scores with and without the further rows can be compared.
    """
    own = bundled_data()  # names, not paths
    given = {one if one in own else os.path.realpath(os.path.expanduser(one)): one for one in config.data.extra_train}
    parts = [_extra_rows(config, source) for source in given.values()]
    notes = Counter(split.notes)
    for part in parts:
        notes.update(part.notes)
    rows = list(split.examples)
    for part in parts:  # rows are counted through all files, so that no two have one number
        before = max(example.row for example in rows)
        rows += [replace(example, row=before + example.row) for example in part.examples]
    everything = config.data.model_copy(update={"max_eval_rows": None, "max_test_rows": None})

    def measured_on() -> list[str]:
        texts: list[str] = []
        for name in ("validation", "test"):
            with suppress(NoSplitError):
                texts += _own_rows(config.model_copy(update={"data": everything}), name).texts
        return texts

    found: Counter[str] = Counter()
    examples = dropped(Examples(rows), config.data, measured_on, found)
    notes.pop("duplicate rows", None)  # counted again, over all rows
    notes.update(found)
    notes[ADDED] = sum(map(len, parts))
    return replace(split, examples=examples, notes=dict(notes))


def _extra_rows(config: Config, source: str) -> Split:
    section = config.data.model_copy(update={**AS_EXTRA, **KEEP_ALL, "source": source})
    try:
        return load_split(section, "train", **_of_the_task(config))
    except DataError as error:  # without advice on keys that `AS_EXTRA` takes away
        said = str(error).replace(", or set data.encoding", "")
        error.args = (said.replace("choose with --set data.sheet=NAME", "leave one with cells in it"),)
        raise


def _of_fold(whole: Split, name: str, section: DataConfig, labels: Sequence[str]) -> Split:
    """The rows of `whole` that are the test rows of a fold, or of the others a tenth as validation, or the rest."""
    fold, seed = str(section.fold), section.split_seed
    number, folds = map(int, fold.split("/"))
    rows = fold_rows(whole.examples, name, number, folds, seed, labels, whole.source)
    notes, pool = whole.notes if name == "train" else {}, _fingerprint(whole.examples, ordered=False)
    return Split(name, Examples(rows), f"{whole.source} ({name} of fold {fold}, seed {seed})", notes, pool)


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
    examples = Examples(
        labelled_rows(rows, source, section, column, LabelIds(labels, id_columns, section, several), notes)
    )
    pool = None
    if shares.get(str(split)):
        pool, number = _fingerprint(examples, ordered=False), list(LIMITS).index(str(split))
        drawn = drawn_splits(examples, [*shares.values()], section.split_seed, labels, source)
        examples = Examples(example for example, one in zip(examples, drawn, strict=True) if one == number)
        source += f" ({shares[str(split)]:.0%} drawn for {split}, seed {section.split_seed})"
        if split == "train":
            notes.update(_unused(section, [role for role, share in shares.items() if share and role != "train"]))
        else:
            notes.clear()  # of all rows: told with those of train

    def measured_on() -> list[str]:
        """The sentences of the validation and the test split, of those that the source has."""
        texts: list[str] = []
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
        examples = Examples(examples[i * len(examples) // limit] for i in range(limit))
    if not examples:
        found = ", ".join(f"{number} {what.removesuffix(' skipped')}" for what, number in notes.items())
        raise DataError(
            f"{source}: no row with text and label (got {found or 'an empty source'}); add rows, or name another split"
            f" or data.label_column (now {column!r})"
        )
    return Split(str(split), examples, source, dict(notes), pool)


def _unused(section: DataConfig, drawn: Iterable[str]) -> dict[str, int]:
    """Rows of the splits that the source has itself although they are drawn from its train split, as notes."""
    notes = {}
    for role in drawn:
        with suppress(DataError):  # most sources have no such split
            rows, _ = open_source(section, str(getattr(section, f"{role}_split")), (), role, ())
            notes[UNUSED.format(role)] = sum(1 for _ in rows)
    return {what: number for what, number in notes.items() if number}


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
        by_setting = {
            what
            for what in split.notes
            if what in (UNLABELLED, SET_ASIDE, ADDED) or what.endswith((" dropped", "(data.split)"))
        }
        for asked, category in ((False, UserWarning), (True, Note)):
            found = {what: n for what, n in split.notes.items() if what != LEFT_OUT and (what in by_setting) == asked}
            if found:
                listed = ", ".join(f"{number:,} {what}" for what, number in found.items())
                warnings.warn(f"{split.source}: {listed}", category, stacklevel=3)
        if LEFT_OUT in split.notes:
            of_all = f"{len(split):,} of {len(split) + split.notes[LEFT_OUT]:,}"
            by_key = f" (data.{LIMITS[split.name]})" if split.name in LIMITS else ""
            warnings.warn(f"using {of_all} {split.name} rows{by_key}", Note, stacklevel=3)
