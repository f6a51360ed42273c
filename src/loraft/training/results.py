"""Records of a training: how it went, and the results of its run (`metrics.json`). Read without torch by reports."""

from dataclasses import dataclass
from typing import Any, Self

from loraft.data.dataset import SplitSummary
from loraft.display.tabled import Measured, Tabled
from loraft.evaluation.baselines import Baselines
from loraft.evaluation.classification_report import EvaluationReport
from loraft.runs.from_hub import short_name
from loraft.runs.records import read_record, record_from
from loraft.runs.run import Run


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of weights: those that are trained, and all."""

    trainable: int
    all: int


@dataclass(frozen=True)
class JointShare:
    """An adapter's part in a joint training: its name in peft, how many adapters there were, seconds of the whole."""

    name: str
    adapters: int
    seconds: float


@dataclass(frozen=True)
class TrainReport:
    """How a training went.

    `seconds` and `tokens_computed` are those of all the steps that the adapter rests on, whichever process made them;
    what an interrupted process had not saved is not in them.

    Attributes:
        seconds: of training, evaluations and checkpoints among them; of a joint training an equal share.
        resumed_from_step: None where it was not resumed.
        steps: optimizer steps.
        best_step: whose weights are kept: after it the adapter scored best on validation, or with `kept` "last" it is
            the last one; None where nothing was saved.
        validation_macro_f1: of that step, a fraction.
        validation_score: `train.metric` after that step, which chose it with `kept` "best"; None in files of earlier
            versions, which chose by macro F1.
        tokens_computed: that went through the backbone.
        truncated: training sentences that were shortened to fit the prompt.
        cut: share of all their tokens that were left out; None in files of earlier versions.
        shared_prefix: whether batches shared the computation of their prompt.
        peak_memory_mib: None where it is not known.
        alpha_policy: how the scale of the update follows the rank, in words.
        joint: None where the adapter was trained alone.
        learning_rate: the highest of the schedule; None in files of earlier versions.
        kept: `train.keep`; None in files of earlier versions, which kept the best.
    """

    seconds: float
    resumed_from_step: int | None
    steps: int
    best_step: int | None
    validation_macro_f1: float | None
    tokens_computed: int
    truncated: int
    shared_prefix: bool
    peak_memory_mib: int | None
    parameters: ParameterCounts
    alpha_policy: str
    joint: JointShare | None = None
    learning_rate: float | None = None
    validation_score: float | None = None
    cut: float | None = None
    kept: str | None = None


@dataclass(frozen=True)
class StartedFrom:
    """The finished run whose adapter a training went on from: its directory, and the hash of its weights."""

    run: str
    adapter_sha256: str


@dataclass(frozen=True, repr=False)
class RunResult(Tabled):
    """The results of a run.

    Attributes:
        run: its directory.
        labels: names of the K labels, in id order.
        backbone, backbone_fingerprint: name, and hash of the weights without the adapter.
        data: of each split.
        before: the backbone zero-shot on the test split, or with the adapter that the training started from; None
            where it was not measured.
        after: the backbone with the adapter on the test split.
        train: how the training went.
        baselines: majority label and linear SVM on the test split; None where `eval.baselines` leaves them out, and in
            files of earlier versions.
        warnings: what the scores hide, in sentences; see `evaluation.advice`.
        started_from: the adapter that the training went on from; None for a fresh one.
    """

    run: str
    labels: tuple[str, ...]
    backbone: str
    backbone_fingerprint: str
    data: dict[str, SplitSummary]
    before: EvaluationReport | None
    after: EvaluationReport
    train: TrainReport
    baselines: Baselines | None = None
    warnings: tuple[str, ...] = ()
    started_from: StartedFrom | None = None

    @property
    def before_is(self) -> str:
        """What `before` are the scores of, in a word: zero-shot, or the name of the earlier run."""
        return "zero-shot" if self.started_from is None else short_name(self.started_from.run)

    def _table(self) -> tuple[str, list[dict[str, Any]]]:
        before = {} if self.before is None else self.before.all_scores
        rows = [
            {"score": name, "before": before.get(name), "after": Measured(value, self.after.intervals.get(name))}
            for name, value in self.after.all_scores.items()
        ]
        return f"{self.run}, {self.after.n:,} test rows, before: {self.before_is}", rows

    @classmethod
    def of(cls, run: Run) -> Self:
        """The results of a finished run.

        Raises:
            RunError: the run is not finished, or its results are damaged or of a later version.
        """
        content = {**run.read_results(), "run": str(run.path)}  # it may have been renamed since
        return record_from(content, cls, run.results_path, run.mend)


def earlier_scores(run: Run) -> EvaluationReport | None:
    """The backbone's scores that an interrupted run measured; None if it had not come so far.

    Raises:
        RunError: they are damaged, or of a later version.
    """
    if not run.before_path.exists():
        return None
    return read_record(run.before_path, EvaluationReport, "delete it: it is measured again")
