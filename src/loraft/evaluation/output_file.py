"""Write predictions beside the columns of their input: CSV, JSON lines or Parquet."""

import csv
import json
import os
import re
import tempfile
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraft.data.stream import groups
from loraft.errors import ConfigError, Note
from loraft.runs.atomic_files import is_stream, to_json
from loraft.runs.output_paths import check_target, head, writing

if TYPE_CHECKING:  # the check of the file's name needs no torch
    from loraft.evaluation.predict import Prediction

FORMATS = (".csv", ".jsonl", ".parquet")
ROW_GROUP = 2**14  # rows of a Parquet file that are written together


@dataclass(frozen=True)
class PredictedInput:
    """A row's columns as its input gave them, none where it was unreadable; and its prediction."""

    columns: Mapping[str, Any]
    prediction: "Prediction"


def without_text(row: PredictedInput, text_column: str) -> PredictedInput:
    """A row with its number in place of the sentence, for `output.texts=false`."""
    return replace(row, columns={"row": row.prediction.row, **without_column(row.columns, text_column)})


def header_without_text(header: Sequence[str], text_column: str) -> list[str]:
    """The names of the columns of these rows."""
    return ["row", *without_column(dict.fromkeys(header), text_column)]


def without_column(columns: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The columns of a row without the one of that name."""
    return {key: value for key, value in columns.items() if key != name}


def check_output(
    path: Path, source: Path | None, *, force: bool = False, formats: Sequence[str] = FORMATS, own: bool = True
) -> None:
    """Refuses a file that could not be written at the end.

    Args:
        path: where predictions shall go; its folder is made.
        source: the input, if it is a file.
        force: replace a file without predictions.
        formats: suffixes that are allowed.
        own: replace a file with predictions also without `force`.

    Raises:
        ConfigError: its suffix is none of `formats`, it is a folder, the input or a file without predictions, or its
            folder cannot be written to. A stream such as /dev/stdout needs no suffix: it gets CSV.
    """
    if _format(path) not in formats:
        raise ConfigError(
            f"--output-file: unknown format (got {path.suffix or 'no suffix'}); allowed are {' '.join(formats)}"
        )
    if source is not None and os.path.realpath(path) == os.path.realpath(source) and not path.is_dir():
        raise ConfigError(f"--output-file: is the input, too (got {path}); name another file")
    check_target(path, "--output-file", own=_has_predictions if own else None, force=force)
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
    rows: Callable[[], Iterable[PredictedInput]],
    source: Path | None,
    *,
    labels: Sequence[str],
    header: Sequence[str] = (),
    several: bool = False,
    sets: bool = False,
) -> None:
    """Writes a row for each row of the input, in order: its columns, then the prediction; the whole file or none.

    The columns of the prediction are `label`, with `sets` the list `set`, `confidence` (the highest probability) and,
    in CSV and Parquet, `prob_LABEL` for each label; in JSON lines the object `probs`. A name that the input has itself
    begins with `predicted_` instead. A row without text, or one that could not be read, has no prediction; a row below
    `min_confidence` has no label. Several labels are a list; in CSV a list is the names with | between them.

    Args:
        path: a file with one of `FORMATS`, or a stream.
        rows: gives the input's rows, from the first one each time; they are read twice or more, and never all kept.
        source: the input's file. A Parquet file gives its columns' types; elsewhere Parquet takes those of the values,
            and a column with values of several types becomes text.
        labels: the task's, which have a probability each.
        header: the input's columns, as far as they are known without its rows.
        several: whether a row has any number of labels.
        sets: whether the predictions have sets of labels.
    """
    inputs = list(dict.fromkeys(chain(header, (key for row in rows() for key in _encodable(row)))))
    suffix = _format(path)
    lists = ["label", "set"] if sets else ["label"]
    wanted = [*lists, "confidence", *(["probs"] if suffix == ".jsonl" else [f"prob_{label}" for label in labels])]
    added = [_free(name, inputs) for name in wanted]
    if added != wanted:
        pairs = ", ".join(f"{old} is {new}" for old, new in zip(wanted, added, strict=True) if old != new)
        warnings.warn(f"{path}: the input has columns of these names; of the prediction, {pairs}", Note, stacklevel=2)

    def table() -> Iterator[list[Any]]:
        for row in rows():
            found = row.prediction
            yield [*map(_encodable(row).get, inputs), *_best(found, sets), *map(found.probs.get, labels)]

    with writing(path, "--output-file") as temporary:
        if suffix == ".parquet":
            known = _known_types(added, source, lists=[*added[:1] * several, *added[1 : len(lists)]])
            _write_parquet(temporary, [*inputs, *added], known, table)
            return
        with temporary.open("w", encoding="utf-8", newline="") as file:
            if suffix == ".jsonl":
                for row in rows():
                    values = zip(added, [*_best(row.prediction, sets), row.prediction.probs or None], strict=True)
                    file.write(to_json({**_encodable(row), **dict(values)}, indent=None) + "\n")
                return
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*inputs, *added])
            for cells in table():
                for at in range(len(inputs), len(inputs) + len(lists)):
                    cells[at] = "|".join(cells[at]) if isinstance(cells[at], list) else cells[at]
                writer.writerow(map(cell_text, cells))


def _format(path: Path) -> str:
    """The file's suffix in small letters; CSV for a stream without one."""
    with suppress(OSError):  # `check_target` tells it
        return path.suffix.lower() or (".csv" if is_stream(path) else "")
    return ""


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


def _best(found: "Prediction", sets: bool) -> list[str | list[str] | float | None]:
    inside = [None if found.set is None else [*found.set]] if sets else []
    if isinstance(found.label, tuple):  # several labels have a probability each, and no common one
        return [[*found.label], *inside, None]
    return [found.label, *inside, max(found.probs.values(), default=None)]


def _encodable(row: PredictedInput) -> Mapping[str, Any]:
    """The columns of a row; of one that was refused, with ? for what no encoding can write, or none."""
    if row.prediction.error is None:
        return row.columns
    try:
        text = json.dumps(row.columns, ensure_ascii=False, default=str)
        text.encode()
    except UnicodeEncodeError:
        return dict(json.loads(text.encode(errors="replace")))
    except (ValueError, RecursionError):  # an integer of too many digits, too deep a nesting
        return {}
    return row.columns


def cell_text(value: Any) -> str:
    """A value as CSV has it: text as it is, no value and no finite number as nothing, everything else as in JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    text = to_json(value, indent=None)
    if text.startswith('"'):
        return str(json.loads(text))
    return "" if text == "null" else text  # NaN and infinities, for which JSON has no number


def _known_types(added: Sequence[str], source: Path | None, *, lists: Sequence[str]) -> dict[str, Any]:
    """The types of the columns of the prediction, and of those of a Parquet input."""
    import pyarrow
    import pyarrow.parquet

    known: dict[str, Any] = {name: pyarrow.float64() for name in added} | {added[0]: pyarrow.string()}
    known |= {name: pyarrow.list_(pyarrow.string()) for name in lists}
    if source is not None and source.suffix.lower() == ".parquet":
        schema = pyarrow.parquet.read_schema(source)
        known |= {unicodedata.normalize("NFC", field.name): field.type for field in schema}
    return known


def _write_parquet(
    path: Path, names: Sequence[str], known: Mapping[str, Any], table: Callable[[], Iterator[list[Any]]]
) -> None:
    """Writes a row group for each part of the rows; the type of a column that is not known is found in all rows."""
    import pyarrow
    import pyarrow.parquet

    unfit = (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, pyarrow.ArrowNotImplementedError, OverflowError)
    types = {name: known.get(name, pyarrow.null()) for name in names}
    texts: set[str] = set()  # columns that are written as text

    def parts() -> Iterator[list[Any]]:
        for rows in groups(table(), most=ROW_GROUP, first=ROW_GROUP, size=_characters):
            yield [list(column) for column in zip(*rows, strict=True)]

    unknown = [(at, name) for at, name in enumerate(names) if name not in known]
    for part in parts() if unknown else ():
        for at, name in unknown:
            with suppress(*unfit):
                types[name] = _common(types[name], pyarrow.array(part[at]).type)
                continue
            texts.add(name)
    while True:
        schema = pyarrow.schema([(name, pyarrow.string() if name in texts else types[name]) for name in names])
        failed = None
        with pyarrow.parquet.ParquetWriter(path, schema) as writer:
            for part in parts():
                arrays = []
                for name, values in zip(names, part, strict=True):
                    if name in texts:
                        values = [None if value is None else cell_text(value) for value in values]
                    try:
                        arrays.append(pyarrow.array(values, type=schema.field(name).type))
                    except unfit:
                        failed = name
                        break
                if failed:
                    break
                writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
        if failed is None:
            break
        texts.add(failed)
    for name in names:
        if name in texts:
            what = f"column {name!r} has values of several types; they are written as text"
            warnings.warn(what, Note, stacklevel=3)


def _common(one: Any, other: Any) -> Any:
    """The type that values of both types have."""
    import pyarrow

    fields = (pyarrow.schema([("x", type)]) for type in (one, other))
    return pyarrow.unify_schemas(list(fields), promote_options="permissive").field(0).type


def _characters(cells: Sequence[Any]) -> int:
    return sum(len(cell) for cell in cells if isinstance(cell, str | bytes))
