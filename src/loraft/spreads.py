"""Rows of the few-shot table: mean, standard deviation and interval over draws, and what the table says.

Shapes: N test rows, R draws.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from loraft import metrics

SCORES = ("accuracy", "macro_f1", "macro_precision", "macro_recall")
COMPARED = ("accuracy", "macro_f1")  # the scores with an interval
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


def spread(group: Sequence[Mapping[str, Any]], score: str, confidence: float) -> dict[str, Any]:
    """Mean, standard deviation and interval of a score over draws on the same rows.

    Two things vary: the draw (of demonstrations, or a seed), with Student's t for the mean of R draws, and the test
    rows, with the mean of the draws' bootstrap intervals. Their half-widths are added in quadrature, so that one draw,
    several, and a baseline without any are reported alike.
    """
    values_R = np.array([record[score] for record in group])
    mean = float(values_R.mean())
    sd = float(values_R.std(ddof=1)) if len(values_R) > 1 else None
    if any(score not in record["intervals"] for record in group):
        return {"mean": mean, "sd": sd, "interval": None}
    of_draws = _half_width(values_R, confidence)
    low, high = np.mean([record["intervals"][score] for record in group], axis=0)
    interval = [max(0.0, mean - math.hypot(of_draws, mean - low)), min(1.0, mean + math.hypot(of_draws, high - mean))]
    return {"mean": mean, "sd": sd, "interval": interval}


def differences(
    references_N: npt.ArrayLike,
    answers_RN: Sequence[npt.ArrayLike],
    others_RN: Sequence[npt.ArrayLike],
    num_labels: int,
    *,
    bootstrap_samples: int,
    confidence: float,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """How far the mean score over one model's draws lies above that of another on the same rows, paired by row.

    As in `spread`, two things vary. Test rows are drawn with replacement, for all draws of both models together: what
    makes a row hard for both cancels out. The draws of each model, independent of each other, add Student's t for
    their mean in quadrature.

    Args:
        references_N: label ids.
        answers_RN: label ids of each draw of the one model, -1 for none.
        others_RN: those of the other, whose number of draws may differ.
        num_labels: K.
        bootstrap_samples: resamples of the rows.
        confidence: coverage of the interval, in (0, 1).
        seed: of the resampling.

    Returns:
        For accuracy and macro_f1 the `difference` and its `interval` as [low, high], fractions.
    """
    references = np.asarray(references_N)
    sides = [np.asarray(answers_RN), np.asarray(others_RN)]
    generator = np.random.default_rng(seed)

    def scored(rows: Ints | slice) -> list[list[dict[str, float]]]:
        return [[metrics.core(references[rows], one[rows], num_labels) for one in side] for side in sides]

    def gaps(scores: list[list[dict[str, float]]]) -> dict[str, float]:
        one, other = ({name: float(np.mean([s[name] for s in side])) for name in COMPARED} for side in scores)
        return {name: one[name] - other[name] for name in COMPARED}

    measured = scored(slice(None))
    resampled = [
        gaps(scored(generator.integers(len(references), size=len(references)))) for _ in range(bootstrap_samples)
    ]
    found = {}
    for name, gap in gaps(measured).items():
        tail = (1 - confidence) / 2
        low, high = np.quantile([sample[name] for sample in resampled], [tail, 1 - tail])
        of_draws = math.hypot(*(_half_width(np.array([s[name] for s in side]), confidence) for side in measured))
        interval = [gap - math.hypot(of_draws, gap - low), gap + math.hypot(of_draws, high - gap)]
        found[name] = {"difference": gap, "interval": interval}
    return found


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


def _half_width(values_R: npt.NDArray[np.float64], confidence: float) -> float:
    """Half the interval of the mean of R draws by Student's t, 0 where there is but one."""
    from scipy.special import stdtrit

    repeats = len(values_R)
    if repeats < 2:
        return 0.0
    return float(stdtrit(repeats - 1, (1 + confidence) / 2) * values_R.std(ddof=1) / math.sqrt(repeats))
