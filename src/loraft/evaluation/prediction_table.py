"""Predictions as a list that is also a table: `Classifier.predict` returns one, `Evaluation.to_pandas` is one."""

from typing import Any, TypeVar

from loraft.display.tabled import TabledList
from loraft.evaluation.predict import Prediction
from loraft.runs.predictions import PredictedRow

One = TypeVar("One", Prediction, PredictedRow)


class Predictions(TabledList[One]):
    """A list of predictions. Its table has `confidence`, the highest probability, and `prob_LABEL` for each label."""

    columns = ("row", "text", "label", "confidence")

    def _table(self) -> tuple[str, list[dict[str, Any]]]:
        return f"{len(self):,} {'row' if len(self) == 1 else 'rows'}", [_columns(one) for one in self]


def _columns(one: Prediction | PredictedRow) -> dict[str, Any]:
    if isinstance(one, Prediction):
        more = {"set": one.set, "error": one.error}
        found: dict[str, Any] = {"label": one.label, **{name: cell for name, cell in more.items() if cell is not None}}
    else:
        found = {"label": one.label, "predicted": one.predicted}
        found |= {} if one.answer is None else {"answer": one.answer}
    probs = one.probs or {}
    found |= {"confidence": max(probs.values())} if probs else {}
    return {"row": one.row, "text": one.text, **found, **{f"prob_{label}": p for label, p in probs.items()}}
