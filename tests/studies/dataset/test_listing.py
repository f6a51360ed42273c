"""The rows behind the numbers of `loraft data`, each with the row that it matches."""

import json
from pathlib import Path

import pytest

from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.data.dataset import load_data
from loraft.errors import ConfigError, DataError
from loraft.models.load import build_encoder
from loraft.studies.dataset.listing import listed

WARM, HOT, PLAIN = "thầy dạy rất nhiệt tình và dễ hiểu .", 'phòng học nóng , "máy chiếu" mờ .', "bình thường ."
ROWS = {
    "train": [(WARM, 2), (WARM, 2), (HOT, 0), (HOT, 1), (PLAIN, 1)],
    "validation": [(PLAIN, 0), ("tài liệu đầy đủ", 2)],
    "test": [("thầy dạy rất nhiệt tình , và dễ hiểu lắm", 2), (WARM, 2)],
}
NAMES = ("negative", "neutral", "positive")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name, rows in ROWS.items():
        lines = [json.dumps({"sentence": text, "sentiment": NAMES[label]}, ensure_ascii=False) for text, label in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def config_of(source: Path, *overrides: str) -> Config:
    return resolve(overrides=[*overrides], flags={"data.source": str(source)})


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("leaks", [("validation", 1, "train", 5), ("test", 1, "train", 1), ("test", 2, "train", 1)]),
        ("conflicts", [("train", 3, "train", 4), ("train", 4, "train", 3), ("train", 5, "validation", 1),
                       ("validation", 1, "train", 5)]),
        ("duplicates", [("train", 2, "train", 1)]),
    ],
)  # fmt: skip
def test_rows_are_listed_with_the_row_that_they_match(
    source: Path, kind: str, expected: list[tuple[str, int, str, int]]
) -> None:
    columns, rows = listed(config_of(source, "data.drop_duplicates=true", "data.max_train_rows=1"), kind)
    assert [(row["split"], row["row"], row["other_split"], row["other_row"]) for row in rows] == expected
    for row in rows:
        assert tuple(row) == columns
        for before in ("", "other_"):
            text, label = ROWS[row[f"{before}split"]][row[f"{before}row"] - 1]
            assert (row[f"{before}text"], row[f"{before}label"]) == (text, NAMES[label])
    if kind == "leaks":  # of 34 and 38 characters without punctuation: 31 4-grams are in both, 35 in either
        assert [row["jaccard"] for row in rows] == [1, 0.886, 1]


def test_shortened_rows_say_how_many_tokens_are_left_out(source: Path) -> None:
    encoder = build_encoder(resolve())
    room = max(len(prompt.ids) for prompt in encoder.encode([HOT, PLAIN])) + max(map(len, encoder.completions_K))
    config = config_of(source, f"prompt.max_length={room - 1}")
    columns, rows = listed(config, "shortened")
    assert columns == ("split", "row", "text", "label", "tokens", "tokens_left_out")
    texts = [text for text, _ in ROWS["train"]]
    empty, *cut = (len(prompt.ids) for prompt in build_encoder(config).encode(["", *texts]))
    whole = [len(prompt.ids) for prompt in build_encoder(config, whole=True).encode(texts)]
    by_hand = [(one - empty, one - short) for one, short in zip(whole, cut, strict=True) if one > short]
    found = [(row["tokens"], row["tokens_left_out"]) for row in rows if row["split"] == "train"]
    assert found == by_hand != []
    assert {row["row"] for row in rows if row["split"] == "train"} >= {3, 4}
    assert listed(config_of(source), "shortened") == (columns, [])


def test_leaks_of_one_split_are_refused(source: Path) -> None:
    with pytest.raises(DataError, match=r"train\.jsonl: one split.*data\.test_split=FILE.*'data\.split="):
        listed(config_of(source / "train.jsonl"), "leaks")


def test_duplicates_are_the_rows_that_training_would_drop(source: Path) -> None:
    for name in ROWS:
        path = str(source / f"{name}.jsonl")
        dropped = len(ROWS[name]) - len(load_data(config_of(Path(path), "data.drop_duplicates=true"), "train"))
        assert len(listed(config_of(Path(path)), "duplicates")[1]) == dropped


def test_an_unknown_kind_is_refused_with_the_known_ones(source: Path) -> None:
    with pytest.raises(ConfigError, match=r"--list: unknown \(got 'all'\); allowed: leaks, conflicts, dup"):
        listed(config_of(source), "all")
