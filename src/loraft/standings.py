"""Which trial of a sweep is best, and which others cannot be told apart from it. Pure, from records and answers.

The best is chosen on the validation split and compared on the test split, so that the choice does not flatter the
number that is reported.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from loraft import metrics
from loraft.answers import Answers, difference_of_rows
from loraft.spreads import SCORES, spread


def best_of(records: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The finished trial with the highest macro-F1 on validation; of equal ones that with the fewest parameters."""
    finished = [record for record in records if record["status"] == "finished"]
    return min(finished, key=lambda r: (-r["validation_macro_f1"], r["trainable_parameters"]), default=None)


def versus_best(best: str, answers: Mapping[str, Answers], confidence: float) -> dict[str, dict[str, Any]]:
    """Each other trial against the best one, by the exact McNemar test on the same test rows.

    Args:
        best: name of the best trial.
        answers: of the finished trials, by name.
        confidence: 1 minus the level of all tests together.

    Returns:
        By trial `b` (rows only the trial has right), `c` (rows only the best has right), `p_value`, `p_holm` (corrected
        for the number of comparisons) and `same`: cannot be told apart. Trials on other rows are left out.
    """
    paired = {
        name: metrics.mcnemar(own.correct, answers[best].correct)
        for name, own in answers.items()
        if name != best and difference_of_rows(own, answers[best]) is None
    }
    adjusted = metrics.holm([test["p_value"] for test in paired.values()])
    return {
        name: {**test, "p_holm": p_holm, "same": p_holm >= 1 - confidence}
        for (name, test), p_holm in zip(paired.items(), adjusted, strict=True)
    }


def by_setting(records: Sequence[Mapping[str, Any]], confidence: float) -> list[dict[str, Any]]:
    """The finished trials with their seeds taken together.

    Returns:
        For each setting `settings` (without the seed), `seeds`, their number, and for each of the four scores `mean`,
        `sd` over seeds (None for one) and `interval` over seeds and test rows (accuracy and macro_f1, else None).
    """
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        if record["status"] == "finished":
            grouped.setdefault(repr(_without_seed(record)), []).append(record)
    return [
        {
            "settings": _without_seed(group[0]),
            "seeds": len(group),
            **{score: spread(group, score, confidence) for score in SCORES},
        }
        for group in grouped.values()
    ]


def _without_seed(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record["settings"].items() if key != "seed"}
