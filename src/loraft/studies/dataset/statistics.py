"""What is in a data source: how many rows of what, how long, and what would spoil a measurement.

Rows are looked at as they are: without limits, and with the duplicates that training may drop.
"""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loraft.bundled import bundled_data
from loraft.config.resolve import resolve, task_names
from loraft.config.schema import Config
from loraft.data.checks import NEAR, SHOWN, conflicts, duplicates, leaks, place_of_row
from loraft.data.dataset import Split, load_split
from loraft.data.sources import NoSplitError
from loraft.errors import BackboneError, DataError
from loraft.runs.files import write_json

FILE = "data.json"
SPLITS = ("train", "validation", "test")
QUANTILES = (0.5, 0.9, 0.95, 0.99, 1.0)
Ints = npt.NDArray[np.int64]


def describe(config: Config, *, by: str | None = None, tokens: bool = True, near: bool = True) -> dict[str, Any]:
    """Statistics of a data source, with figures and `data.json` in a folder that `folder_of` names.

    Args:
        config: names source and task.
        by: a second column to set against the labels; by default another task's, where the rows have it.
        tokens: measure the prompts with the backbone's tokenizer; where it cannot be loaded a note says why.
        near: look for near-duplicates between splits.

    Returns:
        JSON-ready: `splits` (table 2), `shares` (table 1), `lengths`, `duplicates`, `conflicts`, `leaks`, `longest`,
        `tokens` (None where not measured), `notes` (sentences on what is not there), `path`.

    Raises:
        DataError: a split cannot be read, there is none, no row has the column `by`, or the folder holds something
            else.
    """
    folder = folder_of(config)
    splits, notes = load_splits(config)
    labels = config.prompt.labels or []
    rows = [(split, i) for split in splits for i in range(len(split))]
    texts = [text for split in splits for text in split.texts]
    label_N = np.concatenate([split.labels for split in splits])
    column, names, by_N = second_column(config, splits, by)
    words_N = np.array([len(text.split()) for text in texts])
    label_name = config.data.label_column or config.prompt.label_column or "label"
    measured = None
    if tokens:
        try:
            measured = prompt_tokens(config, splits)
        except BackboneError as error:
            notes.append(f"lengths in tokens are not measured: {error}")
    result = {
        "kind": "data",
        "path": str(folder),
        "source": config.data.source,
        "task": config.prompt.task,
        "labels": labels,
        "label_column": label_name,
        "by": column,
        "rows": len(rows),
        "splits": [_split_row(split, labels, len(rows)) for split in splits],
        "shares": cross_table(by_N, names, label_N, labels),
        "lengths": {
            "all": _quantiles(words_N),
            **{name: _quantiles(words_N[label_N == k]) for k, name in enumerate(labels) if (label_N == k).any()},
        },
        "duplicates": {split.name: duplicates(split) for split in splits},
        "conflicts": conflicts(splits, labels),
        "near_threshold": NEAR,
        "leaks": [leaks(left, right, near=near) for left, right in combinations(splits, 2)],
        "longest": [
            {"words": int(words_N[i]), "characters": len(texts[i]), **place_of_row(*rows[i])}
            for i in np.argsort(-words_N, kind="stable")[:SHOWN]
        ],
        "tokens": measured,
        "notes": notes,
    }
    _draw(
        folder,
        Path(config.data.source).name,
        words_N,
        {label_name: (labels, label_N)} | ({column: (names, by_N)} if column else {}),
    )
    write_json(folder / FILE, result)
    return result


def folder_of(config: Config) -> Path:
    """Where the statistics of the config's source go: the config's name, or one made of source and task.

    Raises:
        DataError: the folder holds something else, or the statistics of another source of that name.
    """
    made = f"data-{Path(config.data.source).name}-{Path(config.prompt.task).stem}"
    folder = Path(config.output) / (config.name or made)
    if any((folder / name).is_file() for name in ("config.yaml", "fewshot.yaml", "sweep.yaml")):
        raise DataError(f"{folder}: a run or a study is there; --set name=NAME names another folder")
    if (folder / FILE).is_file():
        other = json.loads((folder / FILE).read_text(encoding="utf-8"))["source"]
        if _place_of(other) != _place_of(config.data.source):
            raise DataError(f"{folder}: describes another source (got {other}); --set name=NAME keeps both")
    return folder


def load_splits(config: Config) -> tuple[list[Split], list[str]]:
    """The splits that the source has, of train, validation and test; whole, with duplicates; and what is not there.

    Raises:
        DataError: a split cannot be read, or the source has none of the three.
    """
    section = config.data.model_copy(update={"drop_duplicates": False})
    column = config.prompt.label_column or "label"
    splits, missing = [], []
    for name in SPLITS:
        try:
            splits.append(load_split(section, name, labels=config.prompt.labels or [], label_column=column))
        except NoSplitError as error:
            missing.append((name, error))
    if not splits:
        raise missing[0][1]
    names = " and no ".join(name for name, _ in missing)
    return splits, [f"no {names} split: {str(missing[0][1]).split('; ')[0]}"] if missing else []


