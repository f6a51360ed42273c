"""Warnings about an evaluation or a training that a result hides, each with the key of the config that helps.

Each function returns sentences; commands print them as warnings, and results and reports hold them.

Shapes: N test rows, K labels.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from loraft.config.schema import Config
from loraft.data.checks import conflicts
from loraft.data.dataset import Split
from loraft.data.near_duplicates import rows_also_in
from loraft.evaluation.choosing import Metric
from loraft.evaluation.classification_report import EvaluationReport
from loraft.evaluation.enough_rows import key_of, more_rows
from loraft.evaluation.metrics import LOWER_IS_BETTER, confusion, scores_of_one
from loraft.evaluation.multilabel import scores
from loraft.evaluation.shares import percent
from loraft.runs.kept import kept

FEW_TRAIN, FEW_TEST = 20, 10  # rows of a label below which it is hard to learn, or to measure
WIDE = 0.10  # width of an interval, a fraction
SHIFT, LEVEL = 0.10, 0.01  # difference of a label's shares: at least so much, and significant at this level,
ENOUGH = 50  # with so many rows or predictions; below, the normal approximation does not hold
MOST_NAMED_ROWS = 3  # rows of a label up to which they are named
MOST = 0.5  # of the text
NAMED = 5  # labels named in one sentence
MOST_PAIRS = 100_000_000  # train times test rows up to which near-duplicates are looked for
RARE_HELPS = "train.class_weights=balanced or train.sampling=balanced gives rare labels more weight"


def of_evaluation(
    config: Config,
    report: EvaluationReport,
    test: Split,
    predictions_N: npt.ArrayLike,
    train: Split | None,
    *,
    zero_shot: bool = False,
    out_of_fold: bool = False,
) -> list[str]:
    """Warnings about a model's results on a test split.

    Args:
        config: says which rows were used, and where findings about the rows are kept.
        report: of the predictions.
        test: N rows.
        predictions_N: label ids, -1 for no label.
        train: the rows of the training; None where they are not at hand.
        zero_shot: the model was not trained, so that no key of `train` helps.
        out_of_fold: `test` is the train split, each row predicted by a model that was trained without it, and `train`
            is what one of these was trained on.
    """
    answers_N, labels = np.asarray(predictions_N), [row.label for row in report.per_class]
    given_K = np.bincount(answers_N[answers_N >= 0], minlength=len(labels))
    counts_K = np.bincount(test.labels, minlength=len(labels))
    found = [*_never_predicted(labels, given_K, counts_K, zero_shot)]

    def scored(rest: npt.NDArray[np.int64]) -> dict[str, float]:
        return scores_of_one(confusion(test.labels[rest], answers_N[rest], len(labels)))

    if train is not None:
        trained_K = np.bincount(train.labels, minlength=len(labels))
        found += hard_to_learn(labels, trained_K)
        origin = f"data.train_split and {key_of(test.name)} may have different origins"
        shifted = [*shifts(labels, trained_K, counts_K, f"of the {test.name} rows", origin)]
        # Predictions that follow other shares of the test rows are no fault of the model.
        found += shifted or shifts(labels, trained_K, given_K, "of the predictions", RARE_HELPS)
        found += [] if out_of_fold else _leaked(config, train, test, scored)
        conflicting = conflicts([test if out_of_fold else train], labels)
        if conflicting.rows:
            found.append(
                f"{conflicting.rows:,} training rows have a text that also stands with another label;"
                " data.drop_conflicts=true leaves them out"
            )
    found += cut_away(config, report.cut, test.name)
    more = more_rows(config, test)
    if not Metric.of(config).measured_on(test.labels):
        found.append(
            f"no {test.name} row has the label of train.metric={config.train.metric}, so it says nothing; {more}"
        )
    absent = {label: int(n) for label, n, rows in zip(labels, given_K, counts_K, strict=True) if n and not rows}
    if absent:
        found.append(
            f"predicted, but no {test.name} row has it: {_listed(absent)}; the macro F1 counts it as an F1 of 0; {more}"
        )
    rows_of = {label: [one.row for one in test.examples if one.label == k] for k, label in enumerate(labels)}
    return [*found, *_imprecise(config, report, more), *rare(rows_of, more, test.name)]


def of_label_sets(
    config: Config,
    report: EvaluationReport,
    test: Split,
    predictions_NK: npt.NDArray[np.bool_],
    train: Split | None,
    *,
    zero_shot: bool = False,
) -> list[str]:
    """What `of_evaluation` returns, where a row has any number of labels; without conflicts and shifted shares."""
    labels = [row.label for row in report.per_class]
    references_NK = test.label_sets(len(labels))
    found = [*_never_predicted(labels, predictions_NK.sum(axis=0), references_NK.sum(axis=0), zero_shot)]
    if train is not None:
        found += hard_to_learn(labels, train.label_sets(len(labels)).sum(axis=0))
        found += _leaked(config, train, test, lambda rest: scores(references_NK[rest], predictions_NK[rest]))
    found += cut_away(config, report.cut, test.name)
    more = more_rows(config, test)
    numbers = np.array([example.row for example in test.examples])
    rows_of = {label: numbers[has_N].tolist() for label, has_N in zip(labels, references_NK.T, strict=True)}
    return [*found, *_imprecise(config, report, more), *rare(rows_of, more, test.name)]


def rare(rows_of: Mapping[str, Sequence[int]], more: str = "", split: str = "test") -> list[str]:
    """A sentence about labels with too few test rows for an interval of the macro F1, or none.

    Args:
        rows_of: the numbers of each label's test rows; those of the rarest labels are named.
        more: how to measure on more rows.
        split: name of the rows' split.
    """
    few = {label: len(rows) for label, rows in rows_of.items() if 0 < len(rows) < FEW_TEST}
    if not few:
        return []
    named = [(label, rows_of[label]) for label, n in few.items() if n <= MOST_NAMED_ROWS][:NAMED]
    where = ", ".join(f"{label} in row {' and '.join(map(str, rows))}" for label, rows in named)
    return [
        f"fewer than {FEW_TEST} {split} rows: {_listed(few)}; each counts as much in the macro F1 as any other label,"
        " so its interval is rough"
        + (f" and hangs on single rows: {where}" if where else "")
        + (f"; {more}" if more else "")
    ]


def hard_to_learn(labels: Sequence[str], trained_K: npt.ArrayLike) -> Iterator[str]:
    """A sentence about labels with few training rows: `trained_K` of each, which may be none."""
    few = {label: int(n) for label, n in zip(labels, np.asarray(trained_K), strict=True) if n < FEW_TRAIN}
    if few:
        yield f"fewer than {FEW_TRAIN} training rows: {_listed(few)}; add rows, or {RARE_HELPS}"


def _never_predicted(
    labels: Sequence[str], given_K: npt.ArrayLike, counts_K: npt.ArrayLike, zero_shot: bool
) -> Iterator[str]:
    triples = zip(labels, np.asarray(given_K), np.asarray(counts_K), strict=True)
    never = {label: int(n) for label, given, n in triples if n and not given}
    if never:
        yield f"never predicted: {_listed(never)}" + ("" if zero_shot else f"; {RARE_HELPS}")


def shifts(labels: Sequence[str], trained_K: Any, other_K: Any, of: str, key: str) -> Iterator[str]:
    """A sentence about the label whose share among training rows and others differs most, if by more than chance.

    The z-test of two shares at `LEVEL`, corrected for the number of labels. Among few rows it shows nothing.
    """
    total, other = int(trained_K.sum()), int(other_K.sum())
    if min(total, other) < ENOUGH:
        return
    gaps_K = other_K / other - trained_K / total
    k = int(np.abs(gaps_K).argmax())
    share = (trained_K[k] + other_K[k]) / (total + other)
    error = math.sqrt(share * (1 - share) * (1 / total + 1 / other))
    # Bonferroni: the label was picked among K. Two-sided.
    bound = NormalDist().inv_cdf(1 - LEVEL / (2 * len(labels))) * error
    if abs(gaps_K[k]) > max(SHIFT, bound):
        before, after = trained_K[k] / total, other_K[k] / other
        yield f"label shares differ: {labels[k]} is {before:.0%} of the training rows and {after:.0%} {of}; {key}"


def _leaked(
    config: Config, train: Split, test: Split, scored: Callable[[npt.NDArray[np.int64]], dict[str, float]]
) -> Iterator[str]:
    """How many test rows stand in train, and the scores on the rest, which `scored` returns for their numbers."""
    near = len(train) * len(test) <= MOST_PAIRS

    def find() -> list[list[int]]:
        exact, pairs = rows_also_in(train.texts, test.texts, near=near)
        return [exact, [pair.left for pair in pairs]]

    def fits(found: Any) -> bool:
        return (
            isinstance(found, list)
            and len(found) == 2
            and all(
                isinstance(rows, list) and all(type(i) is int and 0 <= i < len(test) for i in rows) for rows in found
            )
        )

    exact, nearly = kept(Path(config.output.folder), "leaks", [train.fingerprint, test.fingerprint], find, fits)
    inside = {*exact, *nearly}
    if not inside:
        return
    rest = np.array([i for i in range(len(test)) if i not in inside], dtype=np.int64)
    without = "no other row is left"
    if len(rest):
        values, metric = scored(rest), Metric.of(config)
        several = config.prompt.kind == "multilabel"
        given = ("subset_accuracy", "micro_f1", "macro_f1") if several else metric.compared(test.labels[rest])
        names = {one: metric.name(one.partition(":")[0]) for one in given}
        without = ", ".join(f"{name} {values[one]:.4f}" for one, name in names.items())
        without = f"on the other {len(rest):,}: {without}"
    counted = f"{len(exact):,} the same" + (f", {len(nearly):,} nearly the same" if near else "")
    yield (
        f"{len(inside):,} of {len(test):,} {test.name} rows stand in train ({counted}); {without};"
        " data.drop_leaked=true trains without them"
    )


def cut_away(config: Config, cut: float, split: str) -> Iterator[str]:
    """A sentence where most of a split's text, the share `cut`, was left out of the prompts."""
    if cut > MOST:
        yield (
            f"{cut:.0%} of the text of the {split} rows was cut away; raise prompt.max_length (now"
            f" {config.prompt.max_length}), or choose what is cut by prompt.truncation"
        )


def _imprecise(config: Config, report: EvaluationReport, more: str) -> Iterator[str]:
    metric, fractions = Metric.of(config), {k: v for k, v in report.intervals.items() if k not in LOWER_IS_BETTER}
    widths = {metric.name(score): high - low for score, (low, high) in fractions.items() if high - low > WIDE}
    if widths:
        wide = ", ".join(f"{name} {100 * width:.0f} points" for name, width in widths.items())
        yield f"{percent(report.confidence)} intervals are wide on {report.n:,} rows: {wide}; {more}"


def _listed(counts: Mapping[str, int]) -> str:
    """Labels with their numbers of rows, the rarest first."""
    names = sorted(counts, key=lambda label: counts[label])
    shown = ", ".join(f"{name} ({counts[name]:,})" for name in names[:NAMED])
    return shown + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
