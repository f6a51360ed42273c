"""Find near-duplicates between two lists of sentences, by the Jaccard index of their character n-grams."""

from collections.abc import Sequence
from dataclasses import dataclass

NEAR = 0.8  # Jaccard index of character 4-grams above which two rows are nearly the same: copies with a word changed
BLOCK = 512  # sentences compared with all others at a time, which bounds the memory for the products


@dataclass(frozen=True)
class Overlap:
    """Indices of two similar sentences, and the Jaccard index of their n-grams, in [0, 1]."""

    left: int
    right: int
    jaccard: float


def near_duplicates(left: Sequence[str], right: Sequence[str], *, threshold: float, n: int = 4) -> list[Overlap]:
    """The pairs of sentences whose sets of character n-grams have a Jaccard index above the threshold.

    Args:
        left, right: sentences; case, punctuation and repeated spaces do not count.
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
    # Sparse 0/1 matrices: one row a sentence, one column an n-gram.
    a, b = grams[: len(left)].tocsr().astype(np.int32), grams[len(left) :].tocsr().astype(np.int32)
    sizes_a, sizes_b = np.asarray(a.sum(axis=1)).ravel(), np.asarray(b.sum(axis=1)).ravel()
    found: list[Overlap] = []
    for start in range(0, len(left), BLOCK):
        # An element of the product is the number of n-grams that two sentences share. Jaccard index: this number
        # divided by the size of the union, which is both sizes together less the shared n-grams.
        shared = (a[start : start + BLOCK] @ b.T).tocoo()
        rows = shared.row + start
        jaccard = shared.data / (sizes_a[rows] + sizes_b[shared.col] - shared.data)
        keep = jaccard > threshold
        found += [
            Overlap(int(i), int(j), float(value))
            for i, j, value in zip(rows[keep], shared.col[keep], jaccard[keep], strict=True)
        ]
    return found


def rows_also_in(others: Sequence[str], texts: Sequence[str], *, near: bool) -> tuple[list[int], list[Overlap]]:
    """The rows of `texts` that `others` holds too: indices of the same sentences, and the nearly same ones.

    A row counts once: as nearly the same only where it is not the same as another, and by its most similar sentence.

    Args:
        others, texts: sentences.
        near: look for near-duplicates too, which takes seconds for thousands of sentences.

    Returns:
        Indices into `texts`; and for each other row that is nearly the same as one of `others` an overlap, `left` an
        index into `texts` and `right` one into `others`, sorted by `left`.
    """
    known = set(others)
    exact = [i for i, text in enumerate(texts) if text in known]
    rest = [i for i, text in enumerate(texts) if text not in known] if near else []
    pairs = near_duplicates([texts[i] for i in rest], others, threshold=NEAR)
    # The last pair of a sorted list wins in the dict: the most similar one.
    closest = {pair.left: pair for pair in sorted(pairs, key=lambda pair: pair.jaccard)}
    return exact, [Overlap(rest[i], closest[i].right, closest[i].jaccard) for i in sorted(closest)]


def _plain(text: str, n: int) -> str:
    """The words in lower case with single spaces, or the text itself if it has none; at least `n` characters long."""
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    # Padded with a character that no word holds. Spaces would not do: scikit-learn merges them into one.
    return (" ".join(words) or text).ljust(n, "_")