def second_column(config: Config, splits: Sequence[Split], by: str | None) -> tuple[str | None, list[str], Ints]:
    """A column beside the labels: its name, its values' names and each row's index into them.

    Without a column the rows are not divided: name None, one value "all".

    Raises:
        DataError: `by` names a column that is not there, or that has too many values to be a table's rows.
    """
    extras = [example.extra for split in splits for example in split.examples]
    known = {}
    for task in task_names():
        prompt = resolve(flags={"prompt.task": task}).prompt
        known[str(prompt.label_column)] = list(prompt.labels or [])
    there = [column for column in known if all(column in extra for extra in extras)]
    column = by if by is not None else (there[0] if there else None)
    if column is None:
        return None, ["all"], np.zeros(len(extras), dtype=np.int64)
    missing = sum(column not in extra for extra in extras)
    if missing:
        columns = ", ".join(dict.fromkeys(key for extra in extras for key in extra)) or "no other columns"
        raise DataError(f"--by: no column {column!r} in {missing} rows (got {columns}); name one of these")
    values = [str(extra[column]).strip() for extra in extras]
    names = known.get(column, [])
    ids = {str(k): k for k in range(len(names))} | {name: k for k, name in enumerate(names)}
    if not all(value in ids for value in values):
        names = sorted(set(values))
        ids = {name: k for k, name in enumerate(names)}
    if len(names) > 50:
        raise DataError(
            f"--by: {column!r} has {len(names)} values (got for example {names[0]!r}); name one with up to 50"
        )
    return column, names, np.array([ids[value] for value in values], dtype=np.int64)


def cross_table(rows_N: Ints, row_names: Sequence[str], columns_N: Ints, column_names: Sequence[str]) -> dict[str, Any]:
    """Counts of two labellings of the same rows, R x C, with both lists of names."""
    counts = np.zeros((len(row_names), len(column_names)), dtype=np.int64)
    np.add.at(counts, (rows_N, columns_N), 1)
    return {"rows": list(row_names), "columns": list(column_names), "counts": counts.tolist()}


def prompt_tokens(config: Config, splits: Sequence[Split]) -> dict[str, Any]:
    """Lengths of sentences and of prompts with their answers, in tokens, and how many sentences will be shortened."""
    from loraft.models.load import build_encoder  # here, so that a look at data does not wait for torch

    encoder = build_encoder(config)
    answer = max(map(len, encoder.completions_K))
    places = [(split, i) for split in splits for i in range(len(split))]
    texts = [text for split in splits for text in split.texts]
    prompts = encoder.encode(texts)
    ids = encoder.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    sentence_N = np.array([len(row) for row in ids])
    prompt_N = np.array([len(prompt.ids) + answer for prompt in prompts])
    return {
        "tokenizer": config.model.name,
        "max_length": config.prompt.max_length,
        "shortened": sum(prompt.cut > 0 for prompt in prompts),
        "sentence": _quantiles(sentence_N),
        "prompt": _quantiles(prompt_N),
        "longest": [
            {"tokens": int(sentence_N[i]), "prompt": int(prompt_N[i]), **place_of_row(*places[i])}
            for i in np.argsort(-sentence_N, kind="stable")[:SHOWN]
        ],
    }


def _place_of(source: str) -> str:
    """The same text for the same source, however its path is written."""
    return source if source in bundled_data() else str(Path(source).expanduser().resolve())


def _split_row(split: Split, labels: Sequence[str], total: int) -> dict[str, Any]:
    counts = np.bincount(split.labels, minlength=len(labels))
    return {
        "name": split.name,
        "source": split.source,
        "notes": split.notes,
        "rows": len(split),
        "share": len(split) / total,
        "labels": {label: int(count) for label, count in zip(labels, counts, strict=True)},
    }


def _quantiles(lengths_N: Ints) -> dict[str, float]:
    """Mean, and the length that the given share of rows does not exceed, a length that occurs."""
    ordered = np.sort(lengths_N)
    at = {q: int(ordered[max(0, math.ceil(q * len(ordered)) - 1)]) for q in QUANTILES}
    return {"mean": float(lengths_N.mean())} | {("longest" if q == 1 else f"{q:.0%}"): at[q] for q in QUANTILES}


def _draw(folder: Path, source: str, words_N: Ints, columns: Mapping[str, tuple[Sequence[str], Ints]]) -> None:
    from loraft.studies.dataset import figures

    for column, (names, ids_N) in columns.items():
        by_name = {name: words_N[ids_N == k] for k, name in enumerate(names)}
        figures.length_distributions(
            by_name,
            folder / "plots" / f"lengths_by_{_file_word(column)}.png",
            title=f"Sentence length by {column}: {source}, {len(words_N):,} rows",
        )


def _file_word(column: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in column)
