"""Computes the statistics of a data source, `loraft data`: rows, labels, lengths, duplicates, conflicts and leaks.

All rows are described: row limits are not applied, and duplicates are kept even where training drops them.
Shapes: N rows of all splits together.
"""

import os
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loraft.bundled import bundled_data
from loraft.config.kinds import refuse_label_sets
from loraft.config.names import shortened
from loraft.config.resolve import resolve, task_names
from loraft.config.schema import Config
from loraft.data.checks import SHOWN, RowPlace, conflicts, duplicates, leaks
from loraft.data.dataset import KEEP_ALL, Split, load_data
from loraft.data.examples import Texts
from loraft.data.near_duplicates import NEAR
from loraft.data.sources import NoSplitError
from loraft.data.splitting import DrawError
from loraft.errors import BackboneError, DataError, first_line, listed
from loraft.runs.records import as_json, without_texts
from loraft.runs.run import Run
from loraft.runs.study_folders import DatasetFolder, FewshotFolder, SweepFolder
from loraft.studies.dataset.records import (
    CrossTable,
    DatasetStatistics,
    Lengths,
    LongPrompt,
    LongRow,
    SplitStatistics,
    TokenLengths,
    shares_up_to,
)

SPLITS = ("train", "validation", "test")
MOST_VALUES = 50  # of the second column, each of which is a row of a table
Ints = npt.NDArray[np.int64]


def describe(
    config: Config, *, by: str | None = None, tokens: bool = True, near: bool = True, force: bool = False
) -> DatasetStatistics:
    """Computes the statistics of a data source, and writes them with figures into the directory from `folder_of`.

    Args:
        config: gives source and task.
        by: a second column to count the labels by; by default the column of another task, where the rows have it.
        tokens: measure sentences and prompts with the backbone's tokenizer; a note says so where it cannot be loaded.
        near: look for near-duplicates between splits.
        force: replace the statistics of another source, or of other splits, with the same name.

    Raises:
        ConfigError: a row has any number of labels (`prompt.kind=multilabel`).
        DataError: a split cannot be read, there is none, no row has the column `by`, or the directory holds something
            else.
        RunError: the statistics in the directory are damaged or of a later version.

    Example:
        >>> import loraft
        >>> loraft.describe(loraft.resolve(flags={"output": str(folder)}), tokens=False, near=False).rows
        3462
    """
    refuse_label_sets(config, "data")
    folder = folder_of(config, force=force)
    splits, notes = load_splits(config)
    labels = config.prompt.labels or []
    label_N = np.concatenate([split.labels for split in splits])
    column, names, by_N = second_column(config, splits, by)
    words_of = {split.name: np.array([len(text.split()) for text in split.texts], np.int64) for split in splits}
    words_of["all"] = words_N = np.concatenate([*words_of.values()])
    label_column = config.data.label_column or config.prompt.label_column or "label"
    measured = None
    if tokens:
        try:
            measured = prompt_tokens(config, splits)
        except BackboneError as error:
            notes.append(f"lengths in tokens are not measured: {error}")
    result = DatasetStatistics(
        path=str(folder.path),
        source=config.data.source,
        task=config.prompt.task,
        labels=tuple(labels),
        label_column=label_column,
        by=column,
        rows=len(words_N),
        splits=tuple(_split_statistics(split, labels, len(words_N)) for split in splits),
        shares=cross_table(by_N, names, label_N, labels),
        lengths={
            "all": Lengths.of(words_N),
            **{name: Lengths.of(words_N[label_N == k]) for k, name in enumerate(labels) if (label_N == k).any()},
        },
        duplicates={split.name: duplicates(split) for split in splits},
        conflicts=conflicts(splits, labels),
        near_threshold=NEAR,
        leaks=tuple(leaks(left, right, near=near) for left, right in combinations(splits, 2)),
        longest=tuple(LongRow(int(words_N[i]), len(place.text), place) for i, place in _longest(words_N, splits)),
        tokens=measured,
        notes=tuple(notes),
        drawn=_drawn(config),
        words_up_to={name: shares_up_to(part) for name, part in words_of.items()},
    )
    columns: dict[str, tuple[Sequence[str], Ints]] = {label_column: (labels, label_N)}
    if column:
        columns[column] = (names, by_N)
    _draw(folder, Path(config.data.source).name, words_N, columns)
    if not config.output.texts:
        folder.finish(without_texts(as_json(result)))
        return DatasetStatistics.of(folder)
    folder.finish(result)
    return result


