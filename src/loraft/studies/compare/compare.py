"""`loraft.compare`: compares finished runs row by row on the same test rows.

Shapes: N test rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loraft.config.resolve import load_config
from loraft.display.tabled import Measured, Tabled
from loraft.errors import RunError
from loraft.evaluation import advice, metrics, significance, verdicts
from loraft.evaluation.baselines import Baselines
from loraft.evaluation.choosing import DEFAULT, Metric
from loraft.evaluation.intervals import Difference
from loraft.evaluation.shares import percent
from loraft.runs.predictions import RunPredictions, difference_of_rows, read_predictions
from loraft.runs.records import flattened, record_from
from loraft.runs.run import Bundle, Run

OUTCOMES = ("mended", "broken", "wrong in both")  # of a row that two runs answer differently, in the order of tables


@dataclass(frozen=True)
class ComparedScores:
    """The scores of a run that are compared, as fractions.

    In JSON they are on the same level as `run`, the run's directory, and `baselines`, None where its results hold none.
    """

    run: str
    scores: dict[str, float]
    baselines: Baselines | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields, with the scores on the same level."""
        return flattened(self, "scores")


@dataclass(frozen=True)
class McNemar:
    """Exact McNemar test of a run against the first one.

    Attributes:
        b: rows that only the run has right.
        c: rows that only the first run has right.
        p_value: of the test alone.
        p_holm: corrected by Holm's procedure for all runs and scores.
    """

    b: int
    c: int
    p_value: float
    p_holm: float


@dataclass(frozen=True)
class ChangedRow:
    """A test row that two runs answer differently.

    Attributes:
        row: number of the row in its file.
        text, label: the sentence and its reference label.
        first, other: label that the first and the other run predict; None where the answer is no label.
        outcome: one of `OUTCOMES`; "mended" means that only the other run is right, "broken" that only the first is.
    """

    row: int
    text: str
    label: str
    first: str | None
    other: str | None
    outcome: str


