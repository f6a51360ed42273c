"""Folders as runs and studies leave them, without having trained anything."""

import json
from pathlib import Path

import numpy as np

from helpers.records import record
from loraft.config.resolve import resolve
from loraft.config.yaml_io import dump_yaml
from loraft.evaluation import classification_report
from loraft.evaluation.figures import confusion_matrix, learning_curve, reliability_diagram
from loraft.runs.environment import environment
from loraft.runs.files import write_json, write_text
from loraft.runs.folders import FewshotStudy
from loraft.runs.run import Run
from loraft.studies.dataset import statistics
from loraft.studies.fewshot.figures import fewshot_curve
from loraft.studies.fewshot.summary import ADAPTER, BACKBONE, compare_best, summarise, verdict

LABELS = ["tiêu cực", "trung tính", "tích cực"]


HOSTILE = "<script>alert('xin chào')</script> [/b] & | `em` \u0111\u01b0\u1ee3c"


def answers(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    probs = generator.dirichlet([1, 1, 1], count)
    return generator.integers(0, 3, count), probs


def make_run(folder: Path, *, generated: bool = False, right: bool = False) -> Path:
    """A run's folder as training leaves it."""
    run = Run(folder)
    references, probs = answers()
    predictions = references if right else probs.argmax(axis=1)
    if generated:
        predictions = np.where(np.arange(40) % 7 == 0, -1, predictions)
    options = {"bootstrap_samples": 100, "confidence": 0.95, "seed": 0}
    after = classification_report.full(references, None if generated else probs, predictions, LABELS, **options)
    before = classification_report.full(references, None, np.zeros(40, dtype=int), LABELS, **options)
    words = ["prompt.labels=[tiêu cực, trung tính, tích cực]", "prompt.label_words=[negative, neutral, positive]"]
    write_text(run.config_path, dump_yaml(resolve(overrides=words)))
    write_json(run.environment_path, environment())
    rows = [
        {"row": i + 1, "text": f"{HOSTILE} {i}", "label": LABELS[references[i]],
         "predicted": None if predictions[i] < 0 else LABELS[predictions[i]],
         **({"answer": "Sentiment: <không>"} if generated else {"probs": dict(zip(LABELS, probs[i], strict=True))})}
        for i in range(40)
    ]  # fmt: skip
    write_text(run.predictions_path, "".join(json.dumps(row, ensure_ascii=False, default=float) + "\n" for row in rows))
    for step in (10, 20):
        run.append_log({"step": step, "loss": 1 / step, "eval_macro_f1": 0.5})
    run.plots.mkdir()
    learning_curve(run.read_log(), run.plots / "learning_curve.png")
    confusion_matrix(after["confusion"], LABELS, run.plots / "confusion_matrix.png")
    if not generated:
        reliability_diagram(references, probs, run.plots / "reliability.png")
    data = {"source": "góp ý.jsonl", "rows": 40, "notes": {"blank rows skipped": 2}}
    train = {
        "seconds": 61.5,
        "resumed_from_step": None,
        "steps": 20,
        "parameters": {"trainable": 1234567, "all": 9876543},
    }
    run.finish({"before": before, "after": after, "labels": LABELS, "data": {"test": data}, "train": train})
    return folder


def make_fewshot(folder: Path) -> Path:
    study = FewshotStudy(folder)
    draws = [record(0.5 + k / 50 + draw / 90, half=0.02, model=BACKBONE, shots=k, draw=draw, train_rows=[3, 1][:k])
             for k in (1, 2) for draw in (0, 1)]  # fmt: skip
    draws.append(record(0.9, half=0.02, model=ADAPTER, shots=0, draw=0, train_rows=[]))
    plain = record(0.7, half=0.02, model="TF-IDF + linear SVM", shots=None)
    rows = summarise([plain, *draws], {0: 90, 1: 130, 2: 160}, 0.95)
    references = np.arange(60) % 3
    wrong = {
        row["name"]: np.where(np.arange(60) < n, -1, references) for row, n in zip(rows, (20, 30, 31, 0), strict=True)
    }
    told = {row["name"]: [wrong[row["name"]]] * row["draws"] for row in rows}
    compared = compare_best(rows, told, references, 3, bootstrap_samples=100, confidence=0.95, seed=0)
    data = {name: {"source": "a", "rows": 60, "notes": {}} for name in ("train", "test")}
    result = {"rows": rows, "draws": draws, "compared": compared, "verdict": verdict(compared, 60, 0.95),
              "selection": "random", "decode": "generate", "repeats": 2, "confidence": 0.95, "data": data,
              "backbone": "loraft-vi-tiny", "source": "góp ý", "task": "sentiment"}  # fmt: skip
    write_text(study.config_path, dump_yaml(resolve()))
    fewshot_curve(result, study.plots / "fewshot.png")
    study.finish(result)
    return folder


def make_data(folder: Path) -> Path:
    config = resolve(overrides=[f"output={folder}", "prompt.task=topic"])
    return Path(statistics.describe(config, near=False, tokens=False)["path"])
