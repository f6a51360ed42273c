"""Baselines without a language model: the majority label and a linear SVM, and how a model does beside them.

Shapes: N test rows, K labels.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loraft.config.schema import Config
from loraft.data.dataset import Split, load_data
from loraft.errors import DataError, Note
from loraft.evaluation import metrics, significance, verdicts
from loraft.evaluation.choosing import Metric
from loraft.evaluation.intervals import Difference
from loraft.runs.kept import kept

Ints = npt.NDArray[np.int64]

# With eval.baselines=auto, the most characters of train and test rows times labels: some 10 seconds of a CPU core.
MOST_WORK = 500_000_000


@dataclass(frozen=True)
class ComparedBaseline:
    """A baseline on the test rows of a model, and the model compared with it.

    Attributes:
        name: one of `BASELINES`.
        scores: as in `EvaluationReport`.
        differences: the model's score minus the baseline's, for each of `Metric.compared()`, with interval and p-value;
            see `significance.compared`.
        verdict: of the model: better, worse, or cannot be told apart.
    """

    name: str
    scores: dict[str, float]
    differences: dict[str, Difference]
    verdict: str


@dataclass(frozen=True)
class Baselines:
    """The baselines beside a model on the same test rows.

    Attributes:
        train_rows: number of rows that the baselines were fitted on; of folds, in the first.
        confidence: coverage of the intervals, in (0, 1).
        rows: one for each of `BASELINES`.
        verdict: on the model, in a sentence that names the scores; what it loses to comes first.
    """

    train_rows: int
    confidence: float
    rows: tuple[ComparedBaseline, ...]
    verdict: str


def majority(train: Split, test: Split) -> Ints:
    """Label ids of the test rows: for each the most frequent label of the training rows."""
    return np.full(len(test), np.bincount(train.labels).argmax())


def linear_svm(train: Split, test: Split) -> Ints:
    """Label ids of the test rows from a linear SVM, one label against the rest, on TF-IDF of words and word pairs.

    Scikit-learn's defaults (C = 1, squared hinge loss), but a tolerance of 0.01 instead of 0.0001: the answers on the
    bundled data and on UIT-VSFC are the same, in less time.

    Source:
        Joachims 1998, "Text Categorization with Support Vector Machines"; Fan et al. 2008, "LIBLINEAR".
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    if len(np.unique(train.labels)) < 2:  # an SVM needs two classes
        return majority(train, test)
    classifier = make_pipeline(tfidf(len(train)), LinearSVC(random_state=0, tol=0.01))
    return np.asarray(classifier.fit(train.texts, train.labels).predict(test.texts), dtype=np.int64)


BASELINES = {"majority label": majority, "TF-IDF + linear SVM": linear_svm}


def train_rows(config: Config, split: str) -> Split | None:
    """The labelled training rows for baselines and warnings about a model that is measured on `split`.

    Returns:
        None on the train split itself, and (unless `eval.baselines` is on) where there is no train split to read.

    Raises:
        DataError: `eval.baselines` is on, and the train split cannot be read.
    """
    if split == "train":
        return None
    try:
        return load_data(config, "train")
    except DataError:
        if config.eval.baselines == "on":
            raise
        return None


def compared_with(
    config: Config, train: Split | None, test: Split, predictions_N: npt.ArrayLike, model: str
) -> Baselines | None:
    """The baselines beside a model on the same test rows, as `eval.baselines` asks for them.

    The answers of the baselines are kept in the output folder for the next model on the same rows.

    Args:
        config: its `eval` section and `seed` give intervals and tests.
        train: rows that the baselines are fitted on; None where there are none.
        test: N rows.
        predictions_N: the model's label ids, -1 for no label.
        model: what the model is called in the verdict, for example "adapter".

    Returns:
        None where they are off, where there are no training rows, and (with auto) where they would take minutes.
    """
    return None if train is None else compared_over(config, [(train, test)], predictions_N, model)


