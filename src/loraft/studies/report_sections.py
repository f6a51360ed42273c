"""What a page says about a run, a sweep, a few-shot study or a data source, from the files in its folder.

Nothing is computed again and nothing heavy is imported: a report is as old as the files it was made from. The figures
of a sweep's trial are drawn when its report is asked for.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from loraft.config.resolve import load_resolved
from loraft.display.page import Code, Image, Part
from loraft.display.table import listing
from loraft.runs.run import Run

ENVIRONMENT = "environment.json"
SENTENCE = "thầy giảng bài rất dễ hiểu"
FIGURES = {
    "learning_curve.png": "Loss in nats and validation scores over the training steps",
    "confusion_matrix.png": "Counts and row shares of the test split: reference by predicted label",
    "reliability.png": "Accuracy over confidence on the test split, with the number of rows in each bin",
    "fewshot.png": "Test scores over the number of demonstrations, beside the baselines",
    "sweep.png": "Test scores over the swept key",
}


def made_from(folder: Path, config_file: str, settings: str) -> str:
    """The subtitle of a report: backbone, data, task, settings, seed, version and time."""
    config = load_resolved(folder / config_file)
    quantised = f" ({config.quant.method})" if config.quant.method != "none" else ""
    made = read_json(folder / ENVIRONMENT) if (folder / ENVIRONMENT).is_file() else {}
    version = (made.get("packages") or {}).get("loraft")
    parts = [f"backbone {config.model.name}{quantised}", f"data {config.data.source}", f"task {config.prompt.task}"]
    parts += [settings, f"seed {config.seed}", f"loraft {version}" if version else "", str(made.get("time") or "")]
    return " · ".join(filter(None, parts))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def config_and_environment(folder: Path, config_file: str) -> list[Part]:
    """The resolved config and the versions, as boxes that open on a click."""
    files = {config_file: f"{config_file}, resolved", ENVIRONMENT: "Versions and machine"}
    return [
        Code((folder / file).read_text(encoding="utf-8"), summary)
        for file, summary in files.items()
        if (folder / file).is_file()
    ]


def figures_of(run: Run, *names: str) -> list[Part]:
    """The named figures of a run, as far as they were drawn."""
    return [Image(run.plots / name, FIGURES[name]) for name in names if (run.plots / name).is_file()]


def images(folder: Path) -> list[Part]:
    """All figures in a folder, in the order of their names."""
    return [
        Image(path, FIGURES.get(path.name, path.stem.replace("_", " ").capitalize()))
        for path in sorted(folder.glob("*.png"))
    ]


def sources(data: Mapping[str, Mapping[str, Any]]) -> Table:
    """A table of the splits: rows, where they come from, and what was found when they were read."""
    rows = [
        (
            name,
            f"{split['rows']:,}",
            str(split["source"]),
            ", ".join(f"{n:,} {what}" for what, n in split["notes"].items()),
        )
        for name, split in data.items()
    ]
    return listing(("split", "rows", "source", "notes"), rows)
