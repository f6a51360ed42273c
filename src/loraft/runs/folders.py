"""The sweep: trials one after the other in one process, over one backbone.

    runs/<sweep>/  sweep.yaml  environment.json  <trial>/  <trial>/ ...  plots/  sweep.json

Each trial is an ordinary run, a pure function of its own config, so a finished one is kept, an interrupted one goes on,
and a sweep that is asked for more ranks trains only those. `sweep.json` is written last.
"""

from pathlib import Path
from typing import Any

from loraft.config.resolve import load_resolved
from loraft.config.schema import Config
from loraft.errors import RunError
from loraft.runs.run import Run


class Sweep(Run):
    """A sweep's directory: a run's habits under other names, so that `predict` never takes it for a run."""

    @property
    def how_to_resume(self) -> str:
        """The command that goes on with this sweep."""
        return "the same command"

    @property
    def config_path(self) -> Path:
        """The config that the trials were made from."""
        return self.path / "sweep.yaml"

    @property
    def metrics_path(self) -> Path:
        """The results; written last."""
        return self.path / "sweep.json"

    def _allow(self, *, force: bool, resume: bool) -> None:
        # What a sweep may overwrite is decided trial by trial.
        if not self.config_path.is_file():
            raise RunError(f"{self.path}: the folder holds something that is no sweep; choose another --output or name")


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
        begun, now = flat(load_resolved(self.config_path)), flat(config)
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


def flat(config: Config) -> dict[str, Any]:
    """Dotted keys and values of a config, without those that a continued study may change."""
    content = config.model_dump()
    keys = {name: value for name, value in content.items() if not isinstance(value, dict)}
    for section in content.keys() - keys.keys():
        keys |= {f"{section}.{key}": value for key, value in content[section].items()}
    return {key: value for key, value in sorted(keys.items()) if key not in GROWING}


class _Log(Run):
    """A log by itself."""

    @property
    def log_path(self) -> Path:
        """The file."""
        return self.path


class Joint(Run):
    """The folder of a pass, which is no run."""

    @property
    def metrics_path(self) -> Path:
        """The reports by trial; written when the training is over."""
        return self.path / "joint.json"

    def log_of(self, number: int) -> Run:
        """Something that writes the log of one adapter."""
        return _Log(self.path / f"log-{number}.jsonl")

    @property
    def best(self) -> Path:
        """The best weights of each adapter."""
        return self.path / "best"
