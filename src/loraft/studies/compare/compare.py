"""Paired statistics of finished runs that were judged on the same test rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loraft.config.resolve import load_resolved
from loraft.errors import RunError
from loraft.evaluation import intervals, metrics, significance
from loraft.runs.predictions import Answers, difference_of_rows, read_answers
from loraft.runs.run import Run

SCORES = ("accuracy", "macro_f1")


def compare(runs: Sequence[Path]) -> dict[str, Any]:
    """Each further run against the first, on the same test rows.

    Args:
        runs: directories of finished runs, two or more.

    Returns:
        `n` rows, `labels`, `confidence`; `first`, with its scores; `others`, each with its scores, `difference` for
        accuracy and macro-F1 (further run minus first, a fraction, with its paired bootstrap interval), `mcnemar`
        (`b` rows only the further run has right, `c` rows only the first; `p_holm` corrected for the number of runs),
        `changed` (the rows with another answer, each with its outcome), and `worse`: one of the two intervals lies
        below 0 altogether.

    Raises:
        RunError: a run is not finished, or the test rows or labels differ.
    """
    if len(runs) < 2:
        raise RunError(f"compare: one run alone (got {len(runs)}); give two or more, the one to compare with first")
    twice = next((path for number, path in enumerate(runs) if path.resolve() in map(Path.resolve, runs[:number])), None)
    if twice is not None:
        raise RunError(
            f"compare: one run twice (got {twice}); name each once, of a sweep a trial and not its best again"
        )
    first, *others = [read_answers(Run.open(path)) for path in runs]
    for other in others:
        reason = difference_of_rows(first, other)
        if reason is not None:
            raise RunError(
                f"{other.run}: was not judged on the rows of {first.run} ({reason}); compare runs on the same data"
            )
    section = load_resolved(Run.open(first.run).config_path)
    settings: dict[str, Any] = {
        "bootstrap_samples": section.eval.bootstrap_samples,
        "confidence": section.eval.confidence,
        "seed": section.seed,
    }
    tests = [significance.mcnemar(other.correct, first.correct) for other in others]
    adjusted = significance.holm([test["p_value"] for test in tests])
    compared = []
    for other, test, p_holm in zip(others, tests, adjusted, strict=True):
        differences = {
            score: intervals.paired_bootstrap(
                first.references_N,
                other.predictions_N,
                first.predictions_N,
                len(first.labels),
                metric=score,
                **settings,
            )
            for score in SCORES
        }
        compared.append(
            {
                **_scores(other),
                "difference": differences,
                "mcnemar": {**test, "p_holm": p_holm},
                "changed": _changed(first, other),
                "worse": any(difference["interval"][1] < 0 for difference in differences.values()),
            }
        )
    return {
        "n": len(first.texts),
        "labels": list(first.labels),
        "confidence": settings["confidence"],
        "first": _scores(first),
        "others": compared,
    }


def _scores(answers: Answers) -> dict[str, Any]:
    scores = metrics.core(answers.references_N, answers.predictions_N, len(answers.labels))
    return {"run": str(answers.run), **{score: scores[score] for score in SCORES}}


def _changed(first: Answers, other: Answers) -> list[dict[str, Any]]:
    """Rows with another answer, mended ones first, then broken ones, then those that are wrong in both."""
    rows = []
    for n in np.flatnonzero(first.predictions_N != other.predictions_N):
        reference, before, after = (int(x[n]) for x in (first.references_N, first.predictions_N, other.predictions_N))
        outcome = "mended" if after == reference else "broken" if before == reference else "wrong in both"
        rows.append(
            {
                "row": first.rows[n],
                "text": first.texts[n],
                "label": first.labels[reference],
                "first": first.labels[before] if before >= 0 else None,
                "other": first.labels[after] if after >= 0 else None,
                "outcome": outcome,
            }
        )
    order = {"mended": 0, "broken": 1, "wrong in both": 2}
    return sorted(rows, key=lambda row: order[row["outcome"]])
