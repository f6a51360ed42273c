"""Summarises the draws of a few-shot study: rows of the table, comparisons of the best rows, and the verdict.

Shapes: N test rows, K labels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from loraft.evaluation import significance, verdicts
from loraft.evaluation.choosing import DEFAULT, Metric
from loraft.evaluation.classification_report import EvaluationReport
from loraft.evaluation.intervals import spreads
from loraft.studies.fewshot.records import ComparedRows, DrawRecord, TableRow

BACKBONE, ADAPTER, BASELINE = "backbone", "adapter", "baseline"  # values of `TableRow.model`


def summarise(records: Sequence[DrawRecord], tokens: Mapping[int, int], confidence: float) -> list[TableRow]:
    """One table row for each model and number of shots.

    Args:
        records: the measurements, one of each draw.
        tokens: length of the longest prompt with its answer, by number of shots.
        confidence: coverage of the intervals, in (0, 1).
    """
    grouped: dict[tuple[str, int | None], list[DrawRecord]] = {}
    for record in records:
        grouped.setdefault((record.model, record.shots), []).append(record)

    def mean(reports: Sequence[EvaluationReport], key: str) -> float:
        return float(np.mean([getattr(report, key) for report in reports]))

    return [
        TableRow(
            name=name_of(model, k),
            model=BASELINE if k is None else model,
            shots=k,
            draws=len(reports),
            tokens=None if k is None else tokens.get(k),
            no_label=mean(reports, "no_label"),
            seconds=round(sum(report.seconds for report in reports), 1),
            scores=spreads(reports, confidence),
            demonstrations_cut=float(np.mean([record.demonstrations_cut for record in group])),
            truncated=mean(reports, "truncated"),
            cut=mean(reports, "cut"),
        )
        for (model, k), group in grouped.items()
        for reports in [[record.report for record in group]]
    ]


def name_of(model: str, shots: int | None) -> str:
    """The name of a table row, for example "backbone, 4 shots"; of a baseline, its own name."""
    return model if shots is None else f"{model}, {shots} {'shot' if shots == 1 else 'shots'}"


def compare_best(
    rows: Sequence[TableRow],
    predictions: Mapping[str, Sequence[npt.ArrayLike]],
    references_N: npt.ArrayLike,
    num_labels: int,
    metric: Metric = DEFAULT,
    **settings: Any,
) -> list[ComparedRows]:
    """Compares the adapter with the best prompt and with the best baseline; without an adapter, those two.

    The best prompt is the number of shots with the best mean of the metric on these test rows; the best baseline is
    chosen in the same way. Choosing on the test rows favours these two, never the adapter.

    Args:
        rows: the rows of the table, from `summarise`.
        predictions: label ids on the N test rows, of every draw, by the name of its row in the table.
        references_N: label ids.
        num_labels: K.
        metric: by which the two are chosen.
        **settings: `bootstrap_samples`, `confidence` and `seed`, see `significance.compared`.

    Returns:
        With an adapter, its comparisons with the best prompt and the best baseline, in this order; otherwise that of
        the best prompt with the best baseline.
    """
    prompt, plain = (
        max((row for row in rows if row.model == model), key=lambda row: metric.gain(row.scores[metric.key].mean)).name
        for model in (BACKBONE, BASELINE)
    )
    tuned = next((row.name for row in rows if row.model == ADAPTER and row.shots == 0), None)
    pairs = [(prompt, plain)] if tuned is None else [(tuned, prompt), (tuned, plain)]
    answers = [(predictions[one], predictions[other]) for one, other in pairs]
    found = significance.compared(references_N, answers, num_labels, scores=metric.compared(references_N), **settings)
    return [ComparedRows(one, other, differences) for (one, other), differences in zip(pairs, found, strict=True)]


def verdict(compared: Sequence[ComparedRows], test_rows: int, confidence: float, metric: Metric = DEFAULT) -> str:
    """Answers in two sentences whether fine-tuning pays, by the differences in the metric that are shown.

    Args:
        compared: the comparisons from `compare_best`.
        test_rows: N.
        confidence: coverage of the intervals, in (0, 1).
        metric: of the comparisons.
    """
    key, word = metric.key, metric.word

    def gap(comparison: ComparedRows, against: str) -> str:
        return f"{verdicts.in_points(comparison.differences[key], confidence, key)} against {against}"

    tuned = len(compared) > 1
    shown = [verdicts.better(key, one.differences[key], confidence) for one in compared]
    better = [one.against for one, sign in zip(compared, shown, strict=True) if sign < 0]
    unclear = [one.against for one, sign in zip(compared, shown, strict=True) if sign == 0]
    of, plain = compared[0].of, compared[-1].against
    rows, picked = f"on the same {test_rows:,} test rows", "The best prompt was picked on these rows, which favours it"
    if tuned:
        said = "Fine-tuning pays"
        if better:
            said = f"This adapter does not pay, as {' and '.join(better)} {'do' if len(better) > 1 else 'does'} better"
        elif unclear:
            said = f"Fine-tuning is not shown to pay, as {' and '.join(unclear)} may do as well"
        gaps = [gap(compared[0], f"the best prompt ({compared[0].against})"), gap(compared[1], plain)]
        return f"{said}: {rows} the adapter's {word} is {gaps[0]}, and {gaps[1]}. {picked}."
    said = f"{plain} does better than the best prompt" if better else f"The best prompt does better than {plain}"
    said = f"The best prompt and {plain} {verdicts.UNCLEAR}" if unclear else said
    return (
        f"{said}: {rows} the {word} of {of} is {gap(compared[0], plain)}. {picked}; --run NAME adds a tuned adapter"
        " to the table."
    )
