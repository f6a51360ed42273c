"""Training rows that are dropped, and what is told of it."""

from pathlib import Path

import pytest
from helpers.data import load, write_rows

from loraft.data.dataset import Split

TRAIN = [("thầy dạy rất dễ hiểu", 2), ("phòng nóng", 0), ("phòng nóng", 2), ("bài tập quá nhiều và quá khó .", 0),
         ("thầy dạy rất dễ hiểu", 2), ("lớp học vui", 2)]  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name, rows in {
        "train": TRAIN,
        "validation": [("lớp học vui", 0)],
        "test": [("Bài tập quá nhiều và quá khó!", 0)],
    }.items():
        write_rows(tmp_path / f"{name}.csv", [{"sentence": text, "sentiment": label} for text, label in rows])
    return tmp_path


def rows_of(split: Split) -> list[str]:
    return [example.text for example in split.examples]


def test_rows_that_conflict_are_dropped_with_all_their_labels(source: Path) -> None:
    found = load(source, drop_conflicts=True)
    assert rows_of(found) == [text for text, _ in TRAIN if text != "phòng nóng"]
    assert found.notes == {"conflicting rows dropped": 2, "duplicate rows": 1}


def test_rows_of_validation_and_test_are_dropped_from_train_alone(source: Path) -> None:
    found = load(source, drop_leaked=True)
    assert rows_of(found) == [TRAIN[i][0] for i in (0, 1, 2, 4)]  # one is in validation, one nearly in test
    assert found.notes["rows of validation or test dropped"] == 2
    assert len(load(source, "test", drop_leaked=True)) == 1
    (source / "validation.csv").unlink()
    assert len(load(source, drop_leaked=True)) == 5


def test_all_three_go_together_and_the_limit_counts_what_is_left(source: Path) -> None:
    found = load(source, limit=1, drop_conflicts=True, drop_leaked=True, drop_duplicates=True)
    assert rows_of(found) == ["thầy dạy rất dễ hiểu"]
    assert found.notes == {
        "conflicting rows dropped": 2, "rows of validation or test dropped": 2, "duplicate rows dropped": 1
    }  # fmt: skip