def folder_of(config: Config, *, force: bool = False) -> DatasetFolder:
    """The directory for the statistics of the config's source; its name is `config.name`, or source and task.

    Raises:
        DataError: the directory holds something else; or, without `force`, the statistics of another source or of
            splits that are drawn otherwise.
        RunError: the statistics in it are damaged or of a later version.
    """
    default = f"data-{Path(config.data.source).name}-{Path(config.prompt.task).stem}"
    folder = DatasetFolder(Path(config.output.folder) / (config.name or shortened(default)))
    if any((folder.path / kind.config_file).is_file() for kind in (Run, SweepFolder, FewshotFolder)):
        raise DataError(f"{folder.path}: a run or a study is there; --set name=NAME names another folder")
    if folder.finished and not force:
        found = DatasetStatistics.of(folder)
        other, then = found.source, found.drawn
        if _identity(other) != _identity(config.data.source):
            raise DataError(
                f"{folder.path}: describes another source (got {other}); --force replaces it,"
                " --set name=NAME keeps both"
            )
        if then != (now := _drawn(config)):
            raise DataError(
                f"{folder.path}: describes other splits of the source (got {then or 'its own'} then, {now or 'its own'}"
                " now); --force replaces it, --set name=NAME keeps both"
            )
    return folder


def misfit(config: Config) -> str | None:
    """Why the rows of a source cannot be read as those of the config's task; None if they can."""
    try:
        load_splits(config)
    except DrawError:  # the rows are read already
        return None
    except DataError as error:
        return re.sub("; loraft data .* shows what is in it$", "", first_line(error))  # this is what runs
    return None


def load_splits(config: Config) -> tuple[list[Split], list[str]]:
    """The splits that the source has, of train, validation and test, with all rows; and a note on the missing ones.

    Raises:
        DataError: a split cannot be read, or the source has none of the three.
    """
    all_rows = {**KEEP_ALL, "max_train_rows": None, "max_eval_rows": None, "max_test_rows": None}
    unlimited = config.model_copy(update={"data": config.data.model_copy(update=all_rows)})
    splits, missing = [], []
    for name in SPLITS:
        try:
            splits.append(load_data(unlimited, name))
        except NoSplitError as error:
            missing.append((name, error))
    if not splits:
        raise missing[0][1]
    if not missing:
        return splits, []
    absent = [name for name, _ in missing]
    note = f"no {' and no '.join(absent)} split: {str(missing[0][1]).split('; ')[0]}"
    if "train" not in absent:
        shares = config.data.split or [0, 0, 0]
        kept = [0.1 if name in absent or share else 0 for name, share in zip(SPLITS[1:], shares[1:], strict=True)]
        note += f"; --set 'data.split={[round(1 - sum(kept), 1), *kept]}' draws what is missing from the train split"
    return splits, [note]


def _drawn(config: Config) -> str | None:
    """How the splits are drawn, for messages; None for the source's own."""
    data = config.data
    given = {"split": data.split, "fold": data.fold, "split_seed": data.split_seed}
    drawn = data.split is not None or data.fold is not None
    return ", ".join(f"data.{key}={value}" for key, value in given.items() if value is not None) if drawn else None


def second_column(config: Config, splits: Sequence[Split], by: str | None) -> tuple[str | None, list[str], Ints]:
    """A column to count the labels by.

    Args:
        config: as of `describe`.
        splits: the splits of the source.
        by: name of the column; None for the column of a shipped task that all rows have.

    Returns:
        Name of the column, its values in the order of tables, and the index of each row's value, (N,). Where there is
        no such column: None, the single value "all", and zeros.

    Raises:
        DataError: `by` names a column that some row lacks, or a column with too many values for a table.
    """
    examples, rows = [split.examples for split in splits], sum(map(len, splits))

    def cells(column: str) -> list[Any]:
        return [cell for part in examples for cell in part.column(column)]

    labels_of = {}  # the labels of each shipped task, by the name of its column
    for task in task_names():
        prompt = resolve(flags={"prompt.task": task}).prompt
        labels_of[str(prompt.label_column)] = list(prompt.labels or [])
    found = [column for column in labels_of if len(cells(column)) == rows]
    column = by if by is not None else (found[0] if found else None)
    if column is None:
        return None, ["all"], np.zeros(rows, dtype=np.int64)
    missing = rows - len(values := cells(column))
    if missing:
        given = listed(dict.fromkeys(name for part in examples for name in part.columns))
        raise DataError(f"--by: no column {column!r} in {missing} rows (got {given}); name one of these")
    values = [str(value).strip() for value in values]
    # Values of a task's column are its labels or their ids; values of any other column are sorted.
    names = labels_of.get(column, [])
    ids = {str(k): k for k in range(len(names))} | {name: k for k, name in enumerate(names)}
    if not all(value in ids for value in values):
        names = sorted(set(values))
        ids = {name: k for k, name in enumerate(names)}
    if len(names) > MOST_VALUES:
        raise DataError(
            f"--by: {column!r} has {len(names)} values (got for example {names[0]!r}); name a column with up to"
            f" {MOST_VALUES}"
        )
    return column, names, np.array([ids[value] for value in values], dtype=np.int64)


