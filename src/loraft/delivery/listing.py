"""What `loraft runs list` shows: the runs and studies in a folder, the trials of each sweep among them, and scores."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from loraft.config.resolve import load_config
from loraft.errors import LoraftError, RunError
from loraft.evaluation.choosing import DEFAULT, Metric, gain, key_of
from loraft.evaluation.classification_report import EvaluationReport
from loraft.runs.folders import RunFolder
from loraft.runs.lock import LOCK_FILE, working_there
from loraft.runs.run import Bundle, Run
from loraft.runs.study_folders import (
    AuditFolder,
    DatasetFolder,
    FewshotFolder,
    FoldsFolder,
    RankCurveFolder,
    SweepFolder,
)
from loraft.studies.audit.records import AuditResult
from loraft.studies.dataset.records import DatasetStatistics
from loraft.studies.fewshot.records import FewshotResult
from loraft.studies.sweep.fold_records import FoldsResult
from loraft.studies.sweep.records import SweepResult, TrialScores
from loraft.training.results import RunResult

# By kind. A folder is of the first kind whose config it has.
KINDS: dict[str, type[RunFolder]] = {
    "sweep": SweepFolder,
    "folds": FoldsFolder,
    "few-shot": FewshotFolder,
    "rank curve": RankCurveFolder,
    "run": Run,
    "data": DatasetFolder,
    "audit": AuditFolder,
    "bundle": Bundle,
}
INSIDE = {"sweep": "trial", "folds": "fold"}  # what the runs in such a directory are called
SORTS = ("date", "name", "score")

Scored = tuple[str | None, float | None, tuple[float, float] | None]  # metric, score and interval


@dataclass(frozen=True)
class Row:
    """A run or study.

    Attributes:
        name: in its folder; of a trial or fold with that of its study before it.
        path: of its directory.
        kind: run, trial, fold, sweep, folds, few-shot, rank curve, data, audit, bundle (an adapter by itself, merged
            weights) or export.
        state: finished, interrupted, working (a process works there), failed, damaged (a file cannot be read), or not
            judged (a trial of a search, of which the best one alone is judged on test).
        pid: of the process that works there, where its lock names one.
        metric: `train.metric`, as a key of the scores; None where there is no score.
        score: of the metric on the test split; of a sweep that of its best trial, of folds over all rows.
        interval: low and high bound; None where none was computed.
        date: when it finished, or when it was last written to; UTC, ISO 8601.
        bytes: of its files.
        error: what is wrong with a damaged file, and where the traceback of a failed trial is.
    """

    name: str
    path: str
    kind: str
    state: str
    pid: int | None
    metric: str | None
    score: float | None
    interval: tuple[float, float] | None
    date: str
    bytes: int
    error: str | None = None


def kind_of(path: Path) -> tuple[str, RunFolder] | None:
    """The kind of work in a directory, and the directory; None where it holds none of loraft's."""
    for kind, make in KINDS.items():
        found = make(path)
        if found.begun or found.result_is_aside:
            return "export" if kind == "bundle" and _is_export(found) else kind, found
    return ("run", Run(path)) if working_there(path) else None  # no config was written yet


def work_in(path: Path) -> tuple[str, RunFolder]:
    """As `kind_of`; raises RunError where the directory holds no work of loraft's."""
    if (found := kind_of(path)) is None:
        raise RunError(f"{path}: is not the directory of a run or study; loraft runs list shows them")
    return found


def rows_in(output: Path, *, sort: str = "date") -> list[Row]:
    """The runs and studies in a folder, with the trials of its sweeps.

    Args:
        output: the folder that holds the runs.
        sort: `date`, the newest first; `name`; or `score`, the best first and those without one last.

    Raises:
        RunError: there is no such folder.
    """
    if not output.is_dir():
        raise RunError(f"{output}: no such folder; loraft train makes runs, --output FOLDER names another one")
    rows = [row for path in sorted(output.glob("[!.]*")) if path.is_dir() for row in rows_of(path)]
    if sort == "date":
        rows.sort(key=lambda row: row.date, reverse=True)
    if sort == "score":
        rows.sort(key=lambda row: (row.score is None, -gain(row.metric or "", row.score or 0.0)))
    return rows


