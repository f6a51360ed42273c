"""A folder of predictions: a file for each part of the inputs, and a journal of the parts that are finished.

The journal, `_predictions.jsonl`, is a line of JSON that says what the predictions depend on, and a line for each
finished part. A file counts once its line is there: what a killed process left without one is written again.
"""

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from loraft.config.names import show
from loraft.data.parts import Part
from loraft.errors import ConfigError, RunError, StorageError
from loraft.evaluation.partial_file import differences
from loraft.runs.lock import LOCK_FILE
from loraft.runs.storage import storage_error

JOURNAL = "_predictions.jsonl"  # programs that read a folder of shards leave names out that begin so
FLAG = "--output-file"
OURS = re.compile(r"\.?part-\d{6,}-\d{6,}(-\d+)?\.[a-z]+")  # a shard, or what a killed process left of one


@dataclass(frozen=True)
class Shard:
    """A part of the inputs, and the file of its predictions.

    Attributes:
        name: of the file; in the order of the names lie the rows of the inputs.
        part: that is predicted.
        changed: when the input was changed and its size, by which a change is noticed.
    """

    name: str
    part: Part
    changed: str

    @classmethod
    def of(cls, part: Part, file: int, suffix: str) -> "Shard":
        """The shard of a part of the input with that number."""
        found = os.stat(part.path)
        return cls(f"part-{file:06}-{part.number:06}{suffix}", part, f"{found.st_mtime_ns} {found.st_size}")


@dataclass(frozen=True)
class Finished:
    """What a finished shard holds.

    Attributes:
        name: of its file.
        changed: as in `Shard`.
        path: of the input.
        rows: in it.
        bad: those of them that could not be read.
        labelled: those that have a label.
        predicted: rows of each predicted label, without a changed prior.
        confidences: rows in each bin of confidence.
    """

    name: str
    changed: str
    path: str
    rows: int
    bad: int
    labelled: int
    predicted: dict[str, int] = field(default_factory=dict)
    confidences: list[int] = field(default_factory=list)


