"""The baselines are what they say they are."""

import os
from pathlib import Path

import numpy as np
import pytest

from loraft.config.resolve import resolve
from loraft.data.dataset import Split, load_split
from loraft.data.records import Example
from loraft.evaluation import metrics
from loraft.evaluation.baselines import linear_svm, majority, tfidf


def split(rows: list[tuple[str, int]]) -> Split:
    return Split("train", tuple(Example(text, label, n) for n, (text, label) in enumerate(rows, start=1)), "rows")


TRAIN = split([("thầy tốt", 2), ("cô rất tốt", 2), ("tốt lắm", 2), ("phòng nóng", 0), ("nóng quá", 0)])


def test_the_majority_is_that_of_the_training_rows() -> None:
    assert majority(TRAIN, split([("nóng", 0), ("quá nóng", 0), ("tốt", 2)])).tolist() == [2, 2, 2]


def test_the_svm_separates_by_words() -> None:
    assert linear_svm(TRAIN, split([("phòng rất nóng", 0), ("phòng rất tốt", 2)])).tolist() == [0, 2]


def test_one_label_alone_is_answered_always() -> None:
    assert linear_svm(split([("tốt", 1), ("hay", 1)]), TRAIN).tolist() == [1] * 5


def test_terms_are_words_of_any_length_runs_of_punctuation_and_their_pairs() -> None:
    found = tfidf(2).fit(["ổn :)) !", "à ổn"]).get_feature_names_out()
    assert sorted(found) == sorted(["ổn", ":))", "!", "à", "ổn :))", ":)) !", "à ổn"])


@pytest.mark.parametrize(("rows", "terms"), [(999, {"ổn", "tốt"}), (1000, {"ổn"})])
def test_terms_of_one_row_are_left_out_from_1000_rows_on(rows: int, terms: set[str]) -> None:
    assert set(tfidf(rows).fit(["ổn", "ổn", "tốt"]).get_feature_names_out()) == terms


@pytest.mark.skipif("LORAFT_VSFC" not in os.environ, reason="LORAFT_VSFC does not name the folder of UIT-VSFC")
def test_the_svm_on_the_real_corpus() -> None:
    config = resolve(flags={"data.source": str(Path(os.environ["LORAFT_VSFC"]))})
    labels = list(config.prompt.labels or [])
    train, test = (load_split(config.data, name, labels=labels, label_column="sentiment") for name in ("train", "test"))
    scores = metrics.core(test.labels, linear_svm(train, test), len(labels))
    # 0.897 and 0.714: words and pairs of words that occur twice, default LinearSVC, measured with scikit-learn alone.
    assert np.allclose([scores["accuracy"], scores["macro_f1"]], [0.897, 0.714], atol=0.002)
