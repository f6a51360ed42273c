"""Builds the parts that several reports have: subtitle, config and versions, figures, the table of splits."""

from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

from loraft.config.resolve import load_config
from loraft.data.dataset import SplitSummary
from loraft.display.page import Code, Image, Part
from loraft.display.table import listing
from loraft.runs.environment import Environment
from loraft.runs.folders import RunFolder
from loraft.runs.records import read_record, read_text
from loraft.runs.run import Run
from loraft.runs.study_folders import FewshotFolder, RankCurveFolder, SweepFolder

# Captions, by file name.
_RUN, _FEWSHOT, _SWEEP = Run(Path()), FewshotFolder(Path()), SweepFolder(Path())
FIGURES = {
    _RUN.learning_curve_path.name: "Loss in nats an answer token and validation scores over the training"
    " steps; dotted: the step whose weights are kept",
    _RUN.confusion_matrix_path.name: "Counts and row shares of the test split: reference and predicted label",
    _RUN.reliability_path.name: "Accuracy over confidence on the test split, with the number of rows in each bin",
    _FEWSHOT.figure_path.name: "Test scores over the number of demonstrations, beside the baselines",
    _SWEEP.figure_path.name: "Test scores over the swept key",
    RankCurveFolder(Path()).figure_path.name: "Test scores over the rank, of trained adapters and of one that was cut",
}


def made_from(folder: RunFolder, settings: str) -> str:
    """The subtitle of a report: backbone, data, task, settings, seed, and loraft's version and time of the work.

    Args:
        folder: directory of a run or study.
        settings: what the kind of work adds, in words.

    Raises:
        RunError: a file of the directory is damaged or of a later version.
    """
    config = load_config(folder.config_path)
    quantised = f" ({config.quant.method})" if config.quant.method != "none" else ""
    made = None
    if folder.environment_path.exists():
        made = read_record(folder.environment_path, Environment, folder.mend)
    version, changes = None, ""
    if made is not None:
        version, changes = made.packages.get("loraft"), made.changes
    parts = [f"backbone {config.model.label}{quantised}", f"data {config.data.source}", f"task {config.prompt.task}"]
    parts += [
        settings,
        f"seed {config.seed}",
        f"loraft {version}" if version else "",
        "" if made is None else made.time,
        changes,
    ]
    return " · ".join(filter(None, parts))


def config_and_environment(folder: RunFolder) -> list[Part]:
    """The resolved config and the package versions, folded."""
    files = {folder.config_path: f"{folder.config_file}, resolved", folder.environment_path: "Versions and machine"}
    return [Code(read_text(path, folder.mend), summary) for path, summary in files.items() if path.exists()]


def figure(path: Path) -> list[Part]:
    """The figure of a run with its caption, if it was drawn."""
    return [Image(path, FIGURES[path.name])] if path.is_file() else []


def images(folder: Path) -> list[Part]:
    """All figures in a folder, sorted by file name."""
    return [
        Image(path, FIGURES.get(path.name, path.stem.replace("_", " ").capitalize()))
        for path in sorted(folder.glob("*.png"))
    ]


def sources(data: Mapping[str, SplitSummary]) -> Table:
    """A table of the splits: number of rows, source, and the notes of reading."""
    rows = [
        (name, f"{split.rows:,}", split.source, ", ".join(f"{n:,} {what}" for what, n in split.notes.items()))
        for name, split in data.items()
    ]
    return listing(("split", "rows", "source", "notes"), rows)