def cross_table(rows_N: Ints, row_names: Sequence[str], columns_N: Ints, column_names: Sequence[str]) -> CrossTable:
    """Counts how often each value of one column occurs with each value of another.

    Args:
        rows_N, columns_N: index of each row's value in the two columns.
        row_names, column_names: the values.
    """
    counts = np.zeros((len(row_names), len(column_names)), dtype=np.int64)
    np.add.at(counts, (rows_N, columns_N), 1)
    return CrossTable(tuple(row_names), tuple(column_names), tuple(tuple(row) for row in counts.tolist()))


def prompt_tokens(config: Config, splits: Sequence[Split]) -> TokenLengths:
    """Lengths of sentences and of prompts with their longest answer, in tokens of the backbone's tokenizer.

    Raises:
        BackboneError: the tokenizer cannot be loaded, or its chat template cannot be used.
    """
    from loraft.models.encoder import AT_ONCE  # imported here, since it imports torch
    from loraft.models.load import build_encoder
    from loraft.models.prompts import cut_share

    encoder = build_encoder(config)
    answer = max(map(len, encoder.completions_K))
    texts = Texts(text for split in splits for text in split.texts)
    prompts = encoder.encode(texts)
    prompt_N = np.fromiter((len(prompt.ids) + answer for prompt in prompts), np.int64)
    # verbose=False: no warning that a sentence is longer than the tokenizer's limit, since prompts are shortened.
    given: dict[str, Any] = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    parts = (texts[start : start + AT_ONCE] for start in range(0, len(texts), AT_ONCE))
    ids = (row for part in parts for row in encoder.tokenizer(part, **given)["input_ids"])
    sentence_N = np.fromiter(map(len, ids), np.int64)
    return TokenLengths(
        tokenizer=config.model.label,
        max_length=config.prompt.max_length,
        shortened=sum(prompt.cut > 0 for prompt in prompts),
        sentence=Lengths.of(sentence_N),
        prompt=Lengths.of(prompt_N),
        longest=tuple(
            LongPrompt(int(sentence_N[i]), int(prompt_N[i]), place) for i, place in _longest(sentence_N, splits)
        ),
        cut=cut_share(prompts),
    )


def _longest(lengths_N: Ints, splits: Sequence[Split]) -> list[tuple[int, RowPlace]]:
    """The longest of the splits' N rows: the index and the place of each."""
    ends = np.cumsum([len(split) for split in splits])
    found = []
    for i in map(int, np.argsort(-lengths_N, kind="stable")[:SHOWN]):
        part = int(np.searchsorted(ends, i, side="right"))
        found.append((i, RowPlace.of(splits[part], i - int(ends[part]) + len(splits[part]))))
    return found


def _identity(source: str) -> str:
    """The same text for the same source, whether its path is relative or absolute; a bundled name as it is."""
    return source if source in bundled_data() else str(Path(os.path.expanduser(source)).resolve())


def _split_statistics(split: Split, labels: Sequence[str], total: int) -> SplitStatistics:
    counts = np.bincount(split.labels, minlength=len(labels))
    return SplitStatistics(
        name=split.name,
        source=split.source,
        notes=split.notes,
        rows=len(split),
        share=len(split) / total,
        labels={label: int(count) for label, count in zip(labels, counts, strict=True)},
    )


def _draw(folder: DatasetFolder, source: str, words_N: Ints, columns: Mapping[str, tuple[Sequence[str], Ints]]) -> None:
    """Draws the sentence lengths by the values of each column.

    Args:
        folder: gets the figures.
        source: name of the source, for the titles.
        words_N: length of each row.
        columns: by name, the values of a column, and the index of each row's value.
    """
    from loraft.studies.dataset import figures

    for column, (names, ids_N) in columns.items():
        figures.length_distributions(
            {name: words_N[ids_N == k] for k, name in enumerate(names)},
            folder.lengths_figure(column),
            title=f"Sentence length by {column}: {source}, {len(words_N):,} rows",
        )
