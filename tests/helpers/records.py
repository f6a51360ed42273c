"""Measured few-shot draws with invented scores."""

from typing import Any

from loraft.evaluation.classification_report import EvaluationReport, LabelScores
from loraft.evaluation.metrics import INTERVAL_SCORES, SCORES
from loraft.studies.fewshot.records import DrawRecord


def report(f1: float, *, half: float = 0.0, labels: tuple[str, ...] = ()) -> EvaluationReport:
    """A report whose scores are all `f1`, with intervals of `half` to both sides."""
    per_class = tuple(LabelScores(label, f1, f1, f1, 20) for label in labels)
    intervals = dict.fromkeys(INTERVAL_SCORES, (f1 - half, f1 + half))
    return EvaluationReport(
        scores=dict.fromkeys(SCORES, f1), n=60, confidence=0.95, intervals=intervals, per_class=per_class, confusion=(),
        no_label=0.25, expected_calibration_error=None, log_loss=None, seconds=1.0,
    )  # fmt: skip


def record(f1: float, *, half: float = 0.0, model: str = "backbone", shots: int | None = 1, draw: int = 0,
           **rest: Any) -> DrawRecord:  # fmt: skip
    """A draw with that report."""
    return DrawRecord(model, shots, draw, report(f1, half=half), **rest)
