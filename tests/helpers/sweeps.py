"""Results of sweeps that were never trained: invented answers, judged and compared by the real functions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from loraft.evaluation.classification_report import classification_report
from loraft.runs.predictions import RunPredictions
from loraft.studies.sweep.ranking import rank_settings
from loraft.studies.sweep.records import SearchOutcome, SweepResult, TrialRecord, TrialScores

LABELS = ("tiêu cực", "trung tính", "tích cực")
SHARE_RIGHT = {1: 0.70, 2: 0.76, 4: 0.83, 8: 0.85, 16: 0.86, 32: 0.85, 64: 0.86, 128: 0.85}  # of the test rows
POLICY = "fixed, alpha 32"


def answered(right_N: Sequence[bool] | np.ndarray, text: str = "câu") -> RunPredictions:
    """Rows of label 0, of which some are answered 0 and the others 1."""
    right = np.asarray(right_N, dtype=bool)
    numbers, zeros = tuple(range(1, len(right) + 1)), np.zeros(len(right), dtype=np.int64)
    return RunPredictions(
        Path("x"), LABELS, numbers, tuple(f"{text} {n}" for n in numbers), zeros, (~right).astype(np.int64)
    )


def trial(settings: Mapping[str, Any], answers: RunPredictions, validation: float, **more: Any) -> TrialRecord:
    """The record of a finished trial that answered so; `more` replaces fields of `TrialScores`."""
    rank = settings.get("lora.r", 8)
    words = {"lora.r": "r", "seed": "s"}
    judged = classification_report(answers.references_N, None, answers.predictions_N, LABELS, bootstrap_samples=200,
                          confidence=0.95, seed=0)  # fmt: skip
    measured = TrialScores(
        scores=judged.scores, intervals=judged.intervals, n=judged.n, trainable_parameters=106_496 * rank,
        validation_macro_f1=validation, seconds=90.5 + rank, resumed_from_step=None, steps=500,
        peak_memory_mib=900 + 2 * rank,
    )  # fmt: skip
    name = "-".join(f"{words.get(key, key + '=')}{value}" for key, value in settings.items())
    return TrialRecord(name, f"runs/quét/{name}", dict(settings), POLICY, "finished", replace(measured, **more))


def failed_trial(record: TrialRecord) -> TrialRecord:
    """The same trial, had it failed."""
    return replace(record, status="failed", measured=None, error="RuntimeError: hết bộ nhớ <gpu>\nvà thêm")


def ranked(trials: Sequence[TrialRecord], answers: Mapping[str, RunPredictions]) -> SweepResult:
    """The result of a sweep with these trials."""
    ranking = rank_settings(trials, answers, 0.95)
    return SweepResult(
        path="runs/quét", backbone="loraft-vi-tiny", quant="none", data="feedback", task="sentiment", labels=LABELS,
        keys=tuple(trials[0].settings), alpha_policies=(POLICY,), confidence=0.95, trials=tuple(trials),
        settings=ranking.settings, best_setting=ranking.best_setting, best=ranking.best,
    )  # fmt: skip


def result(
    ranks: Sequence[int] = (1, 2, 4),
    seeds: Sequence[int] = (),
    failed: Sequence[str] = (),
    rows: int = 600,
    pruned: Sequence[str] = (),
) -> SweepResult:
    """The result of a sweep over these ranks and seeds; the trials of the names in `failed` and `pruned` did so."""
    axes = {"lora.r": ranks, **({"seed": seeds} if seeds else {})}
    generator = np.random.default_rng(1)
    references = generator.choice(3, size=rows, p=[0.45, 0.05, 0.5])
    hard = generator.random(rows)  # for every trial alike
    records, answers = [], {}
    for values in product(*axes.values()):
        settings = dict(zip(axes, values, strict=True))
        right = hard + 0.1 * generator.standard_normal(rows) < SHARE_RIGHT[settings["lora.r"]]
        predictions = np.where(right, references, (references + 1) % 3)
        texts = tuple(f"câu {n}" for n in range(rows))
        own = RunPredictions(Path("x"), LABELS, tuple(range(rows)), texts, references, predictions)
        record = trial(settings, own, float(right.mean()) - 0.1)
        if record.name in failed:
            record = failed_trial(record)
        elif record.name in pruned:
            record = replace(record, status="pruned", measured=None, pruned_at=100)
        else:
            answers[record.name] = own
        records.append(record)
    return ranked(records, answers)


def searched() -> SweepResult:
    """The result of a search of five trials over four ranks, of which one failed and one was pruned."""
    made = result((4, 8, 16, 32), failed=("r8",), pruned=("r16",))
    assert made.best is not None
    assert made.best.measured is not None
    return replace(made, search=SearchOutcome(proposed=5, repeated=1, test=replace(made.best.measured, n=608)))
