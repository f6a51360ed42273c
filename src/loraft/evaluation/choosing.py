"""The score that `train.metric` names: it picks checkpoints and settings, and stands beside the others in tables."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from loraft.config.schema import Config
from loraft.evaluation.classification_report import EvaluationReport, classification_report
from loraft.evaluation.intervals import bootstrap
from loraft.evaluation.metrics import (
    ALL_SCORES,
    INTERVAL_SCORES,
    LABEL_F1,
    LOWER_IS_BETTER,
    MULTILABEL_SCORES,
    ORDINAL_SCORES,
    Ints,
    scores_of_one,
)

TABLE_SCORES = ("accuracy", "macro_f1", "macro_precision", "macro_recall")  # in tables whatever the metric is

SHORT = {"mean_absolute_error": "MAE", "quadratic_kappa": "kappa"}  # in narrow tables


@dataclass(frozen=True)
class Metric:
    """A score by which checkpoints and settings are chosen.

    Attributes:
        key: of `metrics.ALL_SCORES`, in reports and files.
        word: its name in tables.
        computed: its name in `metrics.scores_of_many`; of the F1 of one label `label_f1:ID`.
        ordinal: whether the labels are in order, so that `metrics.ORDINAL_SCORES` are shown as well.
    """

    key: str = "macro_f1"
    word: str = ALL_SCORES["macro_f1"]
    computed: str = "macro_f1"
    ordinal: bool = False

    @classmethod
    def of(cls, config: Config) -> "Metric":
        """The metric that a config asks for."""
        name, ordinal = config.train.metric, config.prompt.kind == "ordinal"
        key, label = key_of(name), name.removeprefix("f1:")
        if key == LABEL_F1:
            return cls(key, f"F1 of {label}", f"{key}:{(config.prompt.labels or []).index(label)}", ordinal)
        return cls(key, ALL_SCORES[key], key, ordinal)

    def measured_on(self, references_N: npt.ArrayLike) -> bool:
        """Whether rows with these label ids can measure the metric: the F1 of one label needs rows of it."""
        return self.key != LABEL_F1 or bool((np.asarray(references_N) == int(self.computed.partition(":")[2])).any())

    def compared(self, references_N: npt.ArrayLike) -> tuple[str, ...]:
        """The names in `scores_of_many` of the scores that have intervals and tests on such rows: the metric's last."""
        own = [self.computed] if self.measured_on(references_N) else []
        return tuple(dict.fromkeys((*INTERVAL_SCORES, *own)))

    @property
    def label(self) -> int | None:
        """The id of the label whose F1 it is; None for any other score."""
        return int(self.computed.partition(":")[2]) if self.key == LABEL_F1 else None

    def name(self, score: str) -> str:
        """What tables call a score."""
        return self.word if score == self.key else ALL_SCORES[score]

    def head(self, score: str) -> str:
        """What narrow tables call a score."""
        return SHORT.get(score, self.name(score))

    def shown(self, scores: Iterable[str]) -> list[str]:
        """Those of the scores that tables show, in their order: a metric that is not the default comes first."""
        given = set(scores)
        first = [] if self.key == "macro_f1" else [self.key]
        more = (*MULTILABEL_SCORES, *(ORDINAL_SCORES if self.ordinal else ()))
        order = dict.fromkeys([*first, *TABLE_SCORES, *more])
        return [score for score in order if score in given]

    def columns(self, scores: Iterable[str]) -> dict[str, str]:
        """Those of the scores that are columns of wide tables, with their heads; a line has to fit 100 characters."""
        room = (*(TABLE_SCORES if self.key in TABLE_SCORES else INTERVAL_SCORES), *MULTILABEL_SCORES)
        return {one: self.head(one) for one in self.shown(scores) if one in (self.key, *room)}

    def axis(self) -> tuple[str, str]:
        """The score that figures draw beside accuracy, and the begin of its axis' label, which `)` ends."""
        if self.key in ("accuracy", "macro_f1"):
            return "macro_f1", "macro-F1 (fraction"
        unit = "steps of labels" if self.key in LOWER_IS_BETTER else "at most 1"
        return self.key, f"{self.word} ({unit}"

    def gain(self, value: float) -> float:
        """The value with the sign that makes a greater one the better one."""
        return gain(self.key, value)

    def value(self, counts_KK: Ints) -> float:
        """The metric of one confusion matrix of shape K x (K + 1)."""
        return scores_of_one(counts_KK)[self.computed]

    def added(self, report: EvaluationReport, samples: int, seed: int) -> EvaluationReport:
        """The report with the metric, its interval where the rows can measure it, and the scores of ordered labels.

        Args:
            report: of any predictions.
            samples: resamples of the rows for the interval.
            seed: of the resampling.
        """
        wanted = {one.partition(":")[0]: one for one in (*(ORDINAL_SCORES if self.ordinal else ()), self.computed)}
        missing = {key: one for key, one in wanted.items() if key not in report.intervals}
        if not missing:
            return report
        counts_KK = np.array(report.confusion, dtype=np.int64)
        scores = scores_of_one(counts_KK)
        present = np.flatnonzero(counts_KK.sum(axis=1))
        own = [one for key, one in missing.items() if key != self.key or self.measured_on(present)]
        intervals = bootstrap(counts_KK, samples, report.confidence, seed, own)
        return replace(
            report,
            scores={**report.scores, **{key: scores[one] for key, one in missing.items()}},
            intervals={**report.intervals, **intervals},
        )


DEFAULT = Metric()


def report_for(
    config: Config,
    references_N: npt.ArrayLike,
    probs_NK: npt.ArrayLike | None,
    predictions_N: npt.ArrayLike,
    labels: Sequence[str],
) -> EvaluationReport:
    """All results of predictions with one label a row, with the metric, the intervals and the seed of a config.

    Args:
        config: its `eval` section, `seed` and `train.metric`.
        references_N, probs_NK, predictions_N, labels: as in `classification_report`.
    """
    report = classification_report(
        references_N,
        probs_NK,
        predictions_N,
        labels,
        bootstrap_samples=config.eval.bootstrap_samples,
        confidence=config.eval.confidence,
        seed=config.seed,
    )
    return Metric.of(config).added(report, config.eval.bootstrap_samples, config.seed)


def key_of(name: str) -> str:
    """The key in `metrics.ALL_SCORES` of a metric as `train.metric` names it."""
    return LABEL_F1 if name.startswith("f1:") else name


def gain(key: str, value: float) -> float:
    """The value of a score with the sign that makes a greater one the better one."""
    return -value if key in LOWER_IS_BETTER else value
