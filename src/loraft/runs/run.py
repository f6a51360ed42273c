"""Run directories: one folder a run, in which the existence of `metrics.json` means that the run finished.

    runs/<name>/  config.yaml  environment.json  log.jsonl  checkpoints/  adapter/  predictions.jsonl  plots/
                  metrics.json

Every file but the log is written beside its place and renamed into it, so that a killed process leaves no half file.
"""

import difflib
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loraft.config.schema import Config
from loraft.errors import RunError
from loraft.runs.files import to_json, write_json


class Run:
    """One run directory. Made by `Run.create` or found by `Run.open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made = False  # by this object, so that `give_back` takes nothing else away

    @classmethod
    def create(cls, output: Path, name: str, *, force: bool = False, resume: bool = False) -> "Run":
        """The directory `output / name`, made empty, or as it is with `resume`.

        With `force` the earlier run is set aside, and deleted only when the new one finishes.

        Args:
            output: the folder that holds the runs; made if missing.
            name: one path component, or several joined by "/" for the trials of a sweep.
            force: delete what an earlier run of that name left.
            resume: go on in an unfinished run of that name; start it if there is none.

        Raises:
            RunError: a run of that name is there and the flags do not say what to do with it, or the folder holds
                something that is no run; nothing is changed then.
        """
        if force and resume:
            raise RunError("--force and --resume: one deletes what the other continues; give one of them")
        if not name or Path(name).is_absolute() or any(part in ("", ".", "..") for part in name.split("/")):
            raise RunError(f"run name: not a name for a folder inside {output} (got {name!r}); use letters and digits")
        run = cls(Path(output) / name)
        if run.check(force=force, resume=resume):
            if force:
                shutil.rmtree(run._aside, ignore_errors=True)
                os.replace(run.path, run._aside)
        elif run.path.exists() and not run.path.is_dir():
            raise RunError(f"{run.path}: a file is in the way; choose another --output or name")
        run._made = not run.path.exists()
        try:
            run.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{run.path}: cannot be made ({error.strerror}); choose another --output") from error
        return run

    @classmethod
    def open(cls, path: Path) -> "Run":
        """The run that lies at `path`, finished or not.

        Raises:
            RunError: there is no folder, or it is no run.
        """
        run = cls(Path(path))
        if not run.config_path.is_file():
            what = "has no config.yaml, so it is no run" if run.path.is_dir() else "no such run"
            raise RunError(f"{run.path}: {what}; runs are made by loraft train")
        return run

    def check(self, *, force: bool, resume: bool) -> bool:
        """Whether something is there already, which the flags allow to be replaced or continued.

        Raises:
            RunError: the flags do not say what to do with it.
        """
        # A process killed while it wrote the config leaves a hidden file, which is nothing to protect.
        if not self.path.is_dir() or all(entry.name.startswith(".") for entry in self.path.iterdir()):
            return False
        self._allow(force=force, resume=resume)
        return True

    def _allow(self, *, force: bool, resume: bool) -> None:
        if not self.config_path.is_file():
            raise RunError(f"{self.path}: the folder holds something that is no run; choose another --output or name")
        if self.finished and resume:
            raise RunError(f"{self.path}: the run is finished; there is nothing to resume, --force starts it again")
        if self.finished and not force:
            raise RunError(f"{self.path}: a finished run is there; --force deletes it, --set name=NAME keeps both")
        if not force and not resume:
            raise RunError(
                f"{self.path}: an unfinished run is there; {self.how_to_resume} continues it, --force deletes it"
            )

    def give_back(self) -> None:
        """Undoes `create` where no step was trained: the new folder goes, the one that `force` set aside returns."""
        if not self._made or self.finished or any(self.checkpoints.glob("checkpoint-*")):
            return
        shutil.rmtree(self.path, ignore_errors=True)
        if self._aside.exists():
            os.replace(self._aside, self.path)

    @property
    def _aside(self) -> Path:
        return self.path.with_name(f".{self.path.name}.replaced")

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def how_to_resume(self) -> str:
        """The command that goes on with this run."""
        return f"loraft train --resume --config {shlex.quote(str(self.config_path))}"

    @property
    def config_path(self) -> Path:
        """The resolved config; written first."""
        return self.path / "config.yaml"

    @property
    def environment_path(self) -> Path:
        """Versions and machine."""
        return self.path / "environment.json"

    @property
    def log_path(self) -> Path:
        """What training logged, one JSON object a line."""
        return self.path / "log.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of the trainer's checkpoints."""
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The folder of the adapter and its bundle."""
        return self.path / "adapter"

    @property
    def predictions_path(self) -> Path:
        """Predictions on the test split."""
        return self.path / "predictions.jsonl"

    @property
    def plots(self) -> Path:
        """The folder of the PNGs."""
        return self.path / "plots"

    @property
    def metrics_path(self) -> Path:
        """The results; written last."""
        return self.path / "metrics.json"

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.metrics_path.is_file()

    def append_log(self, row: Mapping[str, Any]) -> None:
        """Adds one line to the log."""
        with self.log_path.open("a+b") as file:
            if file.tell() > 0:  # a killed process may have left half a line
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(to_json(row, indent=None).encode() + b"\n")

    def read_log(self) -> list[dict[str, Any]]:
        """The log's rows in order, none if there is no log; half lines are left out."""
        rows = []
        if self.log_path.is_file():
            for line in self.log_path.read_text(encoding="utf-8", errors="replace").split("\n"):
                try:
                    rows.append(json.loads(line))
                except json.JSONDecodeError:
                    continue
        return rows

    def read_metrics(self) -> dict[str, Any]:
        """What `finish` wrote.

        Raises:
            RunError: the run is not finished.
        """
        if not self.finished:
            raise RunError(f"{self.path}: the run is not finished; {self.how_to_resume} continues it")
        result: dict[str, Any] = json.loads(self.metrics_path.read_text(encoding="utf-8"))
        return result

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Writes the results, which marks the run as finished: call it last."""
        write_json(self.metrics_path, metrics)
        shutil.rmtree(self._aside, ignore_errors=True)


def default_name(config: Config) -> str:
    """A name for the run directory that tells the settings people change apart."""
    source = Path(config.data.source).name
    backbone = Path(config.model.name).name
    method = "qlora" if config.quant.method == "nf4" else "lora"
    return f"{backbone}-{source}-{Path(config.prompt.task).stem}-{method}-r{config.lora.r}-s{config.seed}"


def run_of(config: Config) -> Run:
    """The run that this config names, there or not."""
    return Run(Path(config.output) / (config.name or default_name(config)))


def newest_finished(output: Path) -> Run:
    """The run in `output` that finished last.

    Raises:
        RunError: there is none.
    """
    runs = _runs_in(output)
    finished = [run for run in runs if run.finished]
    if not finished:
        got = f"got {len(runs)} unfinished" if runs else "got none"
        hint = (
            f"{runs[0].how_to_resume} finishes one"
            if runs
            else "loraft train makes one, --run PATH names one elsewhere"
        )
        raise RunError(f"{output}: no finished run ({got}); {hint}")
    return max(finished, key=lambda run: (run.metrics_path.stat().st_mtime_ns, run.name))


def find_run(name_or_path: str | Path, output: Path) -> Run:
    """The run of that name inside `output`, or the one at that path, finished or not; of a sweep its best trial.

    Raises:
        RunError: there is none; the message names the nearest.
    """
    for path in (Path(output) / name_or_path, Path(name_or_path).expanduser()):
        if (path / "sweep.yaml").is_file():
            return _best_trial(path)
        if path.is_dir():
            return Run.open(path)
    names = [run.name for run in _runs_in(output)]
    trials = [path.parent for path in sorted(Path(output).glob("[!.]*/[!.]*/config.yaml"))]
    names += [f"{path.parent.name}/{path.name}" for path in trials]
    wanted = str(name_or_path)
    close = [name for name in names if name.split("/")[-1] == wanted]  # of a sweep, where the trial alone was named
    close = close or difflib.get_close_matches(wanted, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"runs there: {', '.join(names) or 'none, loraft train makes one'}"
    raise RunError(f"{output}: no such run (got {str(name_or_path)!r}); {hint}")


def _best_trial(sweep: Path) -> Run:
    results = sweep / "sweep.json"
    if not results.is_file():
        raise RunError(f"{sweep}: the sweep is not finished; the same command goes on with it, or name one of its runs")
    best = json.loads(results.read_text(encoding="utf-8"))["best"]
    if best is None:
        raise RunError(f"{sweep}: no trial of the sweep finished; {results} holds their errors")
    return Run.open(sweep / best["name"])


def _runs_in(output: Path) -> list[Run]:
    folders = sorted(Path(output).iterdir()) if Path(output).is_dir() else []
    return [run for run in map(Run, folders) if run.config_path.is_file() and not run.name.startswith(".")]


class Beside(Run):
    """What a process that is not the first takes for the run: a folder of its own, with the first one's checkpoints."""

    def __init__(self, run: Run) -> None:
        super().__init__(Path(tempfile.mkdtemp(prefix="loraft-")))
        self._shared = run.checkpoints

    @property
    def checkpoints(self) -> Path:
        """Written by the first process, read by all."""
        return self._shared
