"""What is in a data source before any task exists: columns, the guessed text and label column, labels, lengths."""

import re
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from loraft.config.schema import Config
from loraft.config.wording import number_in_vietnamese
from loraft.data.columns import UNDECODABLE, sentence
from loraft.data.guess import MOST_VALUES, Column, columns_of, guess_label_columns, guess_text_column, names_in
from loraft.data.label_sets import SEPARATORS, list_in, parts, separator_in
from loraft.data.labels import label_named, normalised
from loraft.data.records import BadRow, Row
from loraft.data.sources import NoSplitError, open_source
from loraft.display.table import add_row, number_table, shorten
from loraft.errors import DataError
from loraft.studies.dataset.records import Lengths
from loraft.studies.dataset.statistics import SPLITS

SEEN_FOR_LANGUAGE = 1000  # texts
LABELS_SHOWN = 100
ENCODINGS = "--set data.encoding=cp1258, latin-1 or tcvn3"


@dataclass(frozen=True)
class ColumnSummary:
    """A column: what most cells are, how many are filled, how many values differ (at most 1,000), and one of them."""

    name: str
    kind: str
    filled: int
    different: int
    example: str


@dataclass(frozen=True)
class Overview:
    """What is in a data source.

    Attributes:
        source: as the config names it.
        rows: of each split that there is.
        columns: all of them.
        text_column: the config's where there is such a column, else a guess; None where no column holds texts.
        label_column: as `text_column`; None where no column can hold labels.
        candidates: other columns that can hold labels.
        labels: rows of each label in each split, labels in the order of a task's.
        ids: whether the labels are whole numbers for which the source has no names.
        several: whether rows have several labels: in a list, or in one text.
        separator: between the labels of a text, where `data.label_separator` has to name it; else None.
        language: "vi" or "en", of the texts.
        vietnamese: share of the texts looked at that have a letter that only Vietnamese has.
        words, characters: lengths of the texts; None without texts.
        undecodable: rows with bytes that are not UTF-8; what is shown of them has ? in their place.
        notes: sentences on rows that need a look.
    """

    source: str
    rows: dict[str, int]
    columns: tuple[ColumnSummary, ...]
    text_column: str | None
    label_column: str | None
    candidates: tuple[str, ...]
    labels: dict[str, dict[str, int]]
    ids: bool
    several: bool
    separator: str | None
    language: str
    vietnamese: float
    words: Lengths | None
    characters: Lengths | None
    undecodable: int
    notes: tuple[str, ...]


def survey(config: Config) -> Overview:
    """Reads all rows of a source twice: for the columns, then for texts and labels, whose ids it may have names for.

    Raises:
        DataError: the source cannot be read, has none of the splits train, validation and test, or no rows.
    """
    columns = columns_of(row for _, row in _rows(config, ()))
    if not columns:
        raise DataError(f"{config.data.source}: no rows with columns; add rows, or name another source")
    data = config.data
    text_column = data.text_column if data.text_column in columns else guess_text_column(columns)
    candidates = guess_label_columns(columns, text_column)
    if data.label_column in columns:
        candidates = [str(data.label_column), *(name for name in candidates if name != data.label_column)]
    label_column = candidates[0] if candidates else None
    separator, lists = _label_sets(columns[label_column].values, config) if label_column else (None, False)
    rows: Counter[str] = Counter()
    names: dict[str, Counter[str]] = {}
    words, characters = array("q"), array("q")  # of each text
    first: list[str] = []  # the first texts
    found: Counter[str] = Counter()
    undecodable = 0
    for split, row in _rows(config, (text_column, label_column) if text_column and label_column else ()):
        rows[split] += 1
        if isinstance(row, BadRow):
            found[f"rows cannot be read, such as row {row.row}: {row.reason}"] += 1
            continue
        text, reason = sentence(row.columns, text_column or label_column or "")
        if reason is not None and reason.startswith(UNDECODABLE):
            undecodable += 1
            continue
        if text and text_column:
            words.append(len(text.split()))
            characters.append(len(text))
            first += [text] if len(first) < SEEN_FOR_LANGUAGE else []
        found["rows without text"] += not text and text_column is not None
        labels = _labels_of(row.columns.get(label_column or ""), separator, lists, data.label_names or ())
        found["rows without label"] += not labels and label_column is not None
        found["rows with several labels"] += len(labels) > 1
        names.setdefault(split, Counter()).update(labels)
    counts, spellings = _merged(names)
    notes = [f"{number:,} {what}" for what, number in found.items() if number]
    if separator or lists:
        how = f"are split at {separator!r}" if separator else "are read from lists"
        notes.insert(0, f"a cell may hold several labels, which {how}; each of them is counted (kind: multilabel)")
    if undecodable:
        notes.append(f"{undecodable:,} rows are {UNDECODABLE}; name the encoding: {ENCODINGS}")
    vietnamese = number_in_vietnamese(first) / max(1, len(first))
    return Overview(
        source=data.source,
        rows=dict(rows),
        columns=tuple(_summary(column) for column in columns.values()),
        text_column=text_column and _shown(text_column),
        label_column=label_column and _shown(label_column),
        candidates=tuple(map(_shown, candidates[1:])),
        labels=counts if label_column else {},
        ids=bool(label_column) and all(re.fullmatch(r"-?\d+", name) for name in counts),
        several=bool(separator) or lists or found["rows with several labels"] > 0,
        separator=separator if _has_to_be_named(separator, counts) else None,
        # A tenth, since many short texts and all without diacritics have no such letter, and no other language has any.
        language="vi" if 10 * vietnamese >= 1 else "en",
        vietnamese=vietnamese,
        words=Lengths.of(np.array(words)) if words else None,
        characters=Lengths.of(np.array(characters)) if characters else None,
        undecodable=undecodable,
        notes=(*notes, *spellings),
    )


