"""Records of a rank curve, one trained adapter cut to lower ranks, as in `curve.json`. Read without torch."""

from dataclasses import dataclass, field
from typing import Literal

from loraft.evaluation.choosing import DEFAULT, Metric
from loraft.evaluation.equivalence import Equivalence
from loraft.evaluation.metrics import ALL_SCORES
from loraft.evaluation.shares import Interval
from loraft.runs.records import Flat, FolderResult


@dataclass(frozen=True)
class CurvePoint(Flat, scores=ALL_SCORES):
    """An adapter of some rank, and its scores on the test split.

    Attributes:
        rank: of the adapter.
        made: trained, or cut from the trained adapter of the largest rank.
        run: its directory: a run of a trained one, a bundle of one that was cut.
        trainable_parameters: weights of the adapter.
        scores, intervals: as in `EvaluationReport`.
        energy: share of the update's squared Frobenius norm that the cut keeps; None for other trained adapters.
        to_full: the metric minus that of the adapter that was cut; None for that adapter itself.
        to_trained: of a cut one, the metric minus that of the trained one of the same rank; None where there is none.
    """

    rank: int
    made: Literal["trained", "cut"]
    run: str
    trainable_parameters: int
    scores: dict[str, float]
    intervals: dict[str, Interval]
    energy: float | None
    to_full: Equivalence | None
    to_trained: Equivalence | None


@dataclass(frozen=True)
class RankCurve(FolderResult):
    """The scores of an adapter over the ranks that it was cut to.

    Attributes:
        path: of its directory.
        source: run directory of the adapter that was cut.
        rank: of that adapter.
        backbone, quant, data, task, labels: of that run.
        n: test rows.
        confidence: coverage of the points' intervals.
        margin: of the equivalences, a fraction.
        points: by rank; of one rank the trained adapter first.
        training_seconds: of the adapter that was cut.
        seconds: of cutting and scoring all ranks.
        together: whether one batch scored all ranks.
        metric: that is compared.
    """

    kind: Literal["rank curve"] = field(default="rank curve", kw_only=True)  # first in the file
    path: str
    source: str
    rank: int
    backbone: str
    quant: str
    data: str
    task: str
    labels: tuple[str, ...]
    n: int
    confidence: float
    margin: float
    points: tuple[CurvePoint, ...]
    training_seconds: float
    seconds: float
    together: bool
    metric: Metric = DEFAULT
