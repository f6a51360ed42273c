"""Finished runs with invented answers."""

import json
from collections.abc import Sequence
from pathlib import Path

from loraft.config.resolve import resolve
from loraft.config.yaml_io import dump_yaml
from loraft.runs.run import Run

LABELS = ["negative", "neutral", "positive"]


GOLD = [i % 3 for i in range(60)]


def make_run(
    folder: Path, predictions: Sequence[int | None], gold: Sequence[int] = GOLD, text: str = "câu phản hồi"
) -> Path:
    """A finished run that answered so; None is an answer that is no label."""
    run = Run.create(folder.parent, folder.name)
    run.config_path.write_text(dump_yaml(resolve()), encoding="utf-8")
    rows = [
        {
            "row": i + 11,
            "text": f"{text} {i}\u2028\u0085",
            "label": LABELS[label],
            "predicted": None if predicted is None else LABELS[predicted],
        }
        for i, (label, predicted) in enumerate(zip(gold, predictions, strict=True))
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    run.predictions_path.write_text(lines, encoding="utf-8", newline="\n")
    run.finish({"labels": LABELS})
    return run.path


def wrong_on(*rows: int) -> list[int]:
    return [(label + 1) % 3 if i in rows else label for i, label in enumerate(GOLD)]
