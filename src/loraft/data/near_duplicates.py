"""Find near-duplicates between two lists of sentences, or in one, by the Jaccard index of their character n-grams."""

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from loraft.data.examples import Texts
from loraft.progress import each

NEAR = 0.8  # Jaccard index of character 4-grams above which two rows are nearly the same: copies with a word changed
LENGTH = 4  # of the n-grams, in characters
BLOCK, CHUNK = 512, 4096  # sentences of each side that are compared at a time, which bounds the memory


@dataclass(frozen=True)
class Overlap:
    """Indices of two similar sentences, and the Jaccard index of their n-grams, in [0, 1]."""

    left: int
    right: int
    jaccard: float


def near_duplicates(left: Sequence[str], right: Sequence[str], *, threshold: float, n: int = LENGTH) -> list[Overlap]:
    """The pairs of sentences whose sets of character n-grams have a Jaccard index above the threshold, in order.

    Args:
        left, right: sentences; case, punctuation and repeated spaces do not count.
        threshold: in [0, 1); 0.8 finds copies with a word changed.
        n: length of the n-grams, in characters.

    Source: A. Broder, "On the resemblance and containment of documents", 1997.
    """
    if len(left) > len(right):
        found = near_duplicates(right, left, threshold=threshold, n=n)
        return sorted(
            (Overlap(pair.right, pair.left, pair.jaccard) for pair in found), key=lambda pair: (pair.left, pair.right)
        )
    numbers: dict[str, int] = {}  # of the n-grams of `left`; no others can be shared
    a, sizes_a = _incidence(left, n, numbers, grow=True)
    found = []
    for first in each(range(0, len(right), CHUNK), "searching near-duplicates, part"):
        b, sizes_b = _incidence(right[first : first + CHUNK], n, numbers, grow=False)
        for start in range(0, len(left), BLOCK):
            # An element of the product is the number of n-grams that two sentences share. Jaccard index: this number
            # divided by the size of the union, which is both sizes together less the shared n-grams.
            shared = (a[start : start + BLOCK] @ b.T).tocoo()
            rows = shared.row + start
            jaccard = shared.data / (sizes_a[rows] + sizes_b[shared.col] - shared.data)
            keep = jaccard > threshold
            found += [
                Overlap(int(i), first + int(j), float(value))
                for i, j, value in zip(rows[keep], shared.col[keep], jaccard[keep], strict=True)
            ]
    return sorted(found, key=lambda pair: (pair.left, pair.right))


def first_unlike(texts: Iterable[str], count: int, *, threshold: float) -> list[int]:
    """The first `count` sentences, by their indices, that resemble none of those before them in this list.

    Memory holds the n-grams of these sentences only. Threshold and resemblance as in `near_duplicates`.
    """
    chosen: list[int] = []
    sizes: list[int] = []
    holders: dict[str, list[int]] = {}  # of an n-gram: places in `chosen`
    for i, text in enumerate(texts):
        if len(chosen) == count:
            break
        own = _grams(text)
        shared = Counter(chain.from_iterable(holders.get(gram, ()) for gram in own))
        if all(common <= threshold * (len(own) + sizes[at] - common) for at, common in shared.items()):
            for gram in own:
                holders.setdefault(gram, []).append(len(chosen))
            chosen.append(i)
            sizes.append(len(own))
    return chosen


def _incidence(texts: Sequence[str], n: int, numbers: dict[str, int], *, grow: bool) -> tuple[Any, Any]:
    """A sparse 0/1 matrix with a row a sentence and a column an n-gram, and how many n-grams each sentence has.

    Args:
        texts: the sentences.
        n: length of the n-grams.
        numbers: the column of each n-gram.
        grow: give other n-grams a column too; else they are only counted.
    """
    import numpy as np
    from scipy.sparse import csr_array

    columns, ends, sizes = array("i"), array("i", [0]), array("i")
    for text in texts:
        grams = _grams(text, n)
        sizes.append(len(grams))
        columns.extend(numbers.setdefault(gram, len(numbers)) if grow else numbers[gram] for gram in grams
                       if grow or gram in numbers)  # fmt: skip
        ends.append(len(columns))
    given = np.ones(len(columns), np.int32), np.array(columns, np.int32), np.array(ends, np.int32)
    return csr_array(given, shape=(len(texts), len(numbers))), np.array(sizes, np.int64)


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
    asked: Iterable[str] = others if len(others) <= len(texts) else filter(set(texts).__contains__, others)
    known = set(asked)
    exact = [i for i, text in enumerate(texts) if text in known]
    rest = [i for i, text in enumerate(texts) if text not in known] if near else []
    unknown = Texts(texts[i] for i in rest)
    found: dict[int, list[Overlap]] = {}
    for pair in near_duplicates(unknown, others, threshold=NEAR):
        found.setdefault(pair.left, []).append(pair)
    closest: list[Overlap] = []
    for i, pairs in found.items():
        most = max(pair.jaccard for pair in pairs)
        best = [pair for pair in pairs if pair.jaccard == most]
        # Of equally similar ones, the one that shares the n-gram that comes first in the alphabet; then the first row.
        own = _grams(unknown[i]) if len(best) > 1 else set()
        pair = min(best, key=lambda pair: min(own & _grams(others[pair.right]), default=""))
        closest.append(Overlap(rest[i], pair.right, pair.jaccard))
    return exact, closest


def _grams(text: str, n: int = LENGTH) -> set[str]:
    """The character n-grams of a sentence."""
    plain = re.sub(r"\s\s+", " ", _plain(text, n))
    return {plain[i : i + n] for i in range(len(plain) - n + 1)}


def _plain(text: str, n: int) -> str:
    """The words in lower case with single spaces, or the text itself if it has none; at least `n` characters long."""
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    # Padded with a character that no word holds. Spaces would not do: they are merged into one.
    return (" ".join(words) or text).ljust(n, "_")