@dataclass(frozen=True)
class ComparedRun:
    """A run compared with the first one.

    In JSON the fields of `compared` are on the same level as the other fields.

    Attributes:
        compared: the run and its scores.
        difference: by score, this run's score minus the first run's, a fraction, with its paired bootstrap interval and
            its p-values; see `significance.compared`.
        mcnemar: test of the right answers.
        changed: the rows that the two runs answer differently, in the order of `OUTCOMES`.
        worse: whether a score is shown to be lower.
        better: whether a score is shown to be higher, and none lower.
        verdict: both in words, see `verdicts.verdict`.
    """

    compared: ComparedScores
    difference: dict[str, Difference]
    mcnemar: McNemar
    changed: tuple[ChangedRow, ...]
    worse: bool
    better: bool
    verdict: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields, with run and scores on the same level."""
        return flattened(self, "compared")


@dataclass(frozen=True, repr=False)
class Comparison(Tabled):
    """Finished runs compared with the first of them on the same test rows.

    Attributes:
        n: number of test rows.
        labels: in id order.
        confidence: coverage of the intervals, in (0, 1).
        first: the first run and its scores.
        others: the other runs, in the order given.
        warnings: what the comparison hides, in sentences.
        metric: `train.metric` of the first run, which is compared beside accuracy and macro F1.
    """

    n: int
    labels: tuple[str, ...]
    confidence: float
    first: ComparedScores
    others: tuple[ComparedRun, ...]
    warnings: tuple[str, ...] = ()
    metric: Metric = DEFAULT

    def _table(self) -> tuple[str, list[dict[str, Any]]]:
        rows: list[dict[str, Any]] = [
            {"run": self.first.run, "score": name, "value": value} for name, value in self.first.scores.items()
        ]
        for other in self.others:
            for name, gap in other.difference.items():
                found = {"run": other.compared.run, "score": name, "value": other.compared.scores[name]}
                found |= {"difference": Measured(gap.difference, gap.interval), "p": gap.p_holm}
                rows.append(found)
        return f"{self.n:,} test rows; difference to the first run, {percent(self.confidence)} intervals", rows


def compare(runs: Sequence[str | Path]) -> Comparison:
    """Compares each other run with the first one on the same test rows.

    A run is worse or better where a score's p-value, corrected for all runs and scores, is at most 1 - confidence.
    Number of bootstrap samples, confidence and seed are those of the first run's config.

    Args:
        runs: directories of two or more finished runs.

    Returns:
        Scores and differences as fractions, with paired intervals, p-values, and the rows that changed.

    Raises:
        RunError: fewer than two runs, the same run twice, a run that is not finished, or different test rows or labels.

    Examples:
        >>> import loraft
        >>> found = loraft.compare([first, second])
        >>> found.n, sorted(found.others[0].difference)
        (60, ['accuracy', 'macro_f1'])
    """
    paths = [Path(path) for path in runs]
    if len(paths) < 2:
        raise RunError(f"compare: too few runs (got {len(paths)}); give two or more, the one to compare with first")
    twice = next((path for n, path in enumerate(paths) if path.resolve() in map(Path.resolve, paths[:n])), None)
    if twice is not None:
        raise RunError(
            f"compare: the same run twice (got {twice}); give each run once; the name of a sweep means its best trial"
        )
    opened = [Run.open(path) for path in paths]
    if (bundle := next((run for run in opened if isinstance(run, Bundle)), None)) is not None:
        raise RunError(
            f"{bundle.path}: has no results of a run to compare (got a bundle, such as a cut adapter); the table of"
            " loraft sweep --from compares cuts, loraft eval --run measures any bundle"
        )
    first, *others = map(read_predictions, opened)
    for other in others:
        reason = difference_of_rows(first, other)
        if reason is not None:
            raise RunError(
                f"{other.run}: has other test rows than {first.run} ({reason}); compare runs on the same data"
            )
    config = load_config(Run.open(first.run).config_path)
    metric = Metric.of(config)
    found = significance.compared(
        first.references_N,
        [([other.predictions_N], [first.predictions_N]) for other in others],
        len(first.labels),
        bootstrap_samples=config.eval.bootstrap_samples,
        confidence=config.eval.confidence,
        seed=config.seed,
        scores=metric.compared(first.references_N),
    )
    compared = []
    for other, difference in zip(others, found, strict=True):
        test = significance.mcnemar(other.correct, first.correct)
        mcnemar = McNemar(test.b, test.c, test.p_value, difference["accuracy"].p_holm or 0.0)
        shown = {verdicts.better(score, one, config.eval.confidence) for score, one in difference.items()}
        worse, better = -1 in shown, 1 in shown and -1 not in shown
        words, changed = verdicts.verdict(difference, config.eval.confidence), _changed(first, other)
        compared.append(ComparedRun(_scores(other, metric), difference, mcnemar, changed, worse, better, words))
    rows_of = {
        label: [first.rows[i] for i in np.flatnonzero(first.references_N == k)] for k, label in enumerate(first.labels)
    }
    return Comparison(
        n=len(first.texts),
        labels=first.labels,
        confidence=config.eval.confidence,
        first=_scores(first, metric),
        others=tuple(compared),
        warnings=tuple(advice.rare(rows_of)),
        metric=metric,
    )


def _scores(predicted: RunPredictions, metric: Metric) -> ComparedScores:
    counts_KK = metrics.confusion(predicted.references_N, predicted.predictions_N, len(predicted.labels))
    scores, compared = metrics.scores_of_one(counts_KK), metric.compared(predicted.references_N)
    run = Run(predicted.run)
    content = run.read_results().get("baselines")
    baselines = None if content is None else record_from(content, Baselines, run.results_path, run.mend)
    return ComparedScores(str(run.path), {one.partition(":")[0]: scores[one] for one in compared}, baselines)


def _changed(first: RunPredictions, other: RunPredictions) -> tuple[ChangedRow, ...]:
    """The rows that two runs answer differently, sorted by outcome."""
    rows = []
    for n in np.flatnonzero(first.predictions_N != other.predictions_N):
        reference, before, after = (int(x[n]) for x in (first.references_N, first.predictions_N, other.predictions_N))
        rows.append(
            ChangedRow(
                row=first.rows[n],
                text=first.texts[n],
                label=first.labels[reference],
                first=first.labels[before] if before >= 0 else None,
                other=first.labels[after] if after >= 0 else None,
                outcome=OUTCOMES[0 if after == reference else 1 if before == reference else 2],
            )
        )
    return tuple(sorted(rows, key=lambda row: OUTCOMES.index(row.outcome)))
