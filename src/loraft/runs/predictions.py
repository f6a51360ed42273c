"""What finished runs answered on their test rows, read back for paired statistics.

Shapes: N rows.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loraft.errors import RunError
from loraft.runs.run import Run


@dataclass(frozen=True)
class Answers:
    """The answers of one run: label ids of the N test rows, and -1 where an answer was no label."""

    run: Path
    labels: tuple[str, ...]
    rows: tuple[int, ...]  # numbers in the data's own file
    texts: tuple[str, ...]
    references_N: npt.NDArray[np.int64]
    predictions_N: npt.NDArray[np.int64]

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Which of the N rows are right."""
        return np.asarray(self.references_N == self.predictions_N)


def read_answers(run: Run) -> Answers:
    """The predictions that a finished run left.

    Raises:
        RunError: the run is not finished, or its predictions are gone or no JSON lines.
    """
    labels = tuple(run.read_metrics()["labels"])
    ids = {label: k for k, label in enumerate(labels)}
    try:
        rows = [json.loads(line) for line in run.predictions_path.read_text(encoding="utf-8").split("\n") if line]
        numbers, texts = tuple(row["row"] for row in rows), tuple(row["text"] for row in rows)
        references = np.array([ids[row["label"]] for row in rows], dtype=np.int64)
        predictions = np.array([ids.get(row["predicted"], -1) for row in rows], dtype=np.int64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise RunError(f"{run.predictions_path}: cannot be read ({what}); train the run again with --force") from None
    return Answers(run.path, labels, numbers, texts, references, predictions)


def difference_of_rows(a: Answers, b: Answers) -> str | None:
    """Why two runs were not judged on the same rows, None if they were."""
    if a.labels != b.labels:
        return f"labels {', '.join(a.labels)} and {', '.join(b.labels)}"
    if len(a.texts) != len(b.texts):
        return f"{len(a.texts)} and {len(b.texts)} test rows"
    for n, (left, right) in enumerate(zip(a.texts, b.texts, strict=True)):
        if left != right:
            return f"row {a.rows[n]}: {_short(left)} and {_short(right)}"
    different = np.flatnonzero(a.references_N != b.references_N)
    if len(different):
        n = int(different[0])
        return f"row {a.rows[n]} is {a.labels[a.references_N[n]]} in one and {a.labels[b.references_N[n]]} in the other"
    return None


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
