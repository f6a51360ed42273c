"""Folders with a run's habits that are no runs, so that `predict` never takes one for a run."""

import tempfile
from pathlib import Path
from typing import Any

from loraft.config import Config
from loraft.errors import RunError
from loraft.resolving import load_resolved
from loraft.runs import Run

# What may differ between a study and its continuation: more draws belong beside those that were measured.
GROWING = {"fewshot.shots", "fewshot.repeats", "output", "name", "preset"}


class FewshotStudy(Run):
    """The folder of a few-shot study.

    runs/<name>/  fewshot.yaml  environment.json  draws.jsonl  plots/  fewshot.json
    """

    @property
    def how_to_resume(self) -> str:
        """The command that goes on with this study."""
        return "the same command with --resume"

    @property
    def config_path(self) -> Path:
        """The resolved config; written first."""
        return self.path / "fewshot.yaml"

    @property
    def log_path(self) -> Path:
        """One JSON object for each draw and baseline that was measured, with its answers as label ids."""
        return self.path / "draws.jsonl"

    @property
    def metrics_path(self) -> Path:
        """The results; written last."""
        return self.path / "fewshot.json"

    def check_begun(self, config: Config) -> None:
        """Whether `--resume` with this config goes on with what was begun here.

        Raises:
            RunError: nothing was begun, or with another config; other numbers of shots and draws are no difference.
        """
        if not self.config_path.is_file():
            raise RunError(
                f"--resume: no study was begun in {self.path}; leave --resume out to begin it, or give the flags of the"
                " study that is meant"
            )
        begun, now = _flat(load_resolved(self.config_path)), _flat(config)
        changed = [f"  {key}: {begun[key]} then, {now[key]} now" for key in now if begun[key] != now[key]]
        if changed:
            raise RunError(
                f"{self.path}: was begun with another configuration:\n" + "\n".join(changed) + "\n"
                "--resume goes on with it as it was begun, --set name=NAME keeps both, --force deletes it"
            )

    def _allow(self, *, force: bool, resume: bool) -> None:
        if not self.config_path.is_file() or (force and resume):
            super()._allow(force=force, resume=resume)
        if force or resume:
            return
        # Two sources of one name share a folder: what is deleted by --force must be told.
        source = load_resolved(self.config_path).data.source
        state, goes_on = (
            ("a finished", "adds the draws that it lacks") if self.finished else ("an unfinished", "continues it")
        )
        raise RunError(
            f"{self.path}: {state} study of {source} is there; {self.how_to_resume} {goes_on}, --force deletes it,"
            " --set name=NAME keeps both"
        )


def fewshot_name(config: Config, run: Path | None) -> str:
    """The study's folder inside `output`: the name given, or what people change between two studies."""
    if config.name is not None:
        return config.name
    parts = ["fewshot", Path(config.model.name).name, Path(config.data.source).name, Path(config.prompt.task).stem]
    parts += [config.fewshot.selection, *(["generate"] if config.eval.decode == "generate" else [])]
    parts += ["nf4"] if config.quant.method == "nf4" else []
    return "-".join([*parts, f"s{config.seed}", *(["with", run.name] if run is not None else [])])


def _flat(config: Config) -> dict[str, Any]:
    content = config.model_dump()
    keys = {name: value for name, value in content.items() if not isinstance(value, dict)}
    for section in content.keys() - keys.keys():
        keys |= {f"{section}.{key}": value for key, value in content[section].items()}
    return {key: value for key, value in sorted(keys.items()) if key not in GROWING}


class Beside(Run):
    """What a process that is not the first takes for the run: a folder of its own, with the first one's checkpoints."""

    def __init__(self, run: Run) -> None:
        super().__init__(Path(tempfile.mkdtemp(prefix="loraft-")))
        self._shared = run.checkpoints

    @property
    def checkpoints(self) -> Path:
        """Written by the first process, read by all."""
        return self._shared
