"""Find the rows that would distort a score: duplicates, conflicting labels, and rows that two splits share."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loraft.data.dataset import Split
from loraft.data.examples import conflicting_texts, digest, first_rows
from loraft.data.near_duplicates import NEAR, near_duplicates, rows_also_in

SHOWN = 10  # examples given of each kind


@dataclass(frozen=True)
class RowPlace:
    """A row for display: name of its split, number in its file, sentence."""

    split: str
    row: int
    text: str

    @classmethod
    def of(cls, split: Split, index: int) -> "RowPlace":
        """The row of a split with that index."""
        example = split.examples[index]
        return cls(split.name, example.row, example.text)


@dataclass(frozen=True)
class Duplicates:
    """Numbers of rows of a split whose sentence is that of an earlier row.

    Attributes:
        same: of them, those of which an earlier one has the label too: what `data.drop_duplicates` drops.
        other: the others, whose sentence conflicts.
    """

    same: int
    other: int


@dataclass(frozen=True)
class ConflictingSentence:
    """A sentence with several labels: number of rows of each label."""

    text: str
    labels: dict[str, int]


@dataclass(frozen=True)
class Conflicts:
    """Sentences with several labels.

    Attributes:
        sentences: their number.
        rows: number of rows that have such a sentence.
        examples: the sentences with the most rows.
    """

    sentences: int
    rows: int
    examples: tuple[ConflictingSentence, ...]


@dataclass(frozen=True)
class NearPair:
    """Two rows of different splits that are nearly the same, and the Jaccard index of their character 4-grams."""

    jaccard: float
    left: RowPlace
    right: RowPlace

    def to_json(self) -> dict[str, Any]:
        """The Jaccard index, and each row under the name of its split."""
        return {"jaccard": self.jaccard, self.right.split: asdict(self.right), self.left.split: asdict(self.left)}


@dataclass(frozen=True)
class Leaks:
    """Rows of one split whose sentence is also in another split.

    Attributes:
        left: name of the split that is used first, such as train.
        right: name of the split that is measured on; its rows are counted.
        exact: number of rows whose sentence is in both.
        near: number of other rows that are nearly the same as a row of `left`; None if not looked for.
        examples: of near rows, the least similar first, since whether those are copies is for a person to judge.
    """

    left: str
    right: str
    exact: int
    near: int | None = None
    examples: tuple[NearPair, ...] = ()


def duplicates(split: Split) -> Duplicates:
    """Numbers of rows whose sentence is that of an earlier row of the split."""
    texts, rows = len({digest(text) for text in split.texts}), len(first_rows(split.examples))
    return Duplicates(same=len(split) - rows, other=rows - texts)


def near_repeats(split: Split) -> int:
    """Number of sentences that are nearly the same as an earlier one of the split, but not the same."""
    texts = list(dict.fromkeys(split.texts))
    pairs = near_duplicates(texts, texts, threshold=NEAR)  # each in both orders, and every sentence with itself
    return len({pair.right for pair in pairs if pair.left < pair.right})


def conflicts(splits: Sequence[Split], labels: Sequence[str]) -> Conflicts:
    """Sentences that have several labels, within a split or across splits.

    Args:
        splits: all splits of the source.
        labels: label names in id order.
    """
    conflicting = conflicting_texts(split.examples for split in splits)
    several: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for split in splits:
        for text, label in zip(split.texts, split.labels.tolist(), strict=True):
            if digest(text) in conflicting:
                several[text][label] += 1
    order = sorted(several, key=lambda text: -sum(several[text].values()))
    return Conflicts(
        sentences=len(several),
        rows=sum(sum(count.values()) for count in several.values()),
        examples=tuple(
            ConflictingSentence(text, {labels[k]: n for k, n in sorted(several[text].items())})
            for text in order[:SHOWN]
        ),
    )


def leaks(left: Split, right: Split, *, near: bool) -> Leaks:
    """Rows of the split `right` whose sentence is also in the split `left`, exactly or nearly.

    Args:
        left: the split that is used first, such as train.
        right: the split that is measured on.
        near: look for near-duplicates too, which takes seconds on large splits.
    """
    exact, pairs = rows_also_in(left.texts, right.texts, near=near)
    examples = tuple(
        NearPair(round(pair.jaccard, 3), RowPlace.of(left, pair.right), RowPlace.of(right, pair.left))
        for pair in sorted(pairs, key=lambda pair: pair.jaccard)[:SHOWN]
    )
    return Leaks(left.name, right.name, len(exact), len(pairs) if near else None, examples)