class ShardFolder:
    """The folder of the predictions.

    Args:
        path: of it; it need not exist.

    Attributes:
        path: absolute.
        journal: path of the journal.
        origin: what the predictions there depend on; None without any.
        finished: the finished shards, by name.
        complete: whether no shard is left to do.

    Raises:
        ConfigError: there is something else than a folder of predictions.
        RunError: the journal is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.abspath(path))
        self.journal = self.path / JOURNAL
        self.origin: dict[str, Any] | None = None
        self.finished: dict[str, Finished] = {}
        self.complete = False
        self._end = 0  # of the last whole line
        self._resumes = False
        self._origin: dict[str, Any] = {}
        try:
            names = sorted(one.name for one in self.path.iterdir()) if self.path.exists() else []
        except NotADirectoryError:
            raise ConfigError(f"{FLAG}: is a file (got {path}); --engine ray writes a folder of files") from None
        except OSError as error:
            raise ConfigError(
                f"{FLAG}: cannot be used (got {show(str(path))}: {error.strerror}); name another folder"
            ) from None
        own = [name for name in names if name in (JOURNAL, LOCK_FILE) or (JOURNAL in names and OURS.fullmatch(name))]
        if len(own) < len(names):
            got = self.path / min({*names} - {*own})
            raise ConfigError(f"{FLAG}: the folder holds other files (got {got}); name another folder")
        if JOURNAL in names:
            self._read()
        there = {name: one for name, one in self.finished.items() if name in names}  # somebody may have deleted one
        self.finished, self.complete = there, self.complete and len(there) == len(self.finished)

    @property
    def rows(self) -> int:
        """Rows of the finished shards."""
        return sum(one.rows for one in self.finished.values())

    def _read(self) -> None:
        try:
            with self.journal.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):  # the process was killed while it wrote
                        break
                    value = json.loads(line)
                    if self.origin is None:
                        self.origin = dict(value["origin"])
                    elif "again" in value:
                        for name in value["again"]:
                            self.finished.pop(name, None)
                    elif "complete" not in value:
                        one = Finished(**value)
                        self.finished[one.name] = one
                    self.complete = "complete" in value
                    self._end += len(line)
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{self.journal}: a damaged journal ({error}); delete the folder, and predict again"
            ) from error
        except OSError as error:
            raise RunError(f"{self.journal}: cannot be read ({error.strerror}); check its permissions") from error

    def check(self, origin: Mapping[str, Any], *, resume: bool, force: bool) -> None:
        """Refuses to replace or to mix predictions.

        Args:
            origin: what the new ones depend on.
            resume: go on after the shards that are finished.
            force: begin again.

        Raises:
            ConfigError: there are finished predictions, and neither is given.
            RunError: an earlier prediction can go on, and `resume` is not given or something is not as it was.
        """
        self._origin = json.loads(json.dumps(dict(origin), default=str))
        self._resumes = resume and not force and self.origin == self._origin
        if not (self.finished or self.complete) or force:
            return
        if not resume and self.complete:
            raise ConfigError(f"{FLAG}: holds predictions (got {self.path}); --force replaces them")
        if not resume:
            raise RunError(
                f"{self.path}: an interrupted prediction left {self.rows:,} rows (got no --resume); the same command"
                " with --resume goes on after them, with --force it begins again"
            )
        if not self._resumes:
            changed = differences(self.origin or {}, self._origin)
            raise RunError(
                f"{self.path}: was begun with something else:\n{changed}\ngive the same again, or --force begins again"
            )

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Goes on with the journal inside the block, or begins it; removes files that no line of it names.

        Call `check` before. If the block raises, the error gets a note that says how to go on.

        Raises:
            StorageError: the folder cannot be written to.
        """
        with self._told():
            if not self._resumes:
                self.finished, self._end, self.complete = {}, 0, False
            self.path.mkdir(parents=True, exist_ok=True)
            file = self.journal.open("r+b" if self._end else "wb")
        with file as self._file:
            with self._told():
                self._file.truncate(self._end)
                self._file.seek(self._end)
            if not self._end:
                self._write({"origin": self._origin})
            try:
                self._tidy()
                yield
                self._tidy()
            except BaseException as error:
                if self.rows:
                    error.add_note(
                        f"{self.rows:,} rows are kept in {self.path}; the same command with --resume goes on"
                    )
                raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the file system in the block as messages."""
        try:
            yield
        except OSError as error:
            told = storage_error(error, "run the same command with --resume", self.path)
            raise told or StorageError(f"{self.path}: cannot be used ({error}); name another folder") from error

    def forget_changed(self, shards: Mapping[str, Shard], unread: Collection[str]) -> list[str]:
        """Forgets all shards of an input that is not what it was when one of them was made; returns these inputs.

        Args:
            shards: of the inputs as they are now, by name.
            unread: inputs that cannot be read now, whose shards stay.
        """
        changed: set[str] = set()
        for one in self.finished.values():
            shard = shards.get(one.name)
            if one.path not in unread and (shard is None or shard.changed != one.changed):
                changed.add(one.path)
        names = [one.name for one in self.finished.values() if one.path in changed]
        if names:
            self.complete = False
            self._write({"again": names})
            self.finished = {name: one for name, one in self.finished.items() if one.path not in changed}
            self._tidy()
        return sorted(changed)

    def add(self, one: Finished) -> None:
        """Counts a shard whose file is whole."""
        self.finished[one.name] = one
        self._write(asdict(one))

    def end(self) -> None:
        """Notes that no shard is left to do."""
        if not self.complete:
            self._write({"complete": self.rows})

    _file: BinaryIO

    def _write(self, value: Any) -> None:
        with self._told():
            self._file.write(json.dumps(value, ensure_ascii=False).encode(errors="surrogateescape") + b"\n")
            self._file.flush()

    def _tidy(self) -> None:
        """Removes files that a killed process left: half of one, or one that is in no line of the journal."""
        with self._told():
            for path in self.path.iterdir():
                if path.name not in self.finished and OURS.fullmatch(path.name):
                    path.unlink(missing_ok=True)