def compared_over(
    config: Config, parts: Sequence[tuple[Split, Split]], predictions_N: npt.ArrayLike, model: str
) -> Baselines | None:
    """As `compared_with`, where the test rows are in parts: each with training rows of its own, as folds have them.

    Args:
        config, model: as there.
        parts: training rows and test rows of each.
        predictions_N: the model's label ids for the test rows of all parts, one part after the other.
    """
    labels = config.prompt.labels or []
    if config.eval.baselines == "off" or takes_minutes(config, [split for part in parts for split in part]):
        return None
    answers: dict[str, list[int]] = {name: [] for name in BASELINES}
    for train, test in parts:
        made: dict[str, list[int]] = kept(
            Path(config.output.folder),
            "baselines",
            [train.fingerprint, test.fingerprint],
            partial(_answers, train, test),
            partial(_fits, len(test), len(labels)),
        )
        for name, given in answers.items():
            given += made[name]
    references_N, metric = np.concatenate([test.labels for _, test in parts]), Metric.of(config)
    compared = metric.compared(references_N)
    found = significance.compared(
        references_N,
        [([predictions_N], [answers[name]]) for name in BASELINES],
        len(labels),
        scores=compared,
        bootstrap_samples=config.eval.bootstrap_samples,
        confidence=config.eval.confidence,
        seed=config.seed,
    )
    rows = []
    for name, differences in zip(BASELINES, found, strict=True):
        of_all = metrics.scores_of_one(metrics.confusion(references_N, answers[name], len(labels)))
        scores = {score: of_all[score] for score in metrics.SCORES} | {
            one.partition(":")[0]: of_all[one] for one in compared
        }
        rows.append(ComparedBaseline(name, scores, differences, verdicts.verdict(differences, config.eval.confidence)))
    sentence = verdict_of(rows, config.eval.confidence, model, metric)
    return Baselines(len(parts[0][0]), config.eval.confidence, tuple(rows), sentence)


def _fits(rows: int, num_labels: int, found: Any) -> bool:
    """Whether a kept file has a label id of each baseline for each row."""
    if not isinstance(found, dict) or set(found) != set(BASELINES):
        return False
    return all(
        isinstance(ids, list) and len(ids) == rows and all(type(k) is int and 0 <= k < num_labels for k in ids)
        for ids in found.values()
    )


def _answers(train: Split, test: Split) -> dict[str, list[int]]:
    return {name: [int(k) for k in make(train, test)] for name, make in BASELINES.items()}


def takes_minutes(config: Config, splits: Sequence[Split]) -> bool:
    """Whether the baselines are left out since they would take minutes, with `eval.baselines` auto; says so."""
    work = sum(len(text) for split in splits for text in split.texts) * len(config.prompt.labels or [])
    if config.eval.baselines != "auto" or work <= MOST_WORK:
        return False
    warnings.warn("no baselines: they would take minutes on so many rows; eval.baselines=on", Note, stacklevel=2)
    return True


def verdict_of(rows: Sequence[ComparedBaseline], confidence: float, model: str, metric: Metric) -> str:
    """The verdict on the model, against each baseline; the one that it loses to comes first."""
    order = (verdicts.WORSE, verdicts.UNCLEAR, verdicts.BETTER)
    found = [
        (
            order.index(row.verdict) if row.verdict in order else 0,
            verdicts.against(row.differences, confidence, f"the {row.name}", metric.name),
        )
        for row in rows
    ]
    return f"The {model} {'; it '.join(said for _, said in sorted(found))}."


# Words of one letter or more, and runs of punctuation: emoticons and "!" carry sentiment.
TOKENS = r"\w+|[^\w\s]+"


def tfidf(rows: int) -> Any:
    """An unfitted TF-IDF vectoriser of words and word pairs for that number of training rows."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    # Terms that occur in one row only are most of the vocabulary and carry little information. Among few rows nearly
    # all terms occur once, so there they stay.
    return TfidfVectorizer(token_pattern=TOKENS, ngram_range=(1, 2), min_df=2 if rows >= 1000 else 1)
