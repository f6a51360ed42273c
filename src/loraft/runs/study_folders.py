"""Directories of studies: a sweep, a joint training inside it, a few-shot study, the statistics of a data set.

They share file handling with `Run` but are separate types, so that `predict` never takes one for a run.
"""

import shlex
from fnmatch import fnmatchcase
from pathlib import Path

from loraft.config.resolve import load_config
from loraft.errors import ConfigError
from loraft.runs.folders import RunFolder
from loraft.runs.lock import LOCK_FILE

CLEANED = "*.cleaned.*"  # copies of audited data, in the audit's folder


class SweepFolder(RunFolder):
    """The directory of a sweep: each trial is a run in a folder of its own inside it."""

    kind = "sweep"
    config_file, results_file = "sweep.yaml", "sweep.json"
    marks = (*RunFolder.marks, "sweep.json", "errors/*.txt", "*/environment.json")

    @property
    def how_to_resume(self) -> str:
        """The command that continues this sweep, for messages."""
        return f"loraft sweep --config {shlex.quote(str(self.config_path))}"

    def refusal(self, *, force: bool, resume: bool) -> str | None:
        """None: whether to continue or replace is decided for each trial."""
        return None

    @property
    def figure_path(self) -> Path:
        """The figure of scores over the swept key."""
        return self.plots / "sweep.png"

    @property
    def journal_path(self) -> Path:
        """The trials of a search as Optuna keeps them."""
        return self.path / "optuna.jsonl"

    def error_path(self, trial: str) -> Path:
        """The file with the traceback of a failed trial, which may have failed before it had a directory."""
        return self.path / "errors" / f"{trial}.txt"

    @property
    def slurm_script(self) -> Path:
        """The script that SLURM runs as a job array."""
        return self.path / "slurm.sh"

    @property
    def array_tasks_path(self) -> Path:
        """The trials of each array task."""
        return self.path / "slurm.json"

    @property
    def slurm_logs(self) -> Path:
        """The folder of the logs of the array tasks."""
        return self.path / "slurm"

    def array_task(self, number: int) -> Path:
        """The folder that an array task locks while it works."""
        return self.slurm_logs / str(number)

    def array_tasks_begun(self) -> dict[int, Path]:
        """The numbers of the array tasks that may be at work, and the folders that they have locked."""
        found = [lock.parent for lock in self.slurm_logs.glob(f"*/{LOCK_FILE}")]
        return {int(folder.name): folder for folder in found if folder.name.isdecimal()}

    def joint_pass(self, identifier: str) -> "JointPass":
        """The directory of a joint training of some of the trials."""
        return JointPass(self.path / f"joint-{identifier}")

    def joint_passes(self) -> list["JointPass"]:
        """The joint trainings whose trials are not all finished runs yet."""
        return [JointPass(path) for path in sorted(self.path.glob("joint-*")) if JointPass(path).begun]


class FoldsFolder(SweepFolder):
    """The directory of a training by folds: each fold is a run in a folder of its own inside it."""

    kind = "training by folds"
    config_file, results_file = "folds.yaml", "folds.json"
    marks = (*SweepFolder.marks, "folds.json")

    @property
    def how_to_resume(self) -> str:
        """The command that continues this training, for messages."""
        try:  # the config of a fold says which one of how many it is
            fold = load_config(self.path / "fold1" / "config.yaml").data.fold
        except ConfigError:
            fold = None
        folds = (fold or "1/K").partition("/")[2]
        return f"loraft train --folds {folds} --config {shlex.quote(str(self.config_path))}"

    @property
    def predictions_path(self) -> Path:
        """The out-of-fold prediction of each row, one JSON object a line."""
        return self.path / "predictions.jsonl"