def rows_of(path: Path, before: str = "", inside: str = "") -> Iterator[Row]:
    """The row of a directory and those of the runs in it; none where it holds no work of loraft.

    Args:
        path: the directory.
        before: what its name has before it.
        inside: the kind, where it is that of a run in a study.
    """
    if (found := kind_of(path)) is None:
        return
    kind, folder = found
    yield _row(before + path.name, inside or kind, folder)
    if isinstance(folder, SweepFolder):
        for run in sorted(path.glob(f"[!.]*/{Run.config_file}")):
            yield from rows_of(run.parent, f"{before}{path.name}/", INSIDE[kind])
        for error in sorted(path.glob("errors/*.txt")):
            if not (path / error.stem).is_dir():  # it failed before it had a directory
                yield _row(f"{before}{path.name}/{error.stem}", INSIDE[kind], Run(path / error.stem))


def size_of(path: Path) -> int:
    """Bytes of the files in a folder, or of a file; symlinks are not followed."""
    if not path.is_dir():
        return path.lstat().st_size if os.path.lexists(path) else 0
    files = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
    total = 0
    for file in files:
        with suppress(FileNotFoundError):  # a run that goes on deletes its old checkpoints
            total += os.lstat(file).st_size
    return total


def _row(name: str, kind: str, folder: RunFolder) -> Row:
    failed = folder.path.parent / "errors" / f"{folder.name}.txt"
    there = [path for path in (folder.results_path, folder.log_path, folder.config_path, folder.path, failed)
             if os.path.exists(path)]  # fmt: skip
    state, error = "interrupted", None
    scores: Scored = (None, None, None)
    if working_there(folder.path):
        state = "working"
    elif folder.finished:
        state = "finished"
        try:
            scores = _scores(folder)
        except LoraftError as wrong:
            state, error = "damaged", str(wrong)
    elif kind in INSIDE.values() and failed.exists():
        state, error = "failed", f"{failed} has the traceback"
    else:
        try:
            load_config(folder.config_path)
        except LoraftError as wrong:
            state, error = "damaged", str(wrong)
    if state == "interrupted" and SweepFolder(folder.path.parent).journal_path.exists():
        state = "not judged"
    date = datetime.fromtimestamp(there[0].stat().st_mtime, UTC).isoformat(timespec="seconds")
    pid = _pid(folder.path) if state == "working" else None
    return Row(name, str(folder.path), kind, state, pid, *scores, date, size_of(folder.path), error)


def _scores(folder: RunFolder) -> Scored:
    """The metric of finished work with its score and interval.

    Raises:
        LoraftError: a file is damaged.
    """
    metric = DEFAULT
    measured: EvaluationReport | TrialScores | None = None
    if isinstance(folder, FoldsFolder):
        folds = FoldsResult.of(folder)
        metric, measured = folds.metric, folds.report
    elif isinstance(folder, SweepFolder):
        sweep = SweepResult.of(folder)
        metric, measured = sweep.metric, None if sweep.best is None else sweep.best.measured
        measured = sweep.search.test if sweep.search is not None else measured
    elif isinstance(folder, Bundle):
        content = folder.read_results()
        try:
            key = key_of(content["config"]["train"]["metric"])
        except (KeyError, TypeError, AttributeError):  # of an earlier version
            key = DEFAULT.key
        known = content.get("scores")
        score = known.get(key) if isinstance(known, dict) else None
        return (key, float(score), None) if isinstance(score, int | float) else (None, None, None)
    elif isinstance(folder, Run):
        measured, metric = RunResult.of(folder).after, Metric.of(load_config(folder.config_path))
    elif isinstance(folder, FewshotFolder):
        FewshotResult.of(folder)
    elif isinstance(folder, DatasetFolder):
        DatasetStatistics.of(folder)
    elif isinstance(folder, AuditFolder):
        AuditResult.of(folder)
    key = metric.key
    if measured is None or key not in measured.scores:
        return None, None, None
    return key, measured.scores[key], measured.intervals.get(key)


def _is_export(bundle: RunFolder) -> bool:
    """Whether the weights are written for other programs: `--run` takes no such bundle."""
    with suppress(LoraftError):
        merged = bundle.read_results().get("merged")
        return isinstance(merged, dict) and "to" in merged
    return False


def _pid(path: Path) -> int | None:
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        return int(json.loads((path / LOCK_FILE).read_text(encoding="utf-8"))["pid"])
    return None
