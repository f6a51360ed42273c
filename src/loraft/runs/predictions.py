"""Write and read `predictions.jsonl`, a run's prediction for each test row; as label ids for paired statistics.

Shapes: N rows.
"""

import json
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loraft.config.names import show
from loraft.errors import RunError
from loraft.runs.atomic_files import write_text
from loraft.runs.records import from_json, read_text, record_from
from loraft.runs.run import Run

MISTAKES = 20  # wrong rows that a report shows
SHORT = 60  # characters of a sentence that fits a line of the terminal beside its command
MEND = "train the run again with --force"  # what to do about a damaged file, for messages


@dataclass(frozen=True)
class PredictedRow:
    """A test row and the model's prediction for it.

    Attributes:
        row: number of the row in its file.
        text, label: the sentence, "" where `output.texts` is false, and its reference label; a tuple where a row has
            any number of labels.
        predicted: the predicted label, or labels; None where the generated answer is no label.
        probs: probability of each label, in [0, 1]; None where the answer was generated.
        answer: the generated answer; None where labels were scored.
    """

    row: int
    text: str
    label: str | tuple[str, ...]
    predicted: str | tuple[str, ...] | None
    probs: dict[str, float] | None = None
    answer: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields, without `probs` or `answer` where they are None."""
        optional = {"probs": self.probs, "answer": self.answer}
        given = {key: value for key, value in optional.items() if value is not None}
        return {"row": self.row, "text": self.text, "label": self.label, "predicted": self.predicted, **given}


@dataclass(frozen=True)
class RunPredictions:
    """The predictions of one run on its N test rows, as label ids.

    Attributes:
        run: its directory.
        labels: names of the K labels, in id order.
        rows: numbers of the rows in their file.
        texts: the sentences.
        references_N: label ids.
        predictions_N: label ids, -1 where an answer was no label.
    """

    run: Path
    labels: tuple[str, ...]
    rows: tuple[int, ...]
    texts: tuple[str, ...]
    references_N: npt.NDArray[np.int64]
    predictions_N: npt.NDArray[np.int64]

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each of the N predictions is right."""
        return np.asarray(self.references_N == self.predictions_N)


def predicted_ids(rows: Sequence[PredictedRow], labels: Sequence[str]) -> npt.NDArray[np.int64]:
    """Label ids of the predictions, (N,); -1 where an answer was no label."""
    ids = {label: k for k, label in enumerate(labels)}
    return np.array([ids.get(str(row.predicted), -1) for row in rows], dtype=np.int64)


def write_rows(run: Run, rows: Sequence[PredictedRow], *, texts: bool = True) -> None:
    """Writes a run's predictions on its test rows, one JSON object a line; without `texts` none holds its sentence."""
    if not texts:  # a generated answer may repeat the sentence: the label that was read in it stays
        rows = [replace(row, text="", answer=row.answer and str(row.predicted or "")) for row in rows]
    lines = (json.dumps(row.to_json(), ensure_ascii=False) + "\n" for row in rows)
    write_text(run.predictions_path, "".join(lines))


def read_rows(run: Run) -> list[PredictedRow]:
    """The predictions of a run, in the order of its test rows.

    Raises:
        RunError: the file is missing or damaged.
    """
    path = run.predictions_path
    texts = read_text(path, MEND).split("\n")
    lines = {number: from_json(line, path, MEND) for number, line in enumerate(texts, start=1) if line}
    if (wrong := next((n for n, line in lines.items() if not isinstance(line, dict)), None)) is not None:
        got = type(lines[wrong]).__name__
        raise RunError(f"{path}: line {wrong} does not hold a JSON object (got {got}); {MEND}")
    if not lines:
        raise RunError(f"{path}: holds no predictions; {MEND}")
    return [record_from(line, PredictedRow, path, MEND) for line in lines.values()]


def mistakes(rows: Sequence[PredictedRow]) -> list[PredictedRow]:
    """The wrong rows, those with the highest probability of their wrong label first.

    Where a row has any number of labels, those with the most wrong ones come first; where answers were generated, the
    order stays.
    """
    wrong = [row for row in rows if row.predicted != row.label]

    def badness(row: PredictedRow) -> float:
        if isinstance(row.label, tuple):
            return len({*row.label} ^ {*(row.predicted or ())})
        return (row.probs or {}).get(str(row.predicted), 0.0)

    return sorted(wrong, key=badness, reverse=True)


def command_with_a_row(run: Run) -> str:
    """The command that predicts one of a run's own test rows, for a shell; without a sentence where none can be shown.

    The first short sentence that was predicted right, of one line.
    """
    command, rows = f"loraft predict --run {shlex.quote(str(run.path))}", []
    with suppress(RunError):
        rows = read_rows(run)
    shown = [row for row in rows if row.text and row.text.isprintable() and not row.text.startswith("-")]
    short = [row for row in shown if len(row.text) <= SHORT] or sorted(shown, key=lambda row: len(row.text))[:1]
    right = next((row for row in short if row.predicted == row.label), *short[:1]) if short else None
    return f"{command} {shlex.quote(right.text)}" if right else f"{command} --input FILE"


def read_predictions(run: Run) -> RunPredictions:
    """The predictions of a finished run, as label ids.

    Raises:
        RunError: the run is not finished, its predictions are missing or damaged, or a row has any number of labels.
    """
    labels = run.read_labels()
    ids = {label: k for k, label in enumerate(labels)}
    rows = read_rows(run)
    if any(not isinstance(row.label, str) for row in rows):
        raise RunError(
            f"{run.path}: loraft compare counts one label a row (got a run with prompt.kind=multilabel); loraft eval"
            " --json --run gives the scores of each run"
        )
    unknown = next((row for row in rows if row.label not in ids), None)
    if unknown is not None:
        raise RunError(
            f"{run.predictions_path}: row {unknown.row} has a label that is not the run's (got {unknown.label!r}, the"
            f" run has {', '.join(labels)}); {MEND}"
        )
    references = np.array([ids[str(row.label)] for row in rows], dtype=np.int64)
    numbers, texts = tuple(row.row for row in rows), tuple(row.text for row in rows)
    return RunPredictions(run.path, labels, numbers, texts, references, predicted_ids(rows, labels))


def difference_of_rows(a: RunPredictions, b: RunPredictions) -> str | None:
    """Returns the first difference between the test rows of two runs, for messages; None if the rows are the same."""
    if a.labels != b.labels:
        return f"labels {', '.join(a.labels)} and {', '.join(b.labels)}"
    if len(a.texts) != len(b.texts):
        return f"{len(a.texts)} and {len(b.texts)} test rows"
    for n, (left, right) in enumerate(zip(a.texts, b.texts, strict=True)):
        if left != right and left and right:  # no text: one of the runs was made with output.texts=false
            return f"row {a.rows[n]}: {show(left, 42)} and {show(right, 42)}"
    if not (all(a.texts) and all(b.texts)) and a.rows != b.rows:
        return "other row numbers"
    different = np.flatnonzero(a.references_N != b.references_N)
    if len(different):
        n = int(different[0])
        return f"row {a.rows[n]} is {a.labels[a.references_N[n]]} in one and {a.labels[b.references_N[n]]} in the other"
    return None
