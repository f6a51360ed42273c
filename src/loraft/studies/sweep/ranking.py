"""Which setting of a sweep is best, and which others cannot be told apart from it. Pure, from records and answers.

A setting is what was swept without the seed: a rank, or a point of the grid. The best one is chosen on the validation
split and compared on the test split, so that the choice does not flatter the number that is reported.

Shapes: S seeds, N test rows.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from loraft.evaluation import significance
from loraft.evaluation.intervals import spread
from loraft.evaluation.metrics import SCORES
from loraft.runs.predictions import Answers, difference_of_rows

Record = Mapping[str, Any]


def rank_settings(records: Sequence[Record], answers: Mapping[str, Answers], confidence: float) -> dict[str, Any]:
    """The settings of a sweep with their seeds taken together, each against the best one.

    Args:
        records: one of each trial: `name`, `settings`, `alpha_policy`, `status` and, of a finished one, what its run
            measured.
        answers: of the finished trials, by name.
        confidence: of the intervals, and 1 minus the level of all tests together.

    Returns:
        `settings`, one row each: `settings` (without the seed), `alpha_policy`, `trials` (their names), `seeds` and
        `failed` (how many finished and failed), and where one finished: each of the four scores as `spread` gives it;
        `validation_macro_f1`, `seconds` and `peak_memory_mib`, means over seeds (the last None where it is not known);
        `trainable_parameters`; `versus_best`, as `against` gives it, with `p_holm` (corrected for the number of tests)
        and `same` (cannot be told apart), None for the best and where there is nothing to pair.
        `best_setting`, the row with the highest mean macro-F1 on validation, of equal ones that with the fewest
        parameters; `best`, the record of its trial that is best on validation. Both None if no trial finished.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(repr(without_seed(record["settings"])), []).append(record)
    rows = [_row(group, confidence) for group in groups.values()]
    finished = [row for row in rows if row["seeds"]]
    best = min(finished, key=lambda row: (-row["validation_macro_f1"], row["trainable_parameters"]), default=None)
    if best is None:
        return {"settings": rows, "best_setting": None, "best": None}

    def by_seed(row: Record) -> dict[Any, Answers]:
        return {r["settings"].get("seed"): answers[r["name"]] for r in records if r["name"] in row["trials"]
                and r["status"] == "finished"}  # fmt: skip

    for row in finished:
        row["versus_best"] = None if row is best else against(by_seed(row), by_seed(best))
    tests = [row["versus_best"] for row in finished if row["versus_best"] is not None]
    level = round(1 - confidence, 12)  # 1 - 0.95 is a little more than 0.05
    for test, p_holm in zip(tests, significance.holm([test["p_value"] for test in tests]), strict=True):
        test |= {"p_holm": p_holm, "same": p_holm >= level}
    of_best = [r for r in records if r["name"] in best["trials"] and r["status"] == "finished"]
    trial = max(of_best, key=lambda record: record["validation_macro_f1"])
    return {"settings": rows, "best_setting": best, "best": trial}


def against(own: Mapping[Any, Answers], best: Mapping[Any, Answers]) -> dict[str, Any] | None:
    """A setting against the best one on the same test rows, seed by seed; None if they have no seed and rows in common.

    The same rows come back with every seed, so answers of several seeds are no new rows: counted as such they would
    make any difference look certain. The unit is the test row, with the seeds' answers to it summed. The seeds are
    taken as given; how far they move a score is its standard deviation.

    Args:
        own: the answers of the setting, by seed.
        best: those of the best setting.

    Returns:
        `seeds` that were paired and `n` test rows; `b`, answers that only the setting has right, and `c`, those that
        only the best has, over all these seeds; `p_value` of `metrics.sign_flip` (with one seed McNemar's exact test).
    """
    seeds = [seed for seed in own if seed in best and difference_of_rows(own[seed], best[seed]) is None]
    seeds = [seed for seed in seeds if difference_of_rows(own[seed], own[seeds[0]]) is None]
    if not seeds:
        return None
    gains_SN = np.stack([own[seed].correct.astype(np.int64) - best[seed].correct for seed in seeds])
    return {
        "seeds": len(seeds),
        "n": gains_SN.shape[1],
        "b": int((gains_SN > 0).sum()),
        "c": int((gains_SN < 0).sum()),
        "p_value": significance.sign_flip(gains_SN.sum(axis=0)),
    }


def without_seed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The swept keys and values that make a setting."""
    return {key: value for key, value in settings.items() if key != "seed"}


def _row(group: Sequence[Record], confidence: float) -> dict[str, Any]:
    finished = [record for record in group if record["status"] == "finished"]
    row = {
        "settings": without_seed(group[0]["settings"]),
        "alpha_policy": group[0]["alpha_policy"],
        "trials": [record["name"] for record in group],
        "seeds": len(finished),
        "failed": len(group) - len(finished),
    }
    if not finished:
        return row
    peaks = [record["peak_memory_mib"] for record in finished if record["peak_memory_mib"] is not None]
    return {
        **row,
        **{score: spread(finished, score, confidence) for score in SCORES},
        # fmean does not depend on the order, so that equal seeds in another order are a tie.
        "validation_macro_f1": fmean(record["validation_macro_f1"] for record in finished),
        "trainable_parameters": finished[0]["trainable_parameters"],
        "seconds": round(fmean(record["seconds"] for record in finished), 1),
        "peak_memory_mib": round(fmean(peaks)) if peaks else None,
    }
