"""What a worker of a Ray cluster does for a sweep; see `ray_pool` for the driver, which starts workers.

A worker is an actor: a process that keeps its loaded backbone, and runs one unit of trials after another. It works in
the driver's folder, or, where its machine does not have that, in a temporary one, whose finished runs come back to the
driver as an archive.
"""

import io
import os
import shutil
import socket
import sys
import tarfile
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loraft.config.yaml_io import dump_config
from loraft.errors import LoraftError, Note, first_line
from loraft.runs.atomic_files import write_text
from loraft.runs.environment import package_versions
from loraft.runs.lock import LOCK_FILE, lent
from loraft.runs.records import write_record
from loraft.runs.run import Run
from loraft.runs.study_folders import SweepFolder
from loraft.studies.sweep.local_engine import run_trials
from loraft.studies.sweep.shared_backbone import SharedBackbone
from loraft.studies.sweep.trials import Trial, is_finished, run_of
from loraft.studies.sweep.units import Unit
from loraft.training import memory

GATHERED = ".gathered"  # in the sweep's folder, while the driver unpacks an archive

Rows = Mapping[str, Mapping[str, str]]  # the fingerprint of each split, by the trial's name


@dataclass(frozen=True)
class Job:
    """What every worker of a sweep must know.

    Attributes:
        folder: of the sweep, as the driver names it.
        directory: the driver's working directory, from which relative paths start.
        lock: content of the lock file that the driver holds in the folder; who reads the same there sees that folder.
        joint, force: as in `run_trials`.
        portion: of its device's memory, for each worker.
        version: of the driver's loraft.
        command: the driver's command line, for the records of the runs.
    """

    folder: Path
    directory: str
    lock: bytes
    joint: str
    force: bool
    portion: float
    version: str | None
    command: tuple[str, ...]


class Worker:
    """A process of the cluster: runs units, one after another, over the backbone that it has loaded.

    Args:
        job: what all workers know.
        lines: the queue of the lines for the user.
    """

    def __init__(self, job: Job, lines: Any) -> None:
        self.job, self.lines = job, lines
        self.host = socket.gethostname()
        self.shared = SharedBackbone(self._tell)
        self.sees = False  # the driver's folder

    def start(self) -> None:
        """Prepares the process; the worker is ready when this returns.

        Raises:
            LoraftError: it has another version of loraft than the driver.
        """
        version = package_versions(["loraft"])["loraft"]
        if version != self.job.version:
            raise LoraftError(
                f"{self.host}: has another version of loraft (got {version}, here {self.job.version});"
                " install the same on all machines"
            )
        with suppress(OSError):  # there is no such folder on this machine
            os.chdir(self.job.directory)
        with suppress(OSError):
            self.sees = (self.job.folder / LOCK_FILE).read_bytes() == self.job.lock
        sys.argv = list(self.job.command)  # ray's own has addresses of the cluster
        memory.portion = self.job.portion
        warnings.filterwarnings("ignore")
        warnings.filterwarnings("default", module="loraft")
        warnings.showwarning = self._warn

    def run(self, unit: Unit, rows: Rows, *, again: bool) -> tuple[dict[str, str], bytes | None]:
        """Runs the trials.

        Args:
            unit: the trials.
            rows: that the driver reads for each of them.
            again: another worker has begun the unit, and was killed; what it finished is kept.

        Returns:
            The error messages of those that failed, by name, and the archive of the others where the driver's folder
            is not seen.
        """
        if self.sees:
            return self._run(unit, SweepFolder(self.job.folder), rows, again=again), None
        with tempfile.TemporaryDirectory(prefix="loraft-sweep-") as output:
            moved = tuple(_moved(trial, output) for trial in unit)
            folder = SweepFolder(run_of(moved[0]).path.parent)
            errors = self._run(moved, folder, rows, again=False)
            return errors, packed(folder, (trial.name for trial in moved if trial.name not in errors))

    def _run(self, unit: Unit, folder: SweepFolder, rows: Rows, *, again: bool) -> dict[str, str]:
        job = self.job
        errors = {trial.name: wrong for trial in unit if (wrong := self._wrong_rows(trial, rows[trial.name]))}
        for name, wrong in errors.items():
            write_text(folder.error_path(name), f"{wrong}\n")
        left = [trial for trial in unit if trial.name not in errors]
        if again and not job.force:
            left = [trial for trial in left if not is_finished(trial)]
        with lent(run_of(trial).path for trial in left):
            return errors | run_trials(
                left, folder, self.shared, job.joint, force=job.force, quiet=True, numbered=False
            )

    def _wrong_rows(self, trial: Trial, rows: Mapping[str, str]) -> str:
        """What is wrong if the data cannot be read here, or is other data than the driver's; "" if nothing is."""
        try:
            here = self.shared.fingerprints(trial.config)
        except Exception as error:  # whatever it is, the other trials go on
            told = first_line(error) if trial.config.output.texts else type(error).__name__
            return f"{self.host}: {told}; the command's machine has read its rows: copy the data to all machines"
        if not (other := [name for name, fingerprint in rows.items() if here[name] != fingerprint]):
            return ""
        return (
            f"{self.host}: {trial.config.data.source} holds other rows there than here (got another"
            f" {' and '.join(other)} split); copy the data to all machines"
        )

    def _tell(self, line: str) -> None:
        with suppress(Exception):  # a lost line is no reason to lose a trial
            self.lines.put(line)

    def _warn(self, message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        self._tell(f"{'note' if issubclass(category, Note) else 'warning'}: {message}")


def _moved(trial: Trial, output: str) -> Trial:
    """The trial with its run in another output folder."""
    section = trial.config.output.model_copy(update={"folder": output})
    return replace(trial, config=trial.config.model_copy(update={"output": section}))


def packed(folder: SweepFolder, names: Iterable[str]) -> bytes:
    """The run folders of these names in the folder of a sweep, and its errors, as the bytes of a tar file."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in names:
            tar.add(folder.path / name, arcname=name)
        for path in folder.path.glob("errors/*.txt"):
            tar.add(path, arcname=f"errors/{path.name}")
    return file.getvalue()


def unpack(archive: bytes, folder: SweepFolder, trials: Iterable[Trial]) -> None:
    """Puts the runs of an archive into the folder of the sweep, each whole or not at all, with the trial's own paths.

    Args:
        archive: as `packed` makes it.
        folder: of the sweep.
        trials: whose runs are in it, with the configs that the driver has.
    """
    aside = folder.path / GATHERED
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(aside, filter="data")
    for trial in trials:
        here, found = run_of(trial), Run(aside / trial.name)
        write_text(found.config_path, dump_config(trial.config))
        write_record(found.results_path, {**found.read_results(), "run": str(here.path)})
        if here.path.exists():  # the folder with the driver's lock, or what an earlier command began
            os.replace(here.path, aside / f"{trial.name}.earlier")
        os.replace(found.path, here.path)
        folder.error_path(trial.name).unlink(missing_ok=True)
    for path in aside.glob("errors/*.txt"):
        write_text(folder.error_path(path.stem), path.read_text(encoding="utf-8"))
    shutil.rmtree(aside)
