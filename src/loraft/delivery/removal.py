"""`loraft runs remove`: deletes runs and studies, or the checkpoints of finished runs, after checks of all of them.

A directory is renamed to a hidden one beside it, and then deleted: a process that is killed meanwhile leaves the whole
run or none. What is left of a hidden one is deleted by the next removal in the same folder.
"""

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from loraft.delivery.listing import work_in
from loraft.errors import RunError, listed
from loraft.runs.folders import ASIDE as REPLACED
from loraft.runs.folders import RunFolder, delete
from loraft.runs.lock import LOCK_FILE, locked, refuse_locked
from loraft.runs.peft_folder import CONFIG_FILE, WEIGHTS_FILE
from loraft.runs.run import Bundle, Run
from loraft.runs.study_folders import CLEANED, AuditFolder, DatasetFolder, FoldsFolder, RankCurveFolder, SweepFolder
from loraft.studies.dataset.records import DatasetStatistics

ASIDE = ".removed-"
# What work writes into its directory beside config, results and log; a sweep's has its trials, too.
WRITTEN = (
    "environment.json", "trackers.json", "before.json", "started_from.json", "rows.json", "predictions.jsonl",
    "explanations.json", "report.html", "adapter", "checkpoints", "errors", "joint-*", "folds-*", "rows.sha256",
    "plots", "tensorboard", "wandb", LOCK_FILE, f"{LOCK_FILE}-*", REPLACED, f"{ASIDE}*", ".*-[0-9]*", ".DS_Store",
)  # fmt: skip


def to_remove(paths: Iterable[Path], *, checkpoints: bool) -> list[Path]:
    """The folders that a removal deletes; nothing is changed.

    Args:
        paths: directories of runs and studies.
        checkpoints: delete the checkpoints of finished runs alone; of a sweep, those of its trials.

    Raises:
        RunError: one is no directory of loraft's, a symlink, a trial of a sweep (which may lose its checkpoints only),
            not finished (whose checkpoints it needs to go on), holds something else, or another process works there.
    """
    found: list[Path] = []
    for path in dict.fromkeys(map(_real, paths)):
        folder = _own(path)
        studies = [one for one in (SweepFolder(path.parent), FoldsFolder(path.parent)) if one.begun]
        inside = sorted(path.glob(f"[!.]*/{Run.config_file}")) if isinstance(folder, SweepFolder) else []
        runs: list[RunFolder] = [Run(config.parent) for config in inside]
        for one in (folder, *runs, *studies):
            refuse_locked(one.path)
        if not checkpoints:
            if studies:
                raise RunError(
                    f"{path}: belongs to the {studies[0].kind} in {path.parent}, whose results name it; remove that, or"
                    " the --checkpoints of this one"
                )
            if foreign := [str(entry.relative_to(path)) for entry in _foreign(folder)]:
                raise RunError(
                    f"{path}: holds what is not of {folder.a_kind} (got {listed(foreign)}); move it away first"
                )
            found.append(path)
            continue
        for run in runs or [folder]:
            if not run.finished:
                raise RunError(f"{run.path}: is not finished, and needs its checkpoints to go on; {run.way_on}")
            kept = run.path / "checkpoints"
            found += [kept] if kept.is_dir() and not kept.is_symlink() else []
    return found


def remove(folders: Sequence[Path]) -> None:
    """Deletes what `to_remove` found.

    Raises:
        RunError: a process has begun to work there.
        OSError: one cannot be renamed or deleted.
    """
    for path in folders:
        aside = path.with_name(
            f"{ASIDE}{secrets.token_hex(4)}"
        )  # short: the folder's name may be as long as one can be
        with locked(path.parent if path.name == "checkpoints" else path):
            os.replace(path, aside)
        for left in path.parent.glob(f"{ASIDE}*"):
            delete(left)  # another removal may delete the same ones
        if aside.exists():
            shutil.rmtree(aside)  # says what the system refuses


def _real(path: Path) -> Path:
    """The folder that the system finds at a path: `link/../run` is beside what the link names, not beside the link."""
    if path.is_symlink():
        raise RunError(f"{path}: is a symlink (to {os.readlink(path)}); remove what it names by its own path")
    return path.resolve()


def _own(path: Path) -> RunFolder:
    """The directory of a run or study, known by more than its config, which may be a file of the user's."""
    _, folder = work_in(path)
    if isinstance(folder, Bundle):
        raise RunError(f"{path}: holds weights outside of a run, which are only yours to delete; delete the folder")
    if isinstance(folder, DatasetFolder):
        DatasetStatistics.of(folder)  # its only file is known by what it holds
    elif not folder.recognised and not folder.result_is_aside:
        raise RunError(
            f"{path}: lacks a {folder.config_file} that is a file, or all else of {folder.a_kind}; look at it and"
            " delete it yourself"
        )
    return folder


def _foreign(folder: RunFolder) -> Iterator[Path]:
    """Files and folders that a directory's work did not write."""
    known = [folder.config_file, folder.results_file, folder.log_file, *WRITTEN]
    known += (CLEANED,) if isinstance(folder, AuditFolder) else ()
    known += (CONFIG_FILE, WEIGHTS_FILE) if isinstance(folder, Bundle) else ()  # a cut adapter
    for entry in sorted(folder.path.iterdir()):
        if isinstance(folder, SweepFolder) and Run(entry).begun:
            yield from _foreign(Run(entry))
        elif isinstance(folder, RankCurveFolder) and entry.is_dir() and fnmatchcase(entry.name, "r[0-9]*"):
            yield from _foreign(Bundle(entry))
        elif not any(fnmatchcase(entry.name, name) for name in known):
            yield entry
