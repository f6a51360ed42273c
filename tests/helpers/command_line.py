"""The command line called inside the test's process, with doubles for the functions that do a command's work."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.baselines import noted
from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.config.yaml_io import dump_config
from loraft.data.records import BadRow, Example
from loraft.evaluation.classification_report import EvaluationReport, classification_report
from loraft.evaluation.evaluate import Evaluation
from loraft.evaluation.predict import Prediction
from loraft.evaluation.shift import Progress
from loraft.runs.predictions import PredictedRow
from loraft.training.results import ParameterCounts, RunResult, TrainReport

LABELS = ["negative", "neutral", "positive"]
SURE, UNSURE = 0.9, 0.5  # probability of "positive" for a sentence with the word "hay", and for any other

Says = Callable[..., tuple[int, str, str]]  # takes arguments; returns exit code, stdout and stderr


def report(predictions: list[int]) -> EvaluationReport:
    """The report of four rows, whose labels are negative, negative, neutral and positive."""
    return classification_report(
        [0, 0, 1, 2], None, predictions, LABELS, bootstrap_samples=100, confidence=0.95, seed=0
    )  # fmt: skip


@dataclass
class Double:
    """Stands in for `loraft.train`, `evaluate` and `predict`; keeps how it was called."""

    config: Config | None = None
    given: dict[str, Any] = field(default_factory=dict)

    def train(self, config: Config, *, force: bool = False, resume: bool = False, quiet: bool = False) -> RunResult:
        self.config, self.given = config, {"force": force, "resume": resume}
        before, after = report([0, -1, 2, 2]), report([0, 0, 1, 2])
        parameters = ParameterCounts(trainable=10, all=100)
        how = TrainReport(1.0, None, 4, 4, 0.5, 100, 0, True, None, parameters, "fixed, alpha 32")
        return RunResult("runs/của tôi", tuple(LABELS), "loraft-vi-tiny", "0" * 64, {}, before, after, how, noted())

    def evaluate(
        self,
        *,
        config: Config | None = None,
        run: Path | None = None,
        adapter: Path | None = None,
        split: str = "test",
        zero_shot: bool = False,
    ) -> Evaluation:
        self.config, self.given = config, {"run": run, "split": split, "zero_shot": zero_shot}
        self.given |= {"adapter": adapter} if adapter is not None else {}
        rows = (PredictedRow(1, "thầy giảng hay", "positive", "positive"),)
        return Evaluation(report([0, 0, 2, 2]), tuple(LABELS), split, "feedback", {}, rows, baselines=noted())

    def predict(
        self,
        inputs: Iterable[Example | BadRow],
        *,
        run: Path | None = None,
        adapter: Path | None = None,
        min_confidence: float | None = None,
        sets: float | None = None,
        sets_by_label: bool = False,
        prior: Any = None,
        config: Config | None = None,
        wait: float | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Prediction]:
        decisions: dict[str, Any] = {} if sets is None else {"sets": sets, "sets_by_label": sets_by_label}
        decisions |= {} if prior is None else {"prior": prior}
        self.config, self.given = config, {"run": run, "min_confidence": min_confidence, "wait": wait, **decisions}
        self.given |= {"adapter": adapter} if adapter is not None else {}
        progress = progress or Progress()
        for item in inputs:
            progress.rows += 1
            if isinstance(item, BadRow):
                yield Prediction(item.row, "", None, error=item.reason)
                continue
            share = SURE if "hay" in item.text else UNSURE
            label = "positive" if min_confidence is None or share >= min_confidence else None
            probs, inside = {"negative": 1 - share, "positive": share}, ("negative", "positive")
            yield Prediction(item.row, item.text, label, probs, item.extra, set=None if sets is None else inside)


def finished(folder: Path, **given: Any) -> Path:
    """A folder that looks like a finished run; returns its path from the folder above the folder of the runs."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(resolve(**given)), encoding="utf-8")
    (folder / "metrics.json").write_text("{}", encoding="utf-8")
    return folder.relative_to(folder.parents[1])
