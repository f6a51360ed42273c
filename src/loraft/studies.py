"""The folders of studies: a run's habits under other names, so that `predict` never takes a study for a run."""

from pathlib import Path

from loraft.runs import Run


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
        """One JSON object for each draw that was measured."""
        return self.path / "draws.jsonl"

    @property
    def metrics_path(self) -> Path:
        """The results; written last."""
        return self.path / "fewshot.json"
