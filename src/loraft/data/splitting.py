"""Draw train, validation and test rows from one list of rows: stratified, with near-duplicates in one split.

Shapes: N rows, K labels, G groups of near-duplicates, S splits.
"""

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from loraft.data.near_duplicates import NEAR, near_duplicates
from loraft.data.records import Example
from loraft.errors import DataError, Note, listed

COMMON = 10  # rows of a label from which on it decides where a row with several labels is drawn to
FOLD_VALIDATION = 0.1  # of the rows outside of a fold: picks its checkpoint
MOST_TEXTS = 30_000  # different sentences up to which near-duplicates are looked for: a minute of one CPU core


class DrawError(DataError):
    """The rows are in order, but too few for the splits that are to be drawn."""


def drawn_splits(
    examples: Sequence[Example], shares: Sequence[float], seed: int, labels: Sequence[str], where: str
) -> list[int]:
    """The number of the split of each example, see `assigned`.

    A row with any number of labels counts for the rarest of its labels that has `COMMON` rows, or for none.
    """
    rows = Counter(k for example in examples if isinstance(example.label, tuple) for k in example.label)

    def stratum(label: int | tuple[int, ...] | None) -> int:
        if isinstance(label, tuple):
            return min((k for k in label if rows[k] >= COMMON), key=lambda k: rows[k], default=len(labels))
        return label or 0

    strata = [stratum(example.label) for example in examples]
    return assigned([example.text for example in examples], strata, shares, seed, [*labels, "no label"], where)


def fold_rows(
    examples: Sequence[Example], name: str, number: int, folds: int, seed: int, labels: Sequence[str], where: str
) -> list[Example]:
    """The test rows of a fold (from 1), or of the other folds' rows the validation rows, or the rest for training."""

    def drawn(rows: Sequence[Example], shares: Sequence[float]) -> list[list[Example]]:
        found = drawn_splits(rows, shares, seed, labels, where)
        return [[e for e, one in zip(rows, found, strict=True) if one == s] for s in range(len(shares))]

    parts = drawn(examples, [1 / folds] * folds)
    if name == "test":
        return parts[number - 1]
    others = [example for part in parts[: number - 1] + parts[number:] for example in part]
    train, validation = drawn(sorted(others, key=lambda example: example.row), [1 - FOLD_VALIDATION, FOLD_VALIDATION])
    return train if name == "train" else validation


def assigned(
    texts: Sequence[str], labels_N: Sequence[int], shares: Sequence[float], seed: int, names: Sequence[str], where: str
) -> list[int]:
    """The number of the split that each of N rows belongs to; a function of the rows and the seed, not of their order.

    Rows of which one is nearly the same as another are one group, and a group is in one split. Groups are taken by
    size, the largest first, and those of one size in the order of a hash of seed and row. Each goes to the split that
    lacks most rows of the group's most frequent label. So a split has its share of each label, to the nearest row or
    the nearest group, and at least one row of each.

    Args:
        texts, labels_N: sentences and label ids.
        shares: of each of S splits; they sum to 1, and a split with share 0 gets no row.
        seed: of the draw.
        names: of the K labels, for messages.
        where: the source, for messages.

    Raises:
        DrawError: a label has fewer groups than there are splits with a share.
    """
    return list(_assigned(tuple(texts), tuple(labels_N), tuple(shares), seed, tuple(names), where))


@lru_cache(maxsize=8)  # train, validation and test of a command are loaded one after the other
def _assigned(
    texts: tuple[str, ...], labels_N: tuple[int, ...], shares: tuple[float, ...], seed: int, names: tuple[str, ...],
    where: str,
) -> tuple[int, ...]:  # fmt: skip
    groups = near_duplicate_groups(texts, where)
    counted = [Counter(labels_N[i] for i in rows) for rows in groups]
    primary_G = [min(count, key=lambda k: (-count[k], k)) for count in counted]
    drawn = [s for s, share in enumerate(shares) if share > 0]
    left_K, rows_K = Counter(primary_G), Counter(labels_N)
    few = [k for k in sorted(rows_K) if left_K[k] < len(drawn)]
    if few:
        copies = {k: f" in {left_K[k]} near-duplicate groups" if left_K[k] < rows_K[k] else "" for k in few}
        got = listed(f"{names[k]}: {rows_K[k]} rows{copies[k]}" for k in few)
        hint = "each split needs one: add rows, leave the label out, or ask for fewer splits (data.split, --folds)"
        if any(copies.values()):
            hint = (
                "the rows of a group have nearly the same text and are held together, so that none is measured on after"
                " training on its copy: name files of your own, data.validation_split=FILE and data.test_split=FILE, in"
                " the place of data.split or --folds, or add rows that differ"
            )
        raise DrawError(f"{where}: too few rows of a label to draw {len(drawn)} splits (got {got}); {hint}")
    missing = {(s, k): count for k in rows_K for s, count in enumerate(_targets(rows_K[k], shares))}
    empty = set(missing)

    def place_of(g: int) -> tuple[int, str]:
        return -len(groups[g]), min(_hash(seed, texts[i], labels_N[i]) for i in groups[g])

    split_N = [0] * len(texts)
    for g in sorted(range(len(groups)), key=place_of):
        k = primary_G[g]
        without = [s for s in drawn if (s, k) in empty]
        # The last groups of a label are for the splits that have none of it yet.
        allowed = without if len(without) >= left_K[k] else drawn
        chosen = max(allowed, key=lambda s: missing[s, k])
        left_K[k] -= 1
        empty.discard((chosen, k))
        for label, count in counted[g].items():
            missing[chosen, label] -= count
        for i in groups[g]:
            split_N[i] = chosen
    return tuple(split_N)


def _targets(rows: int, shares: Sequence[float]) -> list[int]:
    """How many of a label's rows each split should get: its share, rounded so that the sum is right, and at least 1."""
    exact = [share * rows for share in shares]
    counts = [int(share > 0 and max(1, int(count + 1e-9))) for share, count in zip(shares, exact, strict=True)]
    while sum(counts) != rows:
        step = 1 if sum(counts) < rows else -1
        able = [s for s, share in enumerate(shares) if share > 0 and counts[s] + step >= 1]
        counts[max(able, key=lambda s: step * (exact[s] - counts[s]))] += step
    return counts


@lru_cache(maxsize=2)  # of an audit, for the folds and for the conflicts
def near_duplicate_groups(texts: tuple[str, ...], where: str) -> list[list[int]]:
    """The rows in groups: any two that are nearly the same, or linked by such pairs, are together."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    numbers = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    distinct = list(numbers)
    pairs = near_duplicates(distinct, distinct, threshold=NEAR) if len(distinct) <= MOST_TEXTS else []
    if len(distinct) > MOST_TEXTS:
        warnings.warn(
            f"{where}: of {len(distinct):,} different sentences only the same ones are kept in one split, as a search"
            " for nearly the same ones would take minutes",
            Note,
            stacklevel=2,
        )
    ends = np.array([(pair.left, pair.right) for pair in pairs], dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(distinct), len(distinct)))
    group_of = connected_components(graph, directed=False)[1]
    groups: dict[int, list[int]] = {}
    for i, text in enumerate(texts):
        groups.setdefault(int(group_of[numbers[text]]), []).append(i)
    return list(groups.values())


def _hash(seed: int, text: str, label: int) -> str:
    return hashlib.sha256(json.dumps([seed, text, label]).encode()).hexdigest()
