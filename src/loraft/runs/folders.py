"""The base class of result directories: the names of their files, and when an earlier directory may be replaced.

    runs/<run>/      config.yaml   environment.json  log.jsonl    checkpoints/  adapter/ (with loraft.json, README.md)
                     predictions.jsonl  explanations.json  before.json  started_from.json  rows.json  plots/
                     report.html  metrics.json
    runs/<sweep>/    sweep.yaml    environment.json  <trial>/ ...  errors/  joint-<id>/  plots/  sweep.json
                     slurm.sh  slurm.json  slurm/
    runs/<search>/   as of a sweep, with optuna.jsonl, and validated.json in <trial>/
    runs/<folds>/    folds.yaml    environment.json  fold<i>/ ...  errors/  predictions.jsonl  folds.json
    runs/<fewshot>/  fewshot.yaml  environment.json  draws.jsonl  plots/  fewshot.json
    runs/<data>/     plots/  data.json
    runs/<audit>/    audit.yaml    environment.json  rows.sha256  folds-<i>/ ...  predictions.jsonl  audit.json
    runs/<curve>/    curve.yaml    environment.json  r<rank>/ ...  plots/  curve.json

In each, `.lock` is there while a process works in it, and `.replaced` until work that was begun with --force finishes.
The results (`metrics.json`, `sweep.json`, ...) are written last: their existence means that the work is finished. All
files but the logs are written atomically (see `files`), so that a killed process leaves no half file.
"""

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Self

from loraft.config.section import OUTSIDE
from loraft.errors import ConfigError, RunError
from loraft.runs.atomic_files import naming, to_json
from loraft.runs.lock import LOCK_FILE, refuse_locked, working_there
from loraft.runs.records import read_object, write_record

ASIDE = ".replaced"  # where `force` keeps the earlier work


