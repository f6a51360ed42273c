"""Baselines where a row has any number of labels: the most frequent label set, and a linear SVM for each label.

Shapes: N test rows, K labels.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from loraft.config.schema import Config
from loraft.data.dataset import Split
from loraft.evaluation import multilabel, significance, verdicts
from loraft.evaluation.baselines import Baselines, ComparedBaseline, takes_minutes, tfidf, verdict_of
from loraft.evaluation.choosing import Metric
from loraft.evaluation.intervals import Difference
from loraft.evaluation.multilabel import Bools
from loraft.runs.kept import kept

COMPARED = ("subset_accuracy", "micro_f1", "macro_f1")


def most_frequent_set(train: Split, test: Split, num_labels: int) -> Bools:
    """For each test row the label set that most training rows have, (N, K)."""
    most = Counter(map(tuple, train.label_sets(num_labels).tolist())).most_common(1)[0][0]
    return np.tile(np.array(most, dtype=bool), (len(test), 1))


def linear_svms(train: Split, test: Split, num_labels: int) -> Bools:
    """Label sets from a linear SVM for each label, with scikit-learn's defaults, on TF-IDF of words and word pairs."""
    from sklearn.svm import LinearSVC

    vectoriser = tfidf(len(train))
    known, asked = vectoriser.fit_transform(train.texts), vectoriser.transform(test.texts)
    found = []
    for own_N in train.label_sets(num_labels).T:
        if own_N.all() or not own_N.any():  # an SVM needs two classes
            found.append(np.full(len(test), own_N.all()))
        else:
            found.append(LinearSVC(random_state=0).fit(known, own_N).predict(asked))
    return np.stack(found, axis=1).astype(bool)


BASELINES = {"most frequent label set": most_frequent_set, "TF-IDF + linear SVMs": linear_svms}


def _is_table(found: Any, rows: int, num_labels: int) -> bool:
    """Whether a kept value is the label sets of so many rows."""
    return (
        isinstance(found, list)
        and len(found) == rows
        and all(
            isinstance(one, list) and len(one) == num_labels and all(type(flag) is bool for flag in one)
            for one in found
        )
    )


def compared_with(
    config: Config, train: Split | None, test: Split, predictions_NK: Bools, model: str
) -> Baselines | None:
    """The baselines beside a model on the same test rows; arguments and result are those of `baselines.compared_with`.

    Subset accuracy is tested by McNemar's test, the F1s by `multilabel.permutation`; Holm's correction covers both
    baselines and all scores.
    """
    num_labels = len(config.prompt.labels or [])
    if train is None or config.eval.baselines == "off" or takes_minutes(config, [train, test]):
        return None
    answers: dict[str, list[list[bool]]] = kept(
        Path(config.output),
        "label-set-baselines",
        [train.fingerprint, test.fingerprint, str(num_labels)],
        lambda: {name: make(train, test, num_labels).tolist() for name, make in BASELINES.items()},
        lambda found: (
            isinstance(found, dict)
            and set(found) == set(BASELINES)
            and all(_is_table(sets, len(test), num_labels) for sets in found.values())
        ),
    )
    settings: dict[str, Any] = {
        "samples": config.eval.bootstrap_samples, "confidence": config.eval.confidence, "seed": config.seed
    }  # fmt: skip
    references_NK = test.label_sets(num_labels)
    own = multilabel.scores(references_NK, predictions_NK)
    sides = {name: np.array(sets, dtype=bool) for name, sets in answers.items()}
    found = []
    for other_NK in sides.values():
        pair, other = [predictions_NK, other_NK], multilabel.scores(references_NK, other_NK)
        intervals = multilabel.intervals(references_NK, pair, **settings)
        p_values = multilabel.permutation(references_NK, predictions_NK, other_NK, seed=config.seed)
        p_values["subset_accuracy"] = significance.mcnemar(
            *((references_NK == one).all(axis=1) for one in pair)
        ).p_value
        found.append(
            {score: Difference(own[score] - other[score], intervals[score], p_values[score]) for score in COMPARED}
        )
    rows = []
    for (name, other_NK), gaps in zip(
        sides.items(), significance.corrected(found, config.eval.confidence), strict=True
    ):
        scored = multilabel.scores(references_NK, other_NK)
        word = verdicts.verdict(gaps, config.eval.confidence)
        rows.append(ComparedBaseline(name, scored, gaps, word))
    sentence = verdict_of(rows, config.eval.confidence, model, Metric.of(config))
    return Baselines(len(train), config.eval.confidence, tuple(rows), sentence)
