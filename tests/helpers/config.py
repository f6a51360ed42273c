"""The config of a training of seconds."""

from pathlib import Path

from loraft.config.resolve import resolve
from loraft.config.schema import Config

SMALL = ["train.max_steps=4", "train.eval_steps=2", "train.logging_steps=1", "data.max_train_rows=48",
         "data.max_eval_rows=40", "data.max_test_rows=40",
         "train.learning_rate=5e-3", "eval.bootstrap_samples=100"]  # fmt: skip


def config(output: Path, *overrides: str) -> Config:
    return resolve(overrides=[*SMALL, f"output={output}", *overrides])
