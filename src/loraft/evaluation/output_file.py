"""Write predictions beside the columns of their input: CSV, JSON lines or Parquet."""

import csv
import json
import os
import re
import tempfile
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraft.errors import ConfigError, Note
from loraft.runs.atomic_files import is_stream, to_json
from loraft.runs.output_paths import check_target, head, writing

if TYPE_CHECKING:  # the check of the file's name needs no torch
    from loraft.evaluation.predict import Prediction

FORMATS = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class PredictedInput:
    """A row's columns as its input gave them, none where it was unreadable; and its prediction."""

    columns: Mapping[str, Any]
    prediction: "Prediction"


def check_output(path: Path, source: Path | None, *, force: bool = False) -> None:
    """Refuses a file that could not be written at the end.

    Args:
        path: where predictions shall go; its folder is made.
        source: the input, if it is a file.
        force: replace a file without predictions.

    Raises:
        ConfigError: its suffix is none of `FORMATS`, it is a folder, the input or a file without predictions, or its
            folder cannot be written to.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(
            f"--output-file: unknown format (got {path.suffix or 'no suffix'}); allowed are {' '.join(FORMATS)}"
        )
    if source is not None and os.path.realpath(path) == os.path.realpath(source) and not path.is_dir():
        raise ConfigError(f"--output-file: is the input, too (got {path}); name another file")
    check_target(path, "--output-file", own=_has_predictions, force=force)
    if is_stream(path):
        return
    path = path.resolve()  # the folder that a symlink leads to is written to
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        what = f"cannot be written (got {path}: {error.strerror})"
        raise ConfigError(f"--output-file: {what}; name a file in a folder that can be written to") from error


def write_predictions(
    path: Path,
    rows: Sequence[PredictedInput],
    source: Path | None,
    *,
    labels: Sequence[str],
    header: Sequence[str] = (),
    several: bool = False,
) -> None:
    """Writes a row for each row of the input, in order: its columns, then the prediction; the whole file or none.

    The columns of the prediction are `label`, `confidence` (the highest probability) and, in CSV and Parquet,
    `prob_LABEL` for each label; in JSON lines the object `probs`. A name that the input has itself begins with
    `predicted_` instead. A row without text, or one that could not be read, has no prediction; a row below
    `min_confidence` has no label. Several labels are a list; in CSV their names with | between them.

    Args:
        path: a file with one of `FORMATS`.
        rows: the input's rows.
        source: the input's file. A Parquet file gives its columns' types; elsewhere Parquet takes those of the values,
            and a column with values of several types becomes text.
        labels: the task's, which have a probability each.
        header: the input's columns, as far as they are known without its rows.
        several: whether a row has any number of labels.
    """
    inputs = list(dict.fromkeys([*header, *(key for row in rows for key in row.columns)]))
    suffix = path.suffix.lower()
    wanted = ["label", "confidence", *(["probs"] if suffix == ".jsonl" else [f"prob_{label}" for label in labels])]
    added = [_free(name, inputs) for name in wanted]
    if added != wanted:
        pairs = ", ".join(f"{old} is {new}" for old, new in zip(wanted, added, strict=True) if old != new)
        warnings.warn(f"{path}: the input has columns of these names; of the prediction, {pairs}", Note, stacklevel=2)
    columns = [_encodable(row) for row in rows]
    found = [row.prediction for row in rows]
    with writing(path, "--output-file") as temporary:
        if suffix == ".jsonl":
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                for given, one in zip(columns, found, strict=True):
                    values = zip(added, [*_best(one), one.probs or None], strict=True)
                    file.write(to_json({**given, **dict(values)}, indent=None) + "\n")
            return
        table = [
            [*map(given.get, inputs), *_best(one), *map(one.probs.get, labels)]
            for given, one in zip(columns, found, strict=True)
        ]
        if suffix == ".parquet":
            _write_parquet(temporary, inputs, added, table, source, several=several)
            return
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*inputs, *added])
            for row in table:
                best = row[len(inputs)]
                row[len(inputs)] = "|".join(best) if isinstance(best, list) else best
                writer.writerow(map(_cell, row))


def _has_predictions(path: Path) -> bool:
    """Whether a file has the columns that `write_predictions` adds."""
    if path.suffix.lower() == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            names = pyarrow.parquet.read_schema(path).names
        except pyarrow.ArrowException:
            return False
    else:
        lines = head(path).decode(errors="replace").splitlines(keepends=True)
        try:
            names = [*json.loads(lines[0])] if path.suffix.lower() == ".jsonl" else next(csv.reader(lines))
        except (ValueError, TypeError, csv.Error):
            return False
    plain = [re.sub("^(predicted_)+", "", name) for name in names if isinstance(name, str)]
    return {"label", "confidence"} <= {*plain} and any(re.match("probs$|prob_", name) for name in plain)


def _free(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name = f"predicted_{name}"
    return name


def _best(found: "Prediction") -> tuple[str | list[str] | None, float | None]:
    if isinstance(found.label, tuple):  # several labels have a probability each, and no common one
        return [*found.label], None
    return found.label, max(found.probs.values(), default=None)


def _encodable(row: PredictedInput) -> Mapping[str, Any]:
    """The columns of a row; of one that was refused for its bytes, with ? for what no encoding can write."""
    if row.prediction.error is None:
        return row.columns
    text = json.dumps(row.columns, ensure_ascii=False, default=str)
    try:
        text.encode()
    except UnicodeEncodeError:
        return dict(json.loads(text.encode(errors="replace")))
    return row.columns


def _cell(value: Any) -> str:
    """A value as CSV has it: text as it is, no value and no finite number as nothing, everything else as in JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    text = to_json(value, indent=None)
    if text.startswith('"'):
        return str(json.loads(text))
    return "" if text == "null" else text  # NaN and infinities, for which JSON has no number


def _write_parquet(
    path: Path,
    inputs: Sequence[str],
    added: Sequence[str],
    table: Sequence[Sequence[Any]],
    source: Path | None,
    *,
    several: bool,
) -> None:
    import pyarrow
    import pyarrow.parquet

    label = pyarrow.list_(pyarrow.string()) if several else pyarrow.string()
    known: dict[str, Any] = {name: pyarrow.float64() for name in added} | {added[0]: label}
    if source is not None and source.suffix.lower() == ".parquet":
        known |= {unicodedata.normalize("NFC", field.name): field.type for field in pyarrow.parquet.read_schema(source)}
    columns = {}
    for position, name in enumerate([*inputs, *added]):
        values = [row[position] for row in table]
        try:
            columns[name] = pyarrow.array(values, type=known.get(name))
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, pyarrow.ArrowNotImplementedError):
            columns[name] = pyarrow.array([None if value is None else _cell(value) for value in values])
            warnings.warn(f"column {name!r} has values of several types; they are written as text", Note, stacklevel=3)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
