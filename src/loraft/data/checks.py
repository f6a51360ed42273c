"""Find the rows that would distort a score: duplicates, conflicting labels, and rows that two splits share."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from loraft.data.dataset import Split
from loraft.data.near_duplicates import near_duplicates

NEAR = 0.8  # Jaccard index of character 4-grams above which two rows are nearly the same: copies with a word changed
SHOWN = 10  # examples given of each kind


def duplicates(split: Split) -> dict[str, int]:
    """Numbers of rows whose sentence is that of an earlier row of the split.

    Returns:
        `same`: the first row with the sentence has the same label; `other`: it has another one.
    """
    first: dict[str, int | None] = {}
    found = Counter(same=0, other=0)
    for example in split.examples:
        if example.text in first:
            found["same" if first[example.text] == example.label else "other"] += 1
        first.setdefault(example.text, example.label)
    return dict(found)


def conflicts(splits: Sequence[Split], labels: Sequence[str]) -> dict[str, Any]:
    """Sentences that have several labels, within a split or across splits.

    Args:
        splits: all splits of the source.
        labels: label names in id order.

    Returns:
        `sentences`, their number; `rows`, the number of their rows; `examples`, those with the most rows, each with its
        text and the number of rows of each label.
    """
    counts: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for split in splits:
        for text, label in zip(split.texts, split.labels.tolist(), strict=True):
            counts[text][label] += 1
    several = {text: count for text, count in counts.items() if len(count) > 1}
    order = sorted(several, key=lambda text: -sum(several[text].values()))
    return {
        "sentences": len(several),
        "rows": sum(sum(count.values()) for count in several.values()),
        "examples": [
            {"text": text, "labels": {labels[k]: n for k, n in sorted(several[text].items())}} for text in order[:SHOWN]
        ],
    }


def leaks(left: Split, right: Split, *, near: bool) -> dict[str, Any]:
    """Rows of the split `right` whose sentence is also in the split `left`, exactly or nearly.

    Args:
        left: the split that is used first, such as train.
        right: the split that is measured on.
        near: look for near-duplicates too, which takes seconds on large splits.

    Returns:
        `left`, `right`: names of the splits; `exact`, `near` (None if not looked for): numbers of rows of `right`;
        `examples` of near ones, the least similar first, since whether those are copies is for a person to judge.
    """
    left_texts, right_texts = left.texts, right.texts
    exact = set(left_texts) & set(right_texts)
    result: dict[str, Any] = {
        "left": left.name,
        "right": right.name,
        "exact": sum(text in exact for text in right_texts),
        "near": None,
        "examples": [],
    }
    if not near:
        return result
    # Rows that are in `left` exactly are not counted again as near; each other row counts once, by its most similar
    # row in `left` (the last pair of a sorted list wins in the dict).
    rest = [i for i, text in enumerate(right_texts) if text not in exact]
    pairs = near_duplicates([right_texts[i] for i in rest], left_texts, threshold=NEAR)
    closest = {pair.left: pair for pair in sorted(pairs, key=lambda pair: pair.jaccard)}
    result["near"] = len(closest)
    result["examples"] = [
        {
            "jaccard": round(pair.jaccard, 3),
            right.name: place_of_row(right, rest[pair.left]),
            left.name: place_of_row(left, pair.right),
        }
        for pair in sorted(closest.values(), key=lambda pair: pair.jaccard)[:SHOWN]
    ]
    return result


def place_of_row(split: Split, index: int) -> dict[str, Any]:
    """Split, row number and sentence of one row, ready for JSON."""
    example = split.examples[index]
    return {"split": split.name, "row": example.row, "text": example.text}
