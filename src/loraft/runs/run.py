"""The directory of one training run, and how to find one: by name, the newest, or the best trial of a sweep."""

import atexit
import difflib
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from loraft.bundled import bundled_adapters
from loraft.config.names import LONGEST, shortened, show
from loraft.config.schema import Config
from loraft.errors import RunError, listed
from loraft.runs.folders import RunFolder
from loraft.runs.from_hub import HUB, HUB_RUN, fetched
from loraft.runs.lock import working_there
from loraft.runs.study_folders import AuditFolder, FewshotFolder, RankCurveFolder, SweepFolder

MANIFEST_FILE = HUB_RUN.file  # beside the adapter


class Run(RunFolder):
    """The directory of one training run.

    Examples:
        >>> import loraft
        >>> found = loraft.Run.open(run)
        >>> found.finished, found.read_labels()
        (True, ('negative', 'neutral', 'positive'))
    """

    kind = "run"
    config_file, results_file = "config.yaml", "metrics.json"
    marks = (*RunFolder.marks, "before.json", "checkpoints/checkpoint-*", "adapter/adapter_config.json")

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """The run in the folder `path`, finished or not; `hf:owner/name[@revision]` is downloaded, see `from_hub`.

        The name of a bundled adapter means that one, where no folder of this name holds work.

        Raises:
            RunError: there is no such folder, or it is not a run directory.
        """
        run = cls(fetched(str(path)) if str(path).startswith(HUB) else Path(path))
        if str(path) in bundled_adapters() and not _holds_work(run.path):
            run = Bundle(bundled_adapters()[str(path)])
        if not os.path.exists(run.path):  # False, too, for what no folder can be called
            name = str(path)
            named = name if len(name) <= LONGEST and "\0" not in name else show(name)
            raise RunError(f"{named}: no such run; loraft train makes runs")
        if not run.begun and Bundle(run.path).begun:
            return Bundle(run.path)
        if not run.begun and (run.result_is_aside or working_there(run.path)):
            raise RunError(f"{run.path}: the run is not finished (no {cls.results_file}); {run.way_on}")
        if not run.begun:
            if (study := next(_studies_in(run.path), None)) is not None:
                inside = [one.parent.name for one in sorted(study.path.glob(f"*/{MANIFEST_FILE}"))]
                way = (
                    f"name one of its adapters ({listed(inside)})" if inside else "name a run; loraft train makes runs"
                )
                page = f"loraft report {shlex.quote(str(run.path))} shows it"
                raise RunError(f"{run.path}: is {study.a_kind}, not a run; {page}; {way}")
            what = f"is not a run directory (no {cls.config_file} or {MANIFEST_FILE} in it)"
            raise RunError(f"{run.path}: {what}; loraft train makes runs")
        return run

    @property
    def how_to_resume(self) -> str:
        """The command that continues this run, for messages; of a trial of a search the one of the search."""
        search = SweepFolder(self.path.parent)
        if search.journal_path.exists():
            return search.how_to_resume
        return f"loraft train --resume --config {shlex.quote(str(self.config_path))}"

    @property
    def way_on(self) -> str:
        """As in `RunFolder`; a trial of a search that is not the best one is not to be judged on test."""
        search = SweepFolder(self.path.parent)
        if not search.journal_path.exists() or not search.finished or working_there(self.path):
            return super().way_on
        return f"a search judges its best trial alone on test; {search.path} stands for that one"

    @property
    def how_to_begin_again(self) -> str:
        """The command that trains this run from the first step, for messages."""
        return f"loraft train --force --config {shlex.quote(str(self.config_path))} begins again"

    @property
    def checkpoints(self) -> Path:
        """The folder of the trainer's checkpoints."""
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The folder of the adapter and its `loraft.json`, see `models.manifest`."""
        return self.path / "adapter"

    @property
    def predictions_path(self) -> Path:
        """Predictions on the test split, one JSON object a line."""
        return self.path / "predictions.jsonl"

    @property
    def explanations_path(self) -> Path:
        """What the words of the most confident mistakes do to their labels, see `evaluation.explanation`."""
        return self.path / "explanations.json"

    @property
    def before_path(self) -> Path:
        """The backbone's scores before training, kept so that a resumed training need not measure them again."""
        return self.path / "before.json"

    @property
    def start_path(self) -> Path:
        """What the training started from, where that was the adapter of another run."""
        return self.path / "started_from.json"

    @property
    def rows_path(self) -> Path:
        """The fingerprints of the splits that the training was begun with."""
        return self.path / "rows.json"

    @property
    def validated_path(self) -> Path:
        """How a trial of a search was trained, and its scores on validation, see `training.on_validation`."""
        return self.path / "validated.json"

    @property
    def learning_curve_path(self) -> Path:
        """Loss and validation scores over the steps."""
        return self.plots / "learning_curve.png"

    @property
    def confusion_matrix_path(self) -> Path:
        """Reference by predicted label on the test split."""
        return self.plots / "confusion_matrix.png"

    @property
    def reliability_path(self) -> Path:
        """Accuracy over confidence on the test split."""
        return self.plots / "reliability.png"

    def read_labels(self) -> tuple[str, ...]:
        """The label names of a finished run, in id order.

        Raises:
            RunError: the run is not finished, or its results are damaged.
        """
        labels = self.read_results().get("labels")
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise RunError(f"{self.results_path}: labels must be a list of names (got {labels!r}); {self.mend}")
        return tuple(labels)