def overview_tables(found: Overview) -> list[Table]:
    """The tables of columns, labels and lengths."""
    columns = number_table(
        "column", "filled", "different values", "kind", "example", drop=("different values", "filled")
    )
    columns.columns[-1].justify = columns.columns[-2].justify = "left"
    for column in found.columns:
        different = f"{column.different:,}" if column.different < MOST_VALUES else f"{MOST_VALUES:,} or more"
        add_row(columns, column.name, f"{column.filled:,}", different, column.kind, shorten(column.example, 60))
    labels = number_table(f"label ({found.label_column})", *found.rows, *(["all"] if len(found.rows) > 1 else []))
    for name, by_split in list(found.labels.items())[:LABELS_SHOWN]:
        counts = [by_split.get(split, 0) for split in found.rows]
        add_row(labels, name, *(f"{count:,}" for count in [*counts, *([sum(counts)] if len(counts) > 1 else [])]))
    kinds = {"words": found.words, "characters": found.characters}
    measured = {name: lengths for name, lengths in kinds.items() if lengths is not None}
    quantiles = next(iter(measured.values())).quantiles if measured else {}
    lengths = number_table(f"length ({found.text_column})", "mean", *(f"{q} up to" for q in quantiles), "longest")
    for name, one in measured.items():
        add_row(lengths, name, f"{one.mean:.1f}", *(f"{n:,}" for n in one.quantiles.values()), f"{one.longest:,}")
    return [columns, *([labels] if found.labels else []), *([lengths] if measured else [])]


def overview_lines(found: Overview) -> list[str]:
    """What was guessed and what needs a look: one sentence a line."""
    rename = "; another one by --set data.{}_column=NAME"
    text = f"text column: {found.text_column or 'none found'}{rename.format('text')}"
    label = f"label column: {found.label_column or 'none found'}{rename.format('label')}"
    also = f" (also possible: {', '.join(found.candidates)})" if found.candidates else ""
    lines = [text, label + also]
    if found.ids:
        named = ", or name them by --set 'data.label_names=[NAME OF 0, NAME OF 1, ...]'"
        lines.append(
            "labels are numbers, and the source does not say what they mean: write words for them into the task's"
            f" label_words{named if [*found.labels] == [str(i) for i in range(len(found.labels))] else ''}"
        )
    if len(found.labels) > LABELS_SHOWN:
        lines.append(f"{len(found.labels) - LABELS_SHOWN:,} more labels")
    language = {"vi": "Vietnamese", "en": "English"}[found.language]
    lines.append(f"language: {language} ({found.vietnamese:.0%} of the texts have a letter that only Vietnamese has)")
    return [*lines, *found.notes]


def _rows(config: Config, required: tuple[str, ...]) -> Iterator[tuple[str, Row | BadRow]]:
    """The rows of all splits, each with the name of its split."""
    missing: list[NoSplitError] = []
    for split in SPLITS:
        try:
            name = str(getattr(config.data, f"{split}_split"))
            rows, _ = open_source(config.data, name, required, split, ())
        except NoSplitError as error:
            missing.append(error)
        else:
            yield from ((split, row) for row in rows)
    if len(missing) == len(SPLITS):
        raise missing[0]


def _summary(column: Column) -> ColumnSummary:
    return ColumnSummary(_shown(column.name), column.kind, column.filled, len(column.values), _shown(column.example))


def _shown(text: str) -> str:
    """A text as it can be printed: ? in the place of bytes that could not be decoded."""
    return text.encode(errors="replace").decode()


def _label_sets(values: Collection[str], config: Config) -> tuple[str | None, bool]:
    """The separator of the labels in the texts of a column, and whether most of these texts are lists of labels."""
    given = config.data.label_separator
    if 2 * sum(list_in(value) is not None for value in values) > len(values):
        return None, True
    return given if given and any(given in value for value in values) else separator_in(values), False


def _labels_of(cell: Any, separator: str | None, lists: bool, names: Sequence[str]) -> list[str]:
    """The label names in a cell, where a text may hold several; `names` are those that the user gives to ids."""
    if not isinstance(cell, str) or not (separator or lists):
        return names_in(cell)
    items = list_in(cell.strip())
    return names_in([label_named(one, names) for one in (parts(cell, separator) if items is None else items)])


def _has_to_be_named(separator: str | None, labels: Iterable[str]) -> bool:
    """Whether a task would not split at this separator by itself: another one comes before it."""
    before = SEPARATORS[: SEPARATORS.index(separator)] if separator in SEPARATORS else SEPARATORS
    return separator is not None and (before == SEPARATORS or any(one in label for label in labels for one in before))


def _merged(names: dict[str, Counter[str]]) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Rows by label and split, one label for the spellings that a task reads as one; and a note on each of those."""
    total: Counter[str] = Counter()
    for counts in names.values():
        total.update(counts)
    spellings: dict[str, list[str]] = {}  # the most frequent spelling first
    for name, _ in total.most_common():
        spellings.setdefault(normalised(name), []).append(name)
    merged = {
        same[0]: {split: sum(counts[name] for name in same) for split, counts in names.items()}
        for same in spellings.values()
    }
    order = sorted(merged, key=lambda name: (int(name) if re.fullmatch(r"-?\d+", name) else 0, normalised(name)))
    notes = [f"one label in several spellings: {', '.join(same)}" for same in spellings.values() if len(same) > 1]
    return {name: merged[name] for name in order}, notes
