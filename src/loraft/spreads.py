"""Rows of the few-shot table: mean, standard deviation and interval over draws, and what the table says."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SCORES = ("accuracy", "macro_f1", "macro_precision", "macro_recall")
BACKBONE, ADAPTER, BASELINE = "backbone", "adapter", "baseline"  # whose row it is


def summarise(
    records: Sequence[Mapping[str, Any]], tokens: Mapping[int, int], confidence: float
) -> list[dict[str, Any]]:
    """One table row for each model and number of shots.

    Args:
        records: one measured draw each: model, shots, and what `metrics.full` gives.
        tokens: longest prompt of each number of shots.
        confidence: of the intervals, in (0, 1).

    Returns:
        `name`, `model`, `shots`, `draws`, `tokens`, `no_label` (mean share), `seconds` (all draws), and for each of the
        four scores `mean`, `sd` over draws (None for one draw) and `interval` (accuracy and macro_f1, else None).
    """
    grouped: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for record in records:
        grouped.setdefault((record["model"], record["shots"]), []).append(record)
    return [
        {
            "name": f"{model}, {k} {'shot' if k == 1 else 'shots'}",
            "model": model,
            "shots": k,
            "draws": len(group),
            "tokens": tokens.get(k),
            "no_label": float(np.mean([record["no_label"] for record in group])),
            "seconds": round(sum(record["seconds"] for record in group), 1),
            **{score: spread(group, score, confidence) for score in SCORES},
        }
        for (model, k), group in grouped.items()
    ]


def spread(group: Sequence[Mapping[str, Any]], score: str, confidence: float) -> dict[str, Any]:
    """Mean, standard deviation and interval of a score over draws on the same rows.

    Two things vary: the draw (of demonstrations, or a seed), with Student's t for the mean of R draws, and the test
    rows, with the mean of the draws' bootstrap intervals. Their half-widths are added in quadrature, so that one draw,
    several, and a baseline without any are reported alike.
    """
    from scipy.special import stdtrit

    values_R = np.array([record[score] for record in group])
    mean, repeats = float(values_R.mean()), len(values_R)
    sd = float(values_R.std(ddof=1)) if repeats > 1 else None
    if any(score not in record["intervals"] for record in group):
        return {"mean": mean, "sd": sd, "interval": None}
    of_draws = 0.0 if sd is None else float(stdtrit(repeats - 1, (1 + confidence) / 2)) * sd / math.sqrt(repeats)
    low, high = np.mean([record["intervals"][score] for record in group], axis=0)
    interval = [max(0.0, mean - math.hypot(of_draws, mean - low)), min(1.0, mean + math.hypot(of_draws, high - mean))]
    return {"mean": mean, "sd": sd, "interval": interval}


def verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the table says about "do I need to fine-tune?", in one or two sentences, by macro-F1."""

    def f1(row: Mapping[str, Any]) -> float:
        return float(row["macro_f1"]["mean"])

    shot = max((row for row in rows if row["model"] == BACKBONE), key=f1)
    plain = max((row for row in rows if row["model"] == BASELINE), key=f1)
    other = max(shot, plain, key=f1)
    text = f"Best prompt: {shot['name']}, macro F1 {f1(shot):.3f}; {plain['name']}: {f1(plain):.3f}."
    tuned = next((row for row in rows if row["model"] == ADAPTER and row["shots"] == 0), None)
    if tuned is None:
        return f"{text} With --run the tuned adapter joins the table."
    apart = 100 * (f1(tuned) - f1(other))
    tuned_low, tuned_high = tuned["macro_f1"]["interval"]
    low, high = other["macro_f1"]["interval"]
    if tuned_low > high or tuned_high < low:
        pays = "fine-tuning pays" if apart > 0 else "this adapter does not pay"
        return f"{text} The adapter is {apart:+.1f} points from {other['name']}: {pays}."
    return f"{text} The adapter is {apart:+.1f} points from {other['name']}, and their intervals overlap."
