"""What a classifier without a language model reaches on the same rows: the numbers that fine-tuning has to beat."""

from typing import Any

import numpy as np
import numpy.typing as npt

from loraft.data.dataset import Split

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


# Words, and what stands between them: emoticons and "!" speak in feedback, and one-letter words are words.
TOKENS = r"\w+|[^\w\s]+"


def tfidf(rows: int) -> Any:
    """An untrained TF-IDF vectoriser of words and pairs of words, for so many training rows."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    # Pairs that occur once are most of the vocabulary and carry little; among few rows most words occur once.
    return TfidfVectorizer(token_pattern=TOKENS, ngram_range=(1, 2), min_df=2 if rows >= 1000 else 1)
