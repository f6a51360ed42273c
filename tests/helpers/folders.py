"""Folders as runs and studies leave them, without having trained anything."""

from pathlib import Path

import numpy as np

from helpers.records import record
from helpers.records import report as judgement
from loraft.config.resolve import resolve
from loraft.config.yaml_io import dump_config
from loraft.data.dataset import SplitSummary
from loraft.evaluation.classification_report import classification_report
from loraft.evaluation.figures import draw_run_figures
from loraft.runs.atomic_files import write_text
from loraft.runs.environment import environment
from loraft.runs.predictions import PredictedRow, RunPredictions, write_rows
from loraft.runs.records import write_record
from loraft.runs.run import Run
from loraft.runs.study_folders import FewshotFolder, SweepFolder
from loraft.studies.dataset import statistics
from loraft.studies.fewshot.figures import fewshot_curve
from loraft.studies.fewshot.records import FewshotResult
from loraft.studies.fewshot.summary import ADAPTER, BACKBONE, compare_best, summarise, verdict
from loraft.studies.sweep.figures import sweep_curve
from loraft.studies.sweep.ranking import rank_settings
from loraft.studies.sweep.records import SweepResult, TrialRecord, TrialScores
from loraft.training.results import ParameterCounts, RunResult, TrainReport

LABELS = ["tiêu cực", "trung tính", "tích cực"]


HOSTILE = "<script>alert('xin chào')</script> [/b] & | `em` \u0111\u01b0\u1ee3c"


