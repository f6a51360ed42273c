"""Configs and rows of few-shot studies that take less than a second."""

import json
from pathlib import Path

from loraft.config.resolve import resolve
from loraft.config.schema import Config

SMALL = ["data.max_train_rows=60", "data.max_test_rows=8", "eval.bootstrap_samples=100", "fewshot.repeats=2",
         "fewshot.shots=[1,4]"]  # fmt: skip


def config(output: Path, *overrides: str) -> Config:
    return resolve(overrides=[*SMALL, f"output={output}", *overrides])


def rows_file(folder: Path, name: str, *texts: str) -> Path:
    """A file of these sentences, all positive."""
    rows = [{"sentence": text, "sentiment": "positive"} for text in texts]
    (folder / name).write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return folder / name
