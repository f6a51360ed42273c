"""Baselines without a language model, for comparison with fine-tuning: the majority label, and a linear SVM."""

from typing import Any

import numpy as np
import numpy.typing as npt

from loraft.data.dataset import Split

Ints = npt.NDArray[np.int64]


def majority(train: Split, test: Split) -> Ints:
    """Label ids of the test rows: for each the most frequent label of the training rows."""
    return np.full(len(test), np.bincount(train.labels).argmax())


def linear_svm(train: Split, test: Split) -> Ints:
    """Label ids of the test rows from a linear SVM with scikit-learn's defaults, on TF-IDF of words and word pairs."""
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    if len(np.unique(train.labels)) < 2:  # an SVM needs two classes
        return majority(train, test)
    classifier = make_pipeline(tfidf(len(train)), LinearSVC(random_state=0))
    return np.asarray(classifier.fit(train.texts, train.labels).predict(test.texts), dtype=np.int64)


# Words of one letter or more, and runs of punctuation: emoticons and "!" carry sentiment.
TOKENS = r"\w+|[^\w\s]+"


def tfidf(rows: int) -> Any:
    """An unfitted TF-IDF vectoriser of words and word pairs for that number of training rows."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    # Terms that occur in one row only are most of the vocabulary and carry little information. Among few rows nearly
    # all terms occur once, so there they stay.
    return TfidfVectorizer(token_pattern=TOKENS, ngram_range=(1, 2), min_df=2 if rows >= 1000 else 1)
