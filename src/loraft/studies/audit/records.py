"""Records of an audit, as in `audit.json`. Read without torch by reports."""

from dataclasses import dataclass, field
from typing import Literal

from loraft.runs.records import FolderResult

FOLDS = 5


@dataclass(frozen=True)
class SuspectRow:
    """A row whose label is probably wrong.

    Attributes:
        row, text, label: as in the data; the text is "" where `output.texts` is false.
        suggestion: the most probable label by the adapter and the linear model that did not learn from the row.
        quality: of the label, in [0, 1]; the rows are sorted by it, the most suspect first.
        prob_label, prob_suggestion: probabilities of the two, in [0, 1], over adapter and linear model.
        alike: number of other rows with the same or nearly the same sentence, by label.
    """

    row: int
    text: str
    label: str
    suggestion: str
    quality: float
    prob_label: float
    prob_suggestion: float
    alike: dict[str, int]


@dataclass(frozen=True)
class Conflict:
    """Rows with the same or nearly the same sentence and several labels: their numbers by label, and the first text."""

    text: str
    rows: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class AuditResult(FolderResult):
    """The result of an audit, as in `audit.json`.

    Attributes:
        path: the audit's folder; `predictions.jsonl` in it has the out-of-fold probabilities of each row.
        backbone, data, task, labels: as in the config.
        split, source: what was audited, and where it was read from.
        rows: their number.
        fingerprint: of the rows.
        folds: their number.
        seconds: of the trainings, with the scoring.
        agreement: share of the rows whose label is the most probable one.
        suspects: rows whose label is probably wrong, the most suspect first.
        conflicts: groups of rows with the same or nearly the same sentence and several labels, the largest first.
        duplicates: rows that repeat the sentence and the label of an earlier one, nearly or exactly.
    """

    kind: Literal["audit"] = field(default="audit", kw_only=True)  # first in the file
    path: str
    backbone: str
    data: str
    task: str
    labels: tuple[str, ...]
    split: str
    source: str
    rows: int
    fingerprint: str
    folds: int
    seconds: float
    agreement: float
    suspects: tuple[SuspectRow, ...]
    conflicts: tuple[Conflict, ...]
    duplicates: int
