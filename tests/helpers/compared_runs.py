"""Finished runs with invented answers."""

from collections.abc import Sequence
from pathlib import Path

from loraft.config.resolve import resolve
from loraft.config.yaml_io import dump_config
from loraft.runs.predictions import PredictedRow, write_rows
from loraft.runs.run import Run

LABELS = ["negative", "neutral", "positive"]
GOLD = [i % 3 for i in range(60)]


def make_run(
    folder: Path, predictions: Sequence[int | None], gold: Sequence[int] = GOLD, text: str = "câu phản hồi"
) -> Path:
    """A finished run that answered so; None is an answer that is no label."""
    run = Run.create(folder.parent, folder.name)
    run.config_path.write_text(dump_config(resolve()), encoding="utf-8")
    rows = [
        # Two characters that str.splitlines would take for line ends.
        PredictedRow(i + 11, f"{text} {i}\u2028\u0085", LABELS[label], None if answer is None else LABELS[answer])
        for i, (label, answer) in enumerate(zip(gold, predictions, strict=True))
    ]
    write_rows(run, rows)
    run.finish({"labels": LABELS})
    return run.path


def wrong_on(*rows: int) -> list[int]:
    return [(label + 1) % 3 if i in rows else label for i, label in enumerate(GOLD)]
