"""Rows of the few-shot table: mean, standard deviation and interval over draws, and what the table says.

Shapes: N test rows, R draws.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from loraft.evaluation.intervals import differences, spread
from loraft.evaluation.metrics import SCORES

BACKBONE, ADAPTER, BASELINE = "backbone", "adapter", "baseline"  # whose row it is
Ints = npt.NDArray[np.int64]


def summarise(
    records: Sequence[Mapping[str, Any]], tokens: Mapping[int, int], confidence: float
) -> list[dict[str, Any]]:
    """One table row for each model and number of shots.

    Args:
        records: one measured draw each: model, shots (None for a baseline), and what `metrics.full` gives.
        tokens: longest prompt of each number of shots.
        confidence: of the intervals, in (0, 1).

    Returns:
        `name`, `model` (backbone, adapter or baseline), `shots`, `draws`, `tokens`, `no_label` (mean share), `seconds`
        (all draws), and for each of the four scores `mean`, `sd` over draws (None for one draw) and `interval`
        (accuracy and macro_f1, else None).
    """
    grouped: dict[tuple[str, int | None], list[Mapping[str, Any]]] = {}
    for record in records:
        grouped.setdefault((record["model"], record["shots"]), []).append(record)
    return [
        {
            "name": name_of(model, k),
            "model": BASELINE if k is None else model,
            "shots": k,
            "draws": len(group),
            "tokens": None if k is None else tokens.get(k),
            "no_label": float(np.mean([record["no_label"] for record in group])),
            "seconds": round(sum(record["seconds"] for record in group), 1),
            **{score: spread(group, score, confidence) for score in SCORES},
        }
        for (model, k), group in grouped.items()
    ]


def name_of(model: str, shots: int | None) -> str:
    """What a row of the table is called."""
    return model if shots is None else f"{model}, {shots} {'shot' if shots == 1 else 'shots'}"


def compare_best(
    rows: Sequence[Mapping[str, Any]],
    answers: Mapping[str, Sequence[npt.ArrayLike]],
    references_N: npt.ArrayLike,
    num_labels: int,
    **settings: Any,
) -> list[dict[str, Any]]:
    """The adapter, as it was trained, against the best prompt and the best baseline; without one, those two.

    The best prompt is the number of shots with the highest mean macro-F1 on these test rows, and so is the best
    baseline. That choice favours them, never the adapter.

    Args:
        rows: what `summarise` returns.
        answers: label ids of every draw, by the row's name.
        references_N: label ids.
        num_labels: K.
        **settings: `bootstrap_samples`, `confidence` and `seed`, see `differences`.

    Returns:
        `of` and `against`, names of rows, and what `differences` returns.
    """
    prompt, plain = (
        max((row for row in rows if row["model"] == model), key=lambda row: float(row["macro_f1"]["mean"]))["name"]
        for model in (BACKBONE, BASELINE)
    )
    tuned = next((row["name"] for row in rows if row["model"] == ADAPTER and row["shots"] == 0), None)
    pairs = [(prompt, plain)] if tuned is None else [(tuned, prompt), (tuned, plain)]
    return [
        {"of": one, "against": other, **differences(references_N, answers[one], answers[other], num_labels, **settings)}
        for one, other in pairs
    ]


def verdict(compared: Sequence[Mapping[str, Any]], test_rows: int, confidence: float) -> str:
    """What the study says about "do I need to fine-tune?", in two sentences, by macro-F1.

    Args:
        compared: what `compare_best` returns.
        test_rows: N.
        confidence: of the intervals.
    """

    def gap(comparison: Mapping[str, Any], against: str) -> str:
        low, high = (f"{100 * bound:+.1f}" for bound in comparison["macro_f1"]["interval"])
        points = f"{100 * comparison['macro_f1']['difference']:+.1f} points"
        return f"{points} ({confidence:.0%} interval {low} to {high}) against {against}"

    tuned = len(compared) > 1
    better = [one["against"] for one in compared if one["macro_f1"]["interval"][1] < 0]
    unclear = [
        one["against"] for one in compared if one["macro_f1"]["interval"][1] >= 0 >= one["macro_f1"]["interval"][0]
    ]
    of, plain = compared[0]["of"], compared[-1]["against"]
    rows, picked = f"on the same {test_rows:,} test rows", "The best prompt was picked on these rows, which favours it"
    if tuned:
        said = "Fine-tuning pays"
        if better:
            said = f"This adapter does not pay, as {' and '.join(better)} {'do' if len(better) > 1 else 'does'} better"
        elif unclear:
            said = f"Fine-tuning is not shown to pay, as {' and '.join(unclear)} may do as well"
        gaps = [gap(compared[0], f"the best prompt ({compared[0]['against']})"), gap(compared[1], plain)]
        return f"{said}: {rows} the adapter's macro F1 is {gaps[0]}, and {gaps[1]}. {picked}."
    said = f"{plain} does better than the best prompt" if better else f"The best prompt does better than {plain}"
    said = f"The best prompt and {plain} cannot be told apart" if unclear else said
    return (
        f"{said}: {rows} the macro F1 of {of} is {gap(compared[0], plain)}. {picked}; --run NAME puts a tuned adapter"
        " beside it."
    )