def answers(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    probs = generator.dirichlet([1, 1, 1], count)
    return generator.integers(0, 3, count), probs


def run_result(run: Run, *, generated: bool = False, right: bool = False) -> tuple[RunResult, list[PredictedRow]]:
    """Results and predictions of a run on 40 test rows, of which no model was asked."""
    references, probs = answers()
    predictions = references if right else probs.argmax(axis=1)
    if generated:
        predictions = np.where(np.arange(40) % 7 == 0, -1, predictions)
    options = {"bootstrap_samples": 100, "confidence": 0.95, "seed": 0}
    after = classification_report(references, None if generated else probs, predictions, LABELS, **options)
    before = classification_report(references, None, np.zeros(40, dtype=int), LABELS, **options)
    rows = [
        PredictedRow(
            row=i + 1, text=f"{HOSTILE} {i}", label=LABELS[references[i]],
            predicted=None if predictions[i] < 0 else LABELS[predictions[i]],
            probs=None if generated else dict(zip(LABELS, map(float, probs[i]), strict=True)),
            answer="Sentiment: <không>" if generated else None,
        )
        for i in range(40)
    ]  # fmt: skip
    train = TrainReport(
        seconds=61.5, resumed_from_step=None, steps=20, best_step=20, validation_macro_f1=0.5, tokens_computed=1000,
        truncated=0, shared_prefix=True, peak_memory_mib=None, parameters=ParameterCounts(1234567, 9876543),
        alpha_policy="fixed, alpha 32",
    )  # fmt: skip
    data = {"test": SplitSummary("góp ý.jsonl", 40, {"blank rows skipped": 2})}
    return RunResult(str(run.path), tuple(LABELS), "loraft-vi-tiny", "0" * 64, data, before, after, train), rows


def make_run(folder: Path, *, generated: bool = False, right: bool = False) -> Path:
    """A run's folder as training leaves it."""
    run = Run(folder)
    result, rows = run_result(run, generated=generated, right=right)
    words = ["prompt.labels=[tiêu cực, trung tính, tích cực]", "prompt.label_words=[negative, neutral, positive]"]
    write_text(run.config_path, dump_config(resolve(overrides=words)))
    write_record(run.environment_path, environment())
    write_rows(run, rows)
    for step in (10, 20):
        run.append_log({"step": step, "loss": 1 / step, "eval_macro_f1": 0.5})
    draw_run_figures(run, result.after, LABELS)
    run.finish(result)
    return folder


def fewshot_result(path: str = "runs/góp ý") -> FewshotResult:
    """The results of a study of 60 test rows, with an adapter that is right on all of them."""
    draws = [record(0.5 + k / 50 + draw / 90, half=0.02, model=BACKBONE, shots=k, draw=draw, train_rows=(3, 1)[:k])
             for k in (1, 2) for draw in (0, 1)]  # fmt: skip
    draws.append(record(0.9, half=0.02, model=ADAPTER, shots=0, train_rows=()))
    plain = record(0.7, half=0.02, model="TF-IDF + linear SVM", shots=None)
    rows = summarise([plain, *draws], {0: 90, 1: 130, 2: 160}, 0.95)
    references = np.arange(60) % 3
    wrong = {
        row.name: np.where(np.arange(60) < n, -1, references) for row, n in zip(rows, (20, 30, 31, 0), strict=True)
    }
    told = {row.name: [wrong[row.name]] * row.draws for row in rows}
    compared = compare_best(rows, told, references, 3, bootstrap_samples=100, confidence=0.95, seed=0)
    return FewshotResult(
        path=path, backbone="loraft-vi-tiny", run="runs/của em", task="sentiment", labels=tuple(LABELS),
        source="góp ý", data={name: SplitSummary("a", 60, {}) for name in ("train", "test")}, selection="random",
        repeats=2, seed=42, decode="generate", confidence=0.95, rows=tuple(rows), compared=tuple(compared),
        verdict=verdict(compared, 60, 0.95), draws=tuple(draws),
    )  # fmt: skip


def make_fewshot(folder: Path) -> Path:
    """A few-shot study's folder as the study leaves it."""
    study, result = FewshotFolder(folder), fewshot_result()
    write_text(study.config_path, dump_config(resolve()))
    fewshot_curve(result, study.figure_path)
    study.finish(result)
    return folder


def make_data(folder: Path) -> Path:
    """The folder of the bundled data's statistics, by topic."""
    config = resolve(overrides=[f"output={folder}", "prompt.task=topic"])
    return Path(statistics.describe(config, near=False, tokens=False).path)


def make_sweep(folder: Path) -> Path:
    """A sweep over three ranks and two seeds, of which the last rank failed."""
    references, probs = answers()
    trials, told = [], {}
    for number, (rank, seed) in enumerate((rank, seed) for rank in (1, 2) for seed in (1, 2)):
        name, gain = f"r{rank}-s{seed}", rank / 100 - seed / 400
        judged = judgement(0.6 + gain, half=0.02)
        measured = TrialScores(
            judged.scores, judged.intervals, n=40, trainable_parameters=106_496 * rank, steps=20, seconds=9.5,
            validation_macro_f1=0.5 + gain, resumed_from_step=None, peak_memory_mib=None if rank == 1 else 512,
        )  # fmt: skip
        settings = {"lora.r": rank, "seed": seed}
        trials.append(TrialRecord(name, f"runs/quét/{name}", settings, "fixed, alpha 32", "finished", measured))
        told[name] = RunPredictions(
            Path(name), tuple(LABELS), tuple(range(40)), ("câu",) * 40, references, np.roll(probs.argmax(1), number)
        )
    for seed in (1, 2):
        name, settings = f"r4-s{seed}", {"lora.r": 4, "seed": seed}
        error = "out of memory <hết bộ nhớ>"
        trials.append(TrialRecord(name, f"runs/quét/{name}", settings, "fixed, alpha 32", "failed", error=error))
    ranking = rank_settings(trials, told, 0.95)
    result = SweepResult(
        path=str(folder), backbone="loraft-vi-tiny", quant="none", data="feedback", task="sentiment",
        labels=tuple(LABELS), keys=("lora.r", "seed"), alpha_policies=("fixed, alpha 32",), confidence=0.95,
        trials=tuple(trials), settings=ranking.settings, best_setting=ranking.best_setting, best=ranking.best,
    )  # fmt: skip
    sweep = SweepFolder(folder)
    write_text(sweep.config_path, dump_config(resolve()))
    sweep_curve(result, sweep.figure_path)
    sweep.finish(result)
    return folder