class RunFolder:
    """A directory of results.

    Attributes:
        kind: what it is a directory of, for messages.
        config_file, results_file, log_file: names of its files.
        marks: patterns of files by which, beside the config, such a directory is known; no names that other programs
            also give to their files.
        path: the directory.
    """

    kind: ClassVar[str]
    config_file: ClassVar[str]
    results_file: ClassVar[str]
    log_file: ClassVar[str] = "log.jsonl"
    marks: ClassVar[tuple[str, ...]] = (LOCK_FILE, ASIDE, "environment.json")

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._made = False  # whether the work in it was begun by this object: `discard` deletes no other

    @classmethod
    def create(cls, output: Path, name: str, *, force: bool = False, resume: bool = False) -> Self:
        """Makes the directory `output / name` and returns it.

        With `resume`, files of earlier work stay in it. With `force`, they are moved into a hidden folder in it, and
        deleted only when the new work finishes; until then `discard` can bring them back. The caller holds the lock.

        Args:
            output: the folder that contains the result directories; made if missing.
            name: one path component, or several joined by "/" for the trials of a sweep.
            force: replace earlier work of that name.
            resume: continue unfinished work of that name; start it if there is none.

        Raises:
            ConfigError: both flags are given.
            RunError: the name is not allowed, or something of that name exists and the flags do not allow to continue
                or replace it; nothing is changed.
        """
        if OUTSIDE.search(name):
            raise RunError(f"run name: must name a folder inside {output} (got {name!r}); use letters, digits and -")
        folder = cls(Path(output) / name)
        if folder.check(force=force, resume=resume) and force:
            folder._set_aside()
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder.path}: cannot be made ({error.strerror}); choose another --output") from error
        folder._made = not folder._own_entries()
        return folder

    def check(self, *, force: bool, resume: bool) -> bool:
        """Returns whether the directory holds earlier work, which the flags allow to replace or continue.

        Raises:
            ConfigError: both flags are given.
            RunError: the directory holds earlier work that the flags do not allow to replace or continue, or
                something else; or another process works in it.
        """
        refuse_force_and_resume(force=force, resume=resume)
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path}: is a file, not a folder; choose another --output or name")
        refuse_locked(self.path, force=force)
        # A process killed while it wrote the config leaves a hidden temporary file, which is not earlier work.
        if not self.path.is_dir() or all(entry.name.startswith(".") for entry in self.path.iterdir()):
            return False
        if not self.begun:
            raise RunError(
                f"{self.path}: the folder holds files that are not of {self.a_kind}; choose another --output or name"
            )
        refusal = self.refusal(force=force, resume=resume)
        if refusal is not None:
            raise RunError(f"{self.path}: {refusal}")
        return True

    def refusal(self, *, force: bool, resume: bool) -> str | None:
        """Why the flags do not allow to write over or continue earlier work, with what to do; None if they allow it."""
        if self.finished and resume:
            return f"the {self.kind} is finished, so there is nothing to resume; --force starts it again"
        if self.finished and not force:
            return f"a finished {self.kind} is there; --force deletes it, --set name=NAME keeps both"
        if not force and not resume:
            return f"an unfinished {self.kind} is there; {self.how_to_resume} continues it, --force deletes it"
        return None

    def discard(self) -> None:
        """Undoes `create`, unless there is a checkpoint or a result: deletes the directory, and undoes `force`."""
        if not self._made or self.finished or any((self.path / "checkpoints").glob("checkpoint-*")):
            return
        self._delete_own()
        if self._aside.is_dir():
            for entry in sorted(self._aside.iterdir(), key=self._order, reverse=True):
                os.replace(entry, self.path / entry.name)
            self._aside.rmdir()
        with suppress(OSError):  # the earlier work, or the lock
            self.path.rmdir()

    def _set_aside(self) -> None:
        """Moves the earlier work out of the way; if the process is killed meanwhile, --force goes on with that.

        Unfinished work never takes the place of a finished one that was set aside before: it is deleted.
        """
        kept = self.result_is_aside
        if kept and (self._aside / self.config_file).exists():
            self._delete_own()
            return
        if not kept:
            shutil.rmtree(self._aside, ignore_errors=True)
        self._aside.mkdir(exist_ok=True)
        for entry in sorted(self._own_entries(), key=self._order):
            delete(self._aside / entry.name)
            os.replace(entry, self._aside / entry.name)

    def _delete_own(self) -> None:
        for entry in sorted(self._own_entries(), key=self._order):
            delete(entry)

    def _order(self, entry: Path) -> int:
        """The results first, so that what is left does not count as finished; the config last, by which it is known."""
        return (entry.name == self.config_file) - (entry.name == self.results_file)

    def _own_entries(self) -> list[Path]:
        """Files and folders of the work in the directory, without the lock and the earlier work."""
        entries = self.path.iterdir() if self.path.is_dir() else ()
        return [entry for entry in entries if entry.name not in (LOCK_FILE, self._aside.name)]

    @property
    def _aside(self) -> Path:
        """Where `force` keeps the earlier work."""
        return self.path / ASIDE

    @property
    def result_is_aside(self) -> bool:
        """Whether work that `force` began is not finished, and the finished work before it is kept."""
        return not self.finished and (self._aside / self.results_file).exists()

    def __repr__(self) -> str:
        state = "finished" if self.finished else "not finished" if self.begun else "not begun"
        return f"{type(self).__name__}({str(self.path)!r}: {state})"

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def a_kind(self) -> str:
        """`kind` with its article, for messages."""
        return f"{'an' if self.kind[0] in 'aeiou' else 'a'} {self.kind}"

    @property
    def how_to_resume(self) -> str:
        """The command that continues the work in this directory, for messages."""
        return "the same command with --resume"

    @property
    def way_on(self) -> str:
        """How unfinished work comes to its end, and where the result before it is, for messages."""
        way = working_there(self.path)
        if not way:
            way = f"{self.how_to_resume} continues it"
            if self.result_is_aside and not self.begun:
                way = "run the command that began it again"
        if not self.result_is_aside:
            return way
        return (
            f"{way}; the earlier result, which --force replaces, is in {self._aside}: to have it back, delete all else"
            f" in {self.path} and move what is in {self._aside.name} there"
        )

    @property
    def config_path(self) -> Path:
        """The resolved config; written first."""
        return self.path / self.config_file

    @property
    def environment_path(self) -> Path:
        """Package versions and machine, see `environment`."""
        return self.path / "environment.json"

    @property
    def log_path(self) -> Path:
        """What was measured while the work ran, one JSON object a line."""
        return self.path / self.log_file

    @property
    def plots(self) -> Path:
        """The folder of the PNGs."""
        return self.path / "plots"

    @property
    def report_path(self) -> Path:
        """The page that `loraft report` writes."""
        return self.path / "report.html"

    @property
    def results_path(self) -> Path:
        """The results; written last."""
        return self.path / self.results_file

    @property
    def begun(self) -> bool:
        """Whether there is a config of earlier work; a damaged one counts, so that reading it says what is wrong."""
        return self.config_path.exists()

    @property
    def recognised(self) -> bool:
        """Whether such work made the directory: a config alone may be a file of the user's."""
        return self.config_path.is_file() and any(any(self.path.glob(mark)) for mark in self.marks)

    @property
    def finished(self) -> bool:
        """Whether the results are written; damaged ones count, so that reading them says what is wrong."""
        return self.results_path.exists()

    @property
    def mend(self) -> str:
        """What to do about a damaged file in this directory, for messages."""
        return "run the command that made it again, with --force"

    def append_log(self, row: Mapping[str, Any]) -> None:
        """Adds one line to the log."""
        append_line(self.log_path, row)

    def read_log(self) -> list[dict[str, Any]]:
        """The rows of the log in order; none if there is no log. A line that is not a JSON object is left out.

        Raises:
            RunError: the file cannot be read.
        """
        rows = []
        try:
            text = self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""
        except OSError as error:
            raise RunError(
                f"{self.log_path}: cannot be read ({error.strerror}); move it away, then {self.mend}"
            ) from None
        for line in text.split("\n"):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            rows += [row] if isinstance(row, dict) else []
        return rows

    def read_results(self) -> dict[str, Any]:
        """The JSON object that `finish` wrote, without its `schema_version`.

        Raises:
            RunError: the work is not finished, or the file is damaged or of a later version.
        """
        if not self.finished:
            raise RunError(f"{self.path}: the {self.kind} is not finished; {self.way_on}")
        return read_object(self.results_path, self.mend)

    def finish(self, results: Any) -> None:
        """Writes the results, which marks the work as finished: call it last. Deletes what `force` had kept."""
        write_record(self.results_path, results)
        shutil.rmtree(self._aside, ignore_errors=True)


def refuse_force_and_resume(*, force: bool, resume: bool) -> None:
    """Raises an error if both flags are given.

    Raises:
        ConfigError: both are given.
    """
    if force and resume:
        raise ConfigError("--force and --resume: one deletes what the other continues (got both); give one of them")


def delete(entry: Path) -> None:
    """Deletes a file, a symlink or a whole folder, if it is there."""
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Adds one JSON object as a line to a file."""
    with naming(path), path.open("a+b") as file:
        if file.tell() > 0:  # a killed process may have left half a line: end it first
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(to_json(row, indent=None).encode() + b"\n")
