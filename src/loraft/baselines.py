"""What a classifier without a language model reaches on the same rows: the numbers that fine-tuning has to beat."""

import numpy as np
import numpy.typing as npt

from loraft.data import Split
from loraft.demonstrations import tfidf

Ints = npt.NDArray[np.int64]


def majority(train: Split, test: Split) -> Ints:
    """The most frequent label of the training rows, for every test row."""
    return np.full(len(test), np.bincount(train.labels).argmax())


def linear_svm(train: Split, test: Split) -> Ints:
    """Label ids from a linear support vector machine on TF-IDF of words and pairs of words, scikit-learn's defaults."""
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    if len(np.unique(train.labels)) < 2:  # nothing to separate
        return majority(train, test)
    classifier = make_pipeline(tfidf(len(train)), LinearSVC(random_state=0))
    return np.asarray(classifier.fit(train.texts, train.labels).predict(test.texts), dtype=np.int64)
