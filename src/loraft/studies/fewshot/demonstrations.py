"""Which training rows stand in a few-shot prompt, and in which order.

Shapes: N test rows, M demonstrations at most, k of them in a prompt, R lists of demonstrations: 1 where all test rows
see the same, N where each has its own.
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
    """One draw of demonstrations, for every k at once.

    The prompts of k and of k + 1 demonstrations differ by one sentence: the others are the same, in the same order.
    So a difference between them comes from the number and not from another draw.
    """

    chosen: Ints  # R x M, indices of training rows, in the order in which they come in as k grows
    place: npt.NDArray[np.float64]  # M, the lower the earlier it stands in the prompt

    def rows(self, shots: int) -> Ints:
        """Indices of the training rows in the order of the prompt, R x k."""
        return np.asarray(self.chosen[:, :shots][:, np.argsort(self.place[:shots])])


def draws(train: Split, test: Split, *, most: int, repeats: int, selection: str, seed: int) -> list[Draw]:
    """Draws of demonstrations, each a function of the seed and its number; a smaller M gives the beginning of them.

    Args:
        train: where they come from; of sentences that are repeated, the first row.
        test: the rows that will be asked; of use to `nearest` only.
        most: M, the largest number of demonstrations.
        repeats: number of draws.
        selection: random; balanced, labels by turns, in a new order each turn; nearest, for each test row the
            sentences most like it, except copies of itself, whose label would be the answer. Draws of `nearest` differ
            in order only.
        seed: of choice and order.

    Raises:
        DataError: there are not as many different sentences.
    """
    distinct = _distinct(train.texts)
    available = len(distinct) - (selection == "nearest")  # one may be a copy
    if most > available:
        raise DataError(
            f"fewshot.shots: more demonstrations than there are (got {most}); {train.source} has {available} different"
            " sentences to choose from"
        )
    nearest_NM = nearest(train.texts, test.texts, distinct, most) if selection == "nearest" and most else None
    made = []
    for number in range(repeats):
        generator = np.random.default_rng([seed, number])
        if nearest_NM is not None:
            chosen_RM = nearest_NM
        elif selection == "balanced":
            chosen_RM = _by_turns(train.labels, distinct, most, generator)[None]
        else:
            chosen_RM = generator.permutation(distinct)[None, :most]
        made.append(Draw(chosen_RM, np.random.default_rng([seed, number, 1]).random(most)))
    return made


def nearest(train_texts: Sequence[str], test_texts: Sequence[str], candidates: Ints, most: int) -> Ints:
    """For each test sentence the indices of the most similar training sentences, nearest first, N x M.

    Similarity is the cosine of TF-IDF vectors. A candidate that equals the test sentence is left out.

    Args:
        train_texts: sentences in NFC.
        test_texts: the N sentences in NFC.
        candidates: indices of the training rows that may be chosen, their sentences different; more than M.
        most: M.

    Source:
        Liu et al. 2022, "What Makes Good In-Context Examples for GPT-3?", for choosing by similarity.
    """
    from sklearn.neighbors import NearestNeighbors

    texts = [train_texts[i] for i in candidates]
    vectorizer = tfidf(len(texts)).fit(texts)
    search = NearestNeighbors(n_neighbors=most + 1, metric="cosine", algorithm="brute")
    found_NM1 = search.fit(vectorizer.transform(texts)).kneighbors(
        vectorizer.transform(test_texts), return_distance=False
    )
    rows = [
        [int(candidates[i]) for i in near if texts[i] != text][:most]
        for text, near in zip(test_texts, found_NM1, strict=True)
    ]
    return np.array(rows, dtype=np.int64).reshape(len(test_texts), most)


def _distinct(texts: Sequence[str]) -> Ints:
    first_of: dict[str, int] = {}
    for index, text in enumerate(texts):
        first_of.setdefault(text, index)
    return np.array(list(first_of.values()), dtype=np.int64)


def _by_turns(labels_N: Ints, candidates: Ints, most: int, generator: np.random.Generator) -> Ints:
    labels = labels_N[candidates]
    queues = [generator.permutation(candidates[labels == label]).tolist() for label in np.unique(labels)]
    chosen: list[int] = []
    while len(chosen) < most:
        turn = [queue for queue in queues if queue]
        chosen += [turn[i].pop() for i in generator.permutation(len(turn))]
    return np.array(chosen[:most], dtype=np.int64)