class Bundle(Run):
    """A folder that holds a `loraft.json` itself: an adapter apart from its run, or merged weights.

    It is used like a finished run. Its config is in that file, see `bundle.config_of`.
    """

    config_file = results_file = MANIFEST_FILE

    @property
    def adapter(self) -> Path:
        """The folder itself."""
        return self.path


class WorkerRun(Run):
    """Stand-in run directory for non-main processes: they read checkpoints, and write only to a temporary folder."""

    def __init__(self, run: Run) -> None:
        super().__init__(Path(tempfile.mkdtemp(prefix="loraft-")))
        atexit.register(shutil.rmtree, self.path, ignore_errors=True)
        self._shared = run.checkpoints

    @property
    def checkpoints(self) -> Path:
        """The folder of the main process's checkpoints."""
        return self._shared


def default_name(config: Config) -> str:
    """The run's name where none is given: backbone, data, task, method, rank and seed."""
    source = Path(config.data.source).name
    backbone = Path(config.model.label).name
    method = "qlora" if config.quant.method == "nf4" else "lora"
    parts = [backbone, source, Path(config.prompt.task).stem, method]
    return f"{shortened('-'.join(parts), LONGEST - 20)}-r{config.lora.r}-s{config.seed}"


def run_of(config: Config) -> Run:
    """The run directory of this config; it may not exist yet."""
    return Run(Path(config.output.folder) / (config.name or default_name(config)))


def newest_finished(output: Path) -> Run:
    """The run in the folder `output` that finished last.

    Raises:
        RunError: there is no finished run.
    """
    runs = _runs_in(output)
    finished = [run for run in runs if run.finished]
    if not finished:
        got = f"got {len(runs)} unfinished" if runs else "got none"
        hint = (
            working_there(runs[0].path) or f"{runs[0].how_to_resume} finishes one"
            if runs
            else "loraft train makes one, --run PATH selects one in another folder, --run demo is one that is bundled"
        )
        raise RunError(f"{output}: no finished run ({got}); {hint}")
    return max(finished, key=lambda run: (run.results_path.stat().st_mtime_ns, run.name))


def find_run(name_or_path: str | Path, output: Path) -> Run:
    """The run of that name in the folder `output`, or at that path, finished or not; for a sweep, its best trial.

    Args:
        name_or_path: name of a run or sweep, sweep and trial joined by "/", path of one of these, or
            `hf:owner/name[@revision]` of one on the hub; or that of a bundled adapter.
        output: the folder that contains the runs.

    Raises:
        RunError: there is no such run (the message suggests the most similar name), or a sweep has no best trial.
    """
    wanted = str(name_or_path)
    if wanted.startswith(HUB):
        return Run.open(wanted)
    paths = places(wanted, output)
    for path in paths:
        if SweepFolder(path).begun:
            return _best_trial(SweepFolder(path))
        if os.path.isdir(path) and (wanted not in bundled_adapters() or _holds_work(path)):
            return Run.open(path)
    if wanted in bundled_adapters():
        return Run.open(wanted)
    names = [run.name for run in _runs_in(output)]
    trials = sorted(Path(output).glob(f"[!.]*/[!.]*/{Run.config_file}")) if os.path.isdir(output) else []
    names += [f"{path.parents[1].name}/{path.parent.name}" for path in trials]
    known = f"runs there: {listed(names)}" if names else "there are no runs yet; loraft train makes one"
    close = [name for name in names if name.split("/")[-1] == wanted]  # a trial that was given without its sweep
    close = close or difflib.get_close_matches(wanted, [*names, *bundled_adapters()], n=1)
    hint = f"did you mean {close[0]}?" if close else known
    if any(os.path.exists(path) for path in paths):
        raise RunError(f"{show(wanted)}: exists, but is no folder of a run; {hint}")
    raise RunError(f"{output}: no such run (got {show(wanted)}); {hint}")


def places(wanted: str, output: Path) -> list[Path]:
    """Where a run or study may lie: under that name in the folder `output`, or at that path."""
    paths = [Path(os.path.expanduser(wanted))] if wanted.strip() else []
    if {*Path(wanted).parts} - {".."}:  # "." and ".." are no names
        paths.insert(0, Path(output) / wanted)
    return paths


def _holds_work(path: Path) -> bool:
    """Whether a folder holds a run, begun or finished, an adapter, or a study."""
    run = Run(path)
    begun = run.begun or Bundle(path).begun or any(_studies_in(path))
    return run.result_is_aside or bool(working_there(path)) or begun


def _studies_in(path: Path) -> Iterator[AuditFolder | RankCurveFolder | FewshotFolder]:
    """The study that was begun in a folder, of the kinds whose adapters are no runs."""
    return (study for kind in (AuditFolder, RankCurveFolder, FewshotFolder) if (study := kind(path)).begun)


def _best_trial(sweep: SweepFolder) -> Run:
    if not sweep.finished:
        raise RunError(f"{sweep.path}: the sweep is not finished; {sweep.way_on}, or name one of its runs")
    results = sweep.read_results()
    best = results.get("best")
    if best is None and "best" in results:
        raise RunError(f"{sweep.path}: no trial of the sweep finished; {sweep.results_path} holds their errors")
    if not isinstance(best, dict) or not isinstance(best.get("name"), str):
        raise RunError(f"{sweep.results_path}: best must name a trial (got {best!r}); {sweep.mend}")
    return Run.open(sweep.path / best["name"])


def _runs_in(output: Path) -> list[Run]:
    folders = sorted(Path(output).iterdir()) if os.path.isdir(output) else []
    return [run for run in map(Run, folders) if run.begun and not run.name.startswith(".")]
