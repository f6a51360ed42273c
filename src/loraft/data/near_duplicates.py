"""Near-duplicates between two lists of sentences, by the Jaccard index of their character n-grams."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Overlap:
    """Two rows that are too alike: their indices and the Jaccard index, in [0, 1]."""

    left: int
    right: int
    jaccard: float


def near_duplicates(left: Sequence[str], right: Sequence[str], *, threshold: float, n: int = 4) -> list[Overlap]:
    """Returns the pairs whose sets of character n-grams have a Jaccard index above the threshold.

    Args:
        left, right: sentences; case, punctuation and runs of space do not count.
        threshold: in [0, 1); 0.8 finds copies with a word changed.
        n: length of the n-grams, in characters.

    Source: A. Broder, "On the resemblance and containment of documents", 1997.
    """
    import numpy as np
    from sklearn.feature_extraction.text import CountVectorizer

    if not left or not right:
        return []
    texts = [_plain(text, n) for text in [*left, *right]]
    grams = CountVectorizer(analyzer="char", ngram_range=(n, n), binary=True, lowercase=False).fit_transform(texts)
    a, b = grams[: len(left)].tocsr().astype(np.int32), grams[len(left) :].tocsr().astype(np.int32)
    sizes_a, sizes_b = np.asarray(a.sum(axis=1)).ravel(), np.asarray(b.sum(axis=1)).ravel()
    found: list[Overlap] = []
    for start in range(0, len(left), 512):  # blocks keep the product of two large splits in memory
        both = (a[start : start + 512] @ b.T).tocoo()
        rows = both.row + start
        jaccard = both.data / (sizes_a[rows] + sizes_b[both.col] - both.data)
        keep = jaccard > threshold
        found += [
            Overlap(int(i), int(j), float(value))
            for i, j, value in zip(rows[keep], both.col[keep], jaccard[keep], strict=True)
        ]
    return found


def _plain(text: str, n: int) -> str:
    """Returns the letters and digits in lower case, words apart by one space, as long as one n-gram at least."""
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    return " ".join(words).ljust(n)
