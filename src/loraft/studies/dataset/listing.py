"""Lists the rows behind the numbers of `loraft data`: those that leak, conflict, repeat others or are shortened."""

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

from loraft.config.kinds import refuse_label_sets
from loraft.config.schema import Config
from loraft.data.dataset import Split
from loraft.data.examples import conflicting_texts, digest
from loraft.data.near_duplicates import rows_also_in
from loraft.errors import ConfigError, DataError
from loraft.studies.dataset.statistics import load_splits

Listed = dict[str, Any]  # a line of the list: a value for each column
ROW = ("split", "row", "text", "label")
OTHER = tuple(f"other_{column}" for column in ROW)


def listed(config: Config, kind: str) -> tuple[tuple[str, ...], list[Listed]]:
    """The columns of a list, and the rows of that kind by split and row; those that conflict by text.

    A line holds the row (`split`, `row`, `text`, `label`), and the row that it matches under the same names with
    `other_` before them; or, of a shortened row, how many of its characters are left out of the prompt.

    Args:
        config: gives source and task; row limits are not applied, and nothing is dropped.
        kind: one of `KINDS`.

    Raises:
        ConfigError: `kind` is none of them, or a row has any number of labels (`prompt.kind=multilabel`).
        DataError: a split cannot be read, or the source has none.
    """
    if kind not in KINDS:
        raise ConfigError(f"--list: unknown (got {kind!r}); allowed: {', '.join(KINDS)}")
    refuse_label_sets(config, f"data --list {kind}")
    columns, find = KINDS[kind]
    return columns, list(find(config, load_splits(config)[0]))


def _leaks(config: Config, splits: list[Split]) -> Iterator[Listed]:
    """Rows that an earlier split holds, the same or nearly; see `checks.leaks`."""
    if len(splits) == 1:
        raise DataError(
            f"{splits[0].source}: one split, so that there is nothing to compare (got {splits[0].name} only); name"
            " another with --set data.test_split=FILE, or draw some with --set 'data.split=[0.8, 0.1, 0.1]'"
        )
    for left, right in combinations(splits, 2):
        exact, near = rows_also_in(left.texts, right.texts, near=True)
        shared = {right.texts[i] for i in exact}
        first_of: dict[str, int] = {}
        for i, text in enumerate(left.texts):
            if text in shared:
                first_of.setdefault(text, i)
        found = [(i, first_of[right.texts[i]], 1.0) for i in exact]
        found += [(pair.left, pair.right, round(pair.jaccard, 3)) for pair in near]
        for i, j, jaccard in sorted(found):
            yield _pair(config, right, i, left, j) | {"jaccard": jaccard}


def _conflicts(config: Config, splits: list[Split]) -> Iterator[Listed]:
    """Rows whose text has another label elsewhere, each with the first row that has another label."""
    places: dict[str, list[tuple[Split, int]]] = {}
    several = conflicting_texts(split.examples for split in splits)
    for split in splits:
        for i, text in enumerate(split.texts):
            if digest(text) in several:
                places.setdefault(text, []).append((split, i))
    for same in places.values():
        for split, i in same:
            others = [(other, j) for other, j in same if other.labels[j] != split.labels[i]]
            if others:
                yield _pair(config, split, i, *others[0])


def _duplicates(config: Config, splits: list[Split]) -> Iterator[Listed]:
    """Rows whose text and label are those of an earlier row of their split; see `checks.duplicates`."""
    for split in splits:
        first_of: dict[bytes, int] = {}
        for i, row in enumerate(zip(split.texts, split.labels.tolist(), strict=True)):
            if first_of.setdefault(key := digest(*row), i) != i:
                yield _pair(config, split, i, split, first_of[key])


def _shortened(config: Config, splits: list[Split]) -> Iterator[Listed]:
    """Rows whose text does not fit into `prompt.max_length` tokens with the rest of the prompt."""
    from loraft.models.load import build_encoder  # imported here, since it imports torch

    encoder = build_encoder(config)
    for split in splits:
        for i, prompt in enumerate(encoder.encode(split.texts)):
            if prompt.cut:
                yield _row(config, split, i) | {"tokens": prompt.sentence, "tokens_left_out": prompt.cut}


def _row(config: Config, split: Split, i: int, columns: tuple[str, ...] = ROW) -> Listed:
    example, labels = split.examples[i], config.prompt.labels or []
    text = example.text if config.output.texts else ""
    return dict(zip(columns, (split.name, example.row, text, labels[split.labels[i]]), strict=True))


def _pair(config: Config, split: Split, i: int, other: Split, j: int) -> Listed:
    return _row(config, split, i) | _row(config, other, j, OTHER)


KINDS: dict[str, tuple[tuple[str, ...], Callable[[Config, list[Split]], Iterator[Listed]]]] = {
    "leaks": ((*ROW, *OTHER, "jaccard"), _leaks),
    "conflicts": ((*ROW, *OTHER), _conflicts),
    "duplicates": ((*ROW, *OTHER), _duplicates),
    "shortened": ((*ROW, "tokens", "tokens_left_out"), _shortened),
}
