"""Draws the training rows that stand in few-shot prompts, and their order.

Shapes: N test rows, M the largest number of demonstrations, k demonstrations in a prompt, R lists of demonstrations: 1
where all test rows have the same, N where each has its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loraft.data.dataset import Split
from loraft.errors import DataError
from loraft.evaluation.baselines import tfidf

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Draw:
    """One draw of demonstrations, for every number of shots up to M.

    The prompts with k and with k + 1 demonstrations differ by one sentence: the others are the same, in the same order.
    So a difference between their scores comes from the number of demonstrations, not from another choice.

    Attributes:
        chosen: (R, M) indices of training rows; k shots take the first k.
        sort_key: (M,) of each demonstration; a prompt shows its demonstrations in ascending order of it.
    """

    chosen: Ints
    sort_key: npt.NDArray[np.float64]

    def rows(self, shots: int) -> Ints:
        """Indices of the k training rows in the order of the prompt, (R, k)."""
        return np.asarray(self.chosen[:, :shots][:, np.argsort(self.sort_key[:shots])])


def draws(
    train: Split, test: Split, *, max_shots: int, repeats: int, selection: str, seed: int, order: str = "shuffled"
) -> list[Draw]:
    """Draws of demonstrations, each determined by the seed and its number.

    The first k demonstrations of a draw do not depend on `max_shots`.

    Args:
        train: rows to choose from; of repeated sentences only the first row is used.
        test: the N rows to classify; used by `nearest` only.
        max_shots: M.
        repeats: number of draws.
        selection: `random`; `balanced`, which takes the labels in turn, each time in a new order; or `nearest`, which
            takes the sentences most similar to each test row, without copies of it, since their label would be the
            answer. Draws of `nearest` differ only in the order of the prompt.
        seed: of choice and order.
        order: `shuffled`: each further demonstration stands at a random place among the others; `drawn`: behind them.

    Raises:
        DataError: there are fewer than M different sentences.
    """
    distinct = _distinct(train.texts)
    available = len(distinct) - (selection == "nearest")  # one may be a copy of the test row
    if max_shots > available:
        raise DataError(
            f"fewshot.shots: more demonstrations than there are (got {max_shots}); {train.source} has {available}"
            " different sentences to choose from"
        )
    nearest_NM = None
    if selection == "nearest" and max_shots:
        nearest_NM = nearest(train.texts, test.texts, distinct, max_shots)
    drawn = []
    for number in range(repeats):
        generator = np.random.default_rng([seed, number])
        if nearest_NM is not None:
            chosen_RM = nearest_NM
        elif selection == "balanced":
            chosen_RM = _balanced(train.labels, distinct, max_shots, generator)[None]
        else:
            chosen_RM = generator.permutation(distinct)[None, :max_shots]
        key_M = np.random.default_rng([seed, number, 1]).random(max_shots)
        drawn.append(Draw(chosen_RM, key_M if order == "shuffled" else np.arange(max_shots, dtype=np.float64)))
    return drawn


def nearest(train_texts: Sequence[str], test_texts: Sequence[str], candidates: Ints, count: int) -> Ints:
    """For each test sentence the indices of the most similar training sentences, the most similar first, (N, M).

    Similarity is the cosine of TF-IDF vectors. A candidate that equals the test sentence is left out.

    Args:
        train_texts: sentences in NFC.
        test_texts: the N sentences in NFC.
        candidates: indices of the training rows to choose from: more than M, each with another sentence.
        count: M.

    Source:
        Liu et al. 2022, "What Makes Good In-Context Examples for GPT-3?", for choosing by similarity.
    """
    from sklearn.neighbors import NearestNeighbors

    texts = [train_texts[i] for i in candidates]
    vectorizer = tfidf(len(texts)).fit(texts)
    # One neighbour more than needed: if one of them is a copy of the test sentence, M others remain.
    search = NearestNeighbors(n_neighbors=count + 1, metric="cosine", algorithm="brute")
    found_NM1 = search.fit(vectorizer.transform(texts)).kneighbors(
        vectorizer.transform(test_texts), return_distance=False
    )
    rows = [
        [int(candidates[i]) for i in neighbours if texts[i] != text][:count]
        for text, neighbours in zip(test_texts, found_NM1, strict=True)
    ]
    return np.array(rows, dtype=np.int64).reshape(len(test_texts), count)


def _distinct(texts: Sequence[str]) -> Ints:
    """The index of the first row with each sentence."""
    first_of: dict[str, int] = {}
    for index, text in enumerate(texts):
        first_of.setdefault(text, index)
    return np.array(list(first_of.values()), dtype=np.int64)


def _balanced(labels_N: Ints, candidates: Ints, count: int, generator: np.random.Generator) -> Ints:
    """The first `count` candidates when the labels take turns, each turn in a random order of the labels."""
    labels = labels_N[candidates]
    queues = [generator.permutation(candidates[labels == label]).tolist() for label in np.unique(labels)]
    chosen: list[int] = []
    while len(chosen) < count:
        turn = [queue for queue in queues if queue]  # labels that have rows left
        chosen += [turn[i].pop() for i in generator.permutation(len(turn))]
    return np.array(chosen[:count], dtype=np.int64)