class RankCurveFolder(RunFolder):
    """The directory of a rank curve: each cut adapter is a bundle in a folder of its own inside it."""

    kind = "rank curve"
    config_file, results_file = "curve.yaml", "curve.json"
    marks = (*RunFolder.marks, "curve.json")

    @property
    def how_to_resume(self) -> str:
        """The command that makes it anew, for messages."""
        return "the same loraft sweep --from"

    def refusal(self, *, force: bool, resume: bool) -> str | None:
        """As in `RunFolder`, but what is not finished is written over: it takes seconds."""
        return super().refusal(force=force, resume=resume) if self.finished else None

    @property
    def figure_path(self) -> Path:
        """The figure of scores over the rank."""
        return self.plots / "curve.png"


class JointPass(RunFolder):
    """The directory of a joint training of several trials; it is deleted when each trial has a run directory.

    joint-<id>/  members.json  log-<number>.jsonl  checkpoints/  best/  joint.json
    """

    kind = "joint training"
    config_file, results_file = "members.json", "joint.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of the trainer's checkpoints."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """The best weights of each adapter."""
        return self.path / "best"

    def log_of(self, number: int) -> Path:
        """The log of the adapter with that number."""
        return self.path / f"log-{number}.jsonl"


class FewshotFolder(RunFolder):
    """The directory of a few-shot study; `draws.jsonl` has a line for each measured draw, with its predictions."""

    kind = "study"
    config_file, results_file, log_file = "fewshot.yaml", "fewshot.json", "draws.jsonl"
    marks = (*RunFolder.marks, "draws.jsonl", "fewshot.json")

    def refusal(self, *, force: bool, resume: bool) -> str | None:
        """As in `RunFolder`, but a finished study may be resumed too, to add draws or numbers of shots."""
        if force or resume:
            return None
        # Two data sources may give studies the same name: the message says which one --force would delete.
        source = load_config(self.config_path).data.source
        state, effect = "an unfinished", "continues it"
        if self.finished:
            state, effect = "a finished", "adds the draws that it lacks"
        return (
            f"{state} study of {source} is there; {self.how_to_resume} {effect}, --force deletes it,"
            " --set name=NAME keeps both"
        )

    @property
    def figure_path(self) -> Path:
        """The figure of scores over the number of demonstrations."""
        return self.plots / "fewshot.png"


class DatasetFolder(RunFolder):
    """The directory of a data set's statistics; they are computed again each time, so it has no config of its own."""

    kind = "description of a data set"
    config_file = results_file = "data.json"

    def lengths_figure(self, column: str) -> Path:
        """The figure of sentence lengths by the values of a column."""
        word = "".join(c if c.isalnum() or c in "-_" else "_" for c in column)
        return self.plots / f"lengths_by_{word}.png"


class AuditFolder(RunFolder):
    """The directory of an audit: what each fold's adapter says of the rows that it did not learn, and the result."""

    kind = "audit"
    config_file, results_file = "audit.yaml", "audit.json"
    marks = (*RunFolder.marks, "audit.json", "folds-*")

    @property
    def how_to_resume(self) -> str:
        """The command that continues this audit, for messages."""
        split = self.rows_path.read_text(encoding="utf-8").partition("  ")[2].strip() if self.rows_path.exists() else ""
        given = f" --split {shlex.quote(split)}" if split not in ("", "train") else ""
        return f"loraft audit --config {shlex.quote(str(self.config_path))}{given}"

    def refusal(self, *, force: bool, resume: bool) -> str | None:
        """None: the same command goes on, or shows the results again."""
        return None

    @property
    def rows_path(self) -> Path:
        """The fingerprint of the rows that are audited, and the name of their split."""
        return self.path / "rows.sha256"

    def _own_entries(self) -> list[Path]:
        """As in `RunFolder`, without cleaned copies: `force` keeps what may be somebody's data."""
        return [entry for entry in super()._own_entries() if not fnmatchcase(entry.name, CLEANED)]

    def fold_pass(self, folds: range) -> "JointPass":
        """The directory of the training of the adapters of these folds."""
        return JointPass(self.path / f"folds-{'-'.join(str(fold + 1) for fold in folds)}")
