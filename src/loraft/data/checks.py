"""What is in a data source: how many rows of what, how long, and what would spoil a measurement.

Rows are looked at as they are: without limits, and with the duplicates that training may drop.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from loraft.data.dataset import Split
from loraft.data.near_duplicates import near_duplicates

NEAR = 0.8  # Jaccard index of character 4-grams: copies with a word changed
SHOWN = 10  # examples of each kind


def duplicates(split: Split) -> dict[str, int]:
    """Rows whose sentence stands in an earlier row of the split: with the same label, and with another."""
    first: dict[str, int | None] = {}
    found = Counter(same=0, other=0)
    for example in split.examples:
        if example.text in first:
            found["same" if first[example.text] == example.label else "other"] += 1
        first.setdefault(example.text, example.label)
    return dict(found)


def conflicts(splits: Sequence[Split], labels: Sequence[str]) -> dict[str, Any]:
    """Sentences with several labels, anywhere in the source: how many, their rows, and the most frequent ones."""
    counts: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for split in splits:
        for text, label in zip(split.texts, split.labels.tolist(), strict=True):
            counts[text][label] += 1
    torn = {text: count for text, count in counts.items() if len(count) > 1}
    order = sorted(torn, key=lambda text: -sum(torn[text].values()))
    return {
        "sentences": len(torn),
        "rows": sum(sum(count.values()) for count in torn.values()),
        "examples": [
            {"text": text, "labels": {labels[k]: n for k, n in sorted(torn[text].items())}} for text in order[:SHOWN]
        ],
    }


def leaks(left: Split, right: Split, *, near: bool) -> dict[str, Any]:
    """Rows of the later split that stand in the earlier one, to the letter or nearly.

    Returns:
        `left`, `right`; `exact` and `near` (None if not looked for), numbers of rows of `right`; `examples` of near
        ones, the least alike first, since those are the ones to judge.
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
