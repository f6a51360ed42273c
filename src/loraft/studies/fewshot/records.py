"""Records of a few-shot study: a measured draw, a row of the table, a comparison of rows, and the whole study."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from loraft.data.dataset import SplitSummary
from loraft.display.tabled import Measured, Tabled
from loraft.evaluation.choosing import DEFAULT, Metric
from loraft.evaluation.classification_report import EvaluationReport
from loraft.evaluation.intervals import Difference, Spread
from loraft.evaluation.metrics import ALL_SCORES
from loraft.runs.records import Flat, FolderResult

_REPORT = (*ALL_SCORES, *(field.name for field in fields(EvaluationReport) if field.name != "scores"))


@dataclass(frozen=True)
class DrawRecord(Flat, report=_REPORT):
    """One measurement: a baseline, or a model with the demonstrations of one draw.

    In JSON the fields of `report` are on the same level as the other fields.

    Attributes:
        model: `backbone`, `adapter`, or the name of a baseline.
        shots: demonstrations in the prompt; None for a baseline.
        draw: number of the draw, from 0.
        report: scores on the test split.
        train_rows: numbers of the training rows in the prompt, in its order; None for a baseline, and where each test
            row has demonstrations of its own.
        predictions: label ids on the test split, -1 for no label; written to the study's log only.
        sources: hash of the rows, and of the adapter, that were measured; written to the study's log only.
        demonstrations_cut: share of the demonstrations' tokens that were left out to fit the prompt.
    """

    model: str
    shots: int | None
    draw: int
    report: EvaluationReport
    train_rows: tuple[int, ...] | None = None
    predictions: tuple[int, ...] = ()
    sources: str = ""
    demonstrations_cut: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The fields, with those of the report on the same level; without predictions and sources where empty."""
        content = super().to_json()
        return {key: value for key, value in content.items() if key not in ("predictions", "sources") or value}


@dataclass(frozen=True)
class TableRow(Flat, scores=ALL_SCORES):
    """One row of the table: a baseline, or a model with one number of shots, over all its draws.

    In JSON the scores are on the same level as the other fields.

    Attributes:
        name: as shown in the table.
        model: `backbone`, `adapter` or `baseline`.
        shots: demonstrations in the prompt; None for a baseline.
        draws: number of draws.
        tokens: length of the longest prompt with its answer; None for a baseline.
        no_label: share of answers that are no label, mean over draws.
        seconds: that all draws took together.
        scores: as in `EvaluationReport`.
        demonstrations_cut: share of the demonstrations' tokens that were left out to fit the prompt, mean over draws.
        truncated, cut: test rows that were shortened, and the share of all rows' tokens left out; means over draws.
    """

    name: str
    model: str
    shots: int | None
    draws: int
    tokens: int | None
    no_label: float
    seconds: float
    scores: dict[str, Spread]
    demonstrations_cut: float = 0.0
    truncated: float = 0.0
    cut: float = 0.0


@dataclass(frozen=True)
class ComparedRows(Flat, differences=ALL_SCORES):
    """Differences in scores between two rows of the table on the same test rows: of `of`, minus those of `against`.

    In JSON the differences are on the same level as the other fields.
    """

    of: str
    against: str
    differences: dict[str, Difference]


@dataclass(frozen=True, repr=False)
class FewshotResult(Tabled, FolderResult):
    """The results of a few-shot study, as in `fewshot.json`: its settings, the table, the comparisons, every draw.

    Attributes:
        path: the study's directory.
        backbone: name of the model.
        run: directory of the run whose adapter was measured; None without an adapter.
        task, labels, source: name of the task, its labels in id order, and the data source.
        data: rows and notes of the train and the test split.
        selection: how demonstrations were selected: `random`, `balanced` or `nearest`.
        repeats: draws for each number of shots.
        decode: `score` or `generate`.
        confidence: coverage of the intervals, in (0, 1).
        rows: the table.
        compared: comparisons of its best rows.
        verdict: whether fine-tuning pays, in two sentences.
        draws: every measurement but those of the baselines.
        metric: by which the best rows are chosen.
        order: `fewshot.order`; earlier versions had `shuffled` alone.
    """

    kind: Literal["fewshot"] = field(default="fewshot", kw_only=True)  # first in the file
    path: str
    backbone: str
    run: str | None
    task: str
    labels: tuple[str, ...]
    source: str
    data: dict[str, SplitSummary]
    selection: str
    repeats: int
    seed: int
    decode: str
    confidence: float
    rows: tuple[TableRow, ...]
    compared: tuple[ComparedRows, ...]
    verdict: str
    draws: tuple[DrawRecord, ...]
    metric: Metric = DEFAULT
    order: str = "shuffled"

    @property
    def order_told(self) -> tuple[str, ...]:
        """The order of a prompt's demonstrations in words, where it is not the usual one."""
        return ("demonstrations stand in the order drawn",) if self.order == "drawn" else ()

    def _table(self) -> tuple[str, list[dict[str, Any]]]:
        rows = []
        for row in self.rows:
            found: dict[str, Any] = {"name": row.name}
            for name, score in row.scores.items():
                found[name] = Measured(score.mean, score.interval, score.sd)
            rows.append(found | {"shots": row.shots, "draws": row.draws, "seconds": row.seconds})
        return f"{self.path}; {self.verdict}", rows
