"""Drawn splits: disjoint, complete, stratified, near-duplicates together, and the same rows again."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.data import LABELS, load, sentences, write_rows

from loraft.config.resolve import resolve
from loraft.data.near_duplicates import NEAR, near_duplicates
from loraft.data.records import Example
from loraft.data.splitting import assigned
from loraft.errors import ConfigError, DataError

SHARES = [0.8, 0.1, 0.1]


def drawn(texts: list[str], labels: list[int], shares: list[float] = SHARES, seed: int = 42) -> list[int]:
    return assigned(texts, labels, shares, seed, LABELS, "tệp.csv")


def test_each_label_is_within_one_row_of_its_share() -> None:
    texts = sentences(437)
    labels = [0] * 211 + [1] * 29 + [2] * 197
    assert not [pair for pair in near_duplicates(texts, texts, threshold=NEAR) if pair.left != pair.right]
    counts = Counter(zip(drawn(texts, labels), labels, strict=True))
    for label, rows in enumerate([211, 29, 197]):
        assert [abs(counts[split, label] - share * rows) < 1 for split, share in enumerate(SHARES)] == [True] * 3
    assert sum(counts.values()) == 437


def test_near_duplicates_are_in_one_split_and_each_label_within_one_group_of_its_share() -> None:
    # Groups of four: a sentence, the same again, and two copies with one character more; the last has another label.
    texts = [copy for text in sentences(100) for copy in (text, text, f"{text}.", f"{text}1")]
    labels = [label for i in range(100) for label in (i % 2, i % 2, i % 2, (i + i % 3 // 2) % 2)]
    splits = drawn(texts, labels, [0.6, 0.2, 0.2])
    for start in range(0, 400, 4):
        assert len(set(splits[start : start + 4])) == 1
    for pair in near_duplicates(texts, texts, threshold=NEAR):
        assert splits[pair.left] == splits[pair.right]
    counts, rows = Counter(zip(splits, labels, strict=True)), Counter(labels)
    for (split, label), count in counts.items():
        assert abs(count - [0.6, 0.2, 0.2][split] * rows[label]) <= 4


def test_rows_in_another_order_are_drawn_alike_and_another_seed_draws_others() -> None:
    texts, labels = sentences(120), [i % 3 for i in range(120)]
    by_text = dict(zip(texts, drawn(texts, labels), strict=True))
    order = random.Random(1).sample(range(120), 120)
    mixed = drawn([texts[i] for i in order], [labels[i] for i in order])
    assert mixed == [by_text[texts[i]] for i in order]
    assert drawn(texts, labels, seed=43) != drawn(texts, labels)


def test_rare_labels_are_in_every_split_or_refused() -> None:
    texts, labels = sentences(60), [0] * 50 + [1] * 3 + [2] * 7
    counts = Counter(zip(drawn(texts, labels), labels, strict=True))
    assert [counts[split, 1] for split in range(3)] == [1, 1, 1]
    assert [counts[split, 2] for split in range(3)] == [5, 1, 1]
    with pytest.raises(DataError, match=r"to draw 3 splits \(got neutral: 2 rows\); each split needs one"):
        drawn(texts[:59], [0] * 50 + [2] * 7 + [1] * 2)
    # Groups of 3, 2 and 2 copies: the largest shares would leave the third split without one.
    groups = [
        f"{text}{dot}" for text, size in zip(texts[50:], (3, 2, 2), strict=False) for dot in (".", "!", "?")[:size]
    ]
    assert sorted(Counter(drawn([*texts[:50], *groups], [0] * 50 + [1] * 7)[50:]).values()) == [2, 2, 3]
    copies = [*texts[:50], texts[50], f"{texts[50]}.", f"{texts[50]} "]
    with pytest.raises(DataError, match=r"neutral: 3 rows in 1 near-duplicate groups.*held together.*test_split=FILE"):
        drawn(copies, [0] * 50 + [1] * 3)
    assert set(drawn(texts[:52], [0] * 50 + [1] * 2, [0.9, 0.1, 0])) == {0, 1}


def one_row(example: Example) -> dict[str, Any]:
    return {"sentence": example.text, "sentiment": example.label}


def one_file(folder: Path, name: str = "góp ý.csv", count: int = 60) -> Path:
    rows = [{"sentence": text, "sentiment": i % 3} for i, text in enumerate(sentences(count))]
    return write_rows(folder / name, rows)


def test_one_file_gives_three_splits_that_share_no_row_and_leave_none_out(tmp_path: Path) -> None:
    path = one_file(tmp_path)
    splits = [load(path, name, split=SHARES) for name in ("train", "validation", "test")]
    assert [len(split) for split in splits] == [48, 6, 6]
    assert sorted(example.row for split in splits for example in split.examples) == list(range(1, 61))
    assert len({split.pool for split in splits}) == 1
    write_rows(mixed := tmp_path / "đảo.csv", [one_row(example) for example in reversed(load(path).examples)])
    assert load(mixed, "test", split=SHARES).pool == splits[0].pool  # the same rows, drawn alike
    assert {*load(mixed, "test", split=SHARES).texts} == {*splits[2].texts}
    assert load(path, "test", split=SHARES).pool != load(one_file(tmp_path, "ít.csv", 59), split=SHARES).pool
    assert splits[1].source == f"{path} (10% drawn for validation, seed 42)"
    assert load(path, "test", split=SHARES).fingerprint == splits[2].fingerprint
    assert load(path, "test", split=SHARES, split_seed=7).fingerprint != splits[2].fingerprint
    assert len(load(path, str(path), split=SHARES)) == 60  # a file that is named is read whole


def test_a_share_of_0_keeps_the_split_of_the_source(tmp_path: Path) -> None:
    one_file(tmp_path, "train.csv")
    write_rows(tmp_path / "test.csv")
    splits = {name: load(tmp_path, name, split=[0.9, 0.1, 0]) for name in ("train", "validation", "test")}
    assert {name: len(split) for name, split in splits.items()} == {"train": 54, "validation": 6, "test": 3}
    assert splits["test"].pool is None
    with pytest.raises(DataError, match=r"data\.split=\[0\.8, 0\.1, 0\.1\]"):
        load(tmp_path / "train.csv", "test", split=[0.9, 0.1, 0])


def test_splits_of_the_source_that_are_drawn_instead_are_counted(tmp_path: Path) -> None:
    one_file(tmp_path, "train.csv")
    write_rows(tmp_path / "test.csv")
    assert load(tmp_path, split=SHARES).notes == {"rows of the source's own test split unused (data.split)": 3}
    assert load(tmp_path, split=[0.9, 0.1, 0]).notes == {}
    assert load(tmp_path, "test", split=SHARES).notes == {}


@pytest.mark.parametrize(
    ("shares", "named", "ways"),
    [
        ([0.7, 0.1, 0.2], {"test_split": "ý.csv"}, "ý.csv out, or give it no share: data.split=[0.9, 0.1, 0]"),
        ([0.9, 0.1, 0], {"validation_split": "dev"}, "data.validation_split=dev out, or leave data.split out"),
        ([0.8, 0.1, 0.1], {"validation_split": "a", "test_split": "b"}, "=b out, or leave data.split out"),
    ],
)  # fmt: skip
def test_a_split_that_is_named_and_drawn_is_refused(shares: list[float], named: dict[str, str], ways: str) -> None:
    with pytest.raises(ConfigError, match=r"^data\.split: draws the .* would not be read") as found:
        resolve(overrides=[f"data.split={shares}", *(f"data.{key}={name}" for key, name in named.items())])
    assert str(found.value).endswith(ways)
    assert resolve(overrides=["data.split=[0.9, 0.1, 0]", "data.test_split=ý.csv"]).data.split == [0.9, 0.1, 0]


def test_leaked_rows_are_those_of_the_drawn_splits(tmp_path: Path) -> None:
    path = one_file(tmp_path)
    dropped = load(path, split=SHARES, drop_leaked=True)
    assert dropped.fingerprint == load(path, split=SHARES).fingerprint  # near-duplicates are in one split already


@pytest.mark.parametrize("shares", ["[0.8, 0.1]", "[0.8, 0.1, 0.2]", "[1, 0, 0]", "[0, 0.5, 0.5]", "[1.2, -0.1, -0.1]",
                                    "0.8", "[tám, 0.1, 0.1]", "[true, 0, 0]"])  # fmt: skip
def test_shares_that_do_not_sum_to_1_are_refused_with_an_example(shares: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^data\.split: .*; for example \[0\.8, 0\.1, 0\.1\]|^data\.split: holds a bool"
    ):
        resolve(overrides=[f"data.split={shares}"])


@pytest.mark.parametrize("fold", ["2", "0/5", "6/5", "1/1", "2/5/1"])
def test_a_fold_that_is_none_is_refused_with_an_example(fold: str) -> None:
    with pytest.raises(ConfigError, match=r"^data\.fold: is no fold .*; for example 2/5"):
        resolve(overrides=[f"data.fold={fold}"])
