"""Records of a training by folds, as in `folds.json`. Read without torch by reports."""

from dataclasses import dataclass, field
from typing import Literal

from loraft.evaluation.baselines import Baselines
from loraft.evaluation.choosing import DEFAULT, Metric
from loraft.evaluation.classification_report import EvaluationReport
from loraft.runs.records import FolderResult


@dataclass(frozen=True)
class FoldRecord:
    """One fold: its run directory, rows that were trained on and left out, and its results on the latter.

    Attributes:
        best_step: of its training, or with `kept` "last" the last one; the checkpoint after it predicted the rows.
        score: `train.metric` on the rows of the fold.
    """

    name: str
    run: str
    train_rows: int
    n: int
    best_step: int | None
    score: float


@dataclass(frozen=True)
class FoldsResult(FolderResult):
    """Out-of-fold results over all rows of the train split, as in `folds.json`.

    Attributes:
        path: folder of the folds' runs; `predictions.jsonl` in it has the out-of-fold prediction of each row.
        backbone, data, task, labels: as in the config.
        folds: in their order.
        report: of the predictions of all rows together, each by the adapter that was trained without it. Its intervals
            are over rows; that the adapters share training rows is not in them. `cut` is the folds' mean, by rows.
        baselines: majority label and linear SVM on the same folds; None where `eval.baselines` leaves them out.
        metric: picks the checkpoint of each fold, with `kept` "best".
        warnings: what the scores hide, in sentences; see `evaluation.advice`.
        kept: `train.keep`.
    """

    kind: Literal["folds"] = field(default="folds", kw_only=True)  # first in the file
    path: str
    backbone: str
    data: str
    task: str
    labels: tuple[str, ...]
    folds: tuple[FoldRecord, ...]
    report: EvaluationReport
    baselines: Baselines | None = None
    metric: Metric = DEFAULT
    warnings: tuple[str, ...] = ()
    kept: str = "best"
