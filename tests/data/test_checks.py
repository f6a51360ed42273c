"""Duplicates, conflicting labels and rows in two splits, against counts made by hand."""

import pytest

from loraft.data import checks
from loraft.data.checks import ConflictingSentence, Conflicts, Duplicates, RowPlace, conflicts, duplicates, leaks
from loraft.data.dataset import Split
from loraft.data.records import Example

LABELS = ["negative", "neutral", "positive"]
GOOD, HOT, PLAIN = "thầy dạy rất nhiệt tình và dễ hiểu .", "phòng học nóng , máy chiếu mờ .", "bình thường ."


def split(name: str, *rows: tuple[str, int]) -> Split:
    """A split whose first row is on line 2, as below a header."""
    examples = tuple(Example(text, label, number) for number, (text, label) in enumerate(rows, start=2))
    return Split(name, examples, f"{name}.csv")


TRAIN = split("train", (GOOD, 2), (GOOD, 2), (HOT, 0), (HOT, 1), (HOT, 1), (PLAIN, 1))
VALIDATION = split("validation", (PLAIN, 0), ("tài liệu đầy đủ", 2))
TEST = split("test", (GOOD, 2), ("Thầy dạy rất nhiệt tình , và dễ hiểu", 2), ("em không có ý kiến", 1))


def test_duplicates_have_the_label_of_an_earlier_row_or_another() -> None:
    # The second row of GOOD and the third of HOT repeat an earlier one; the second of HOT has another label.
    assert duplicates(TRAIN) == Duplicates(same=2, other=1)
    assert duplicates(TRAIN).same == len(TRAIN) - len({(e.text, e.label) for e in TRAIN.examples})
    assert duplicates(TEST) == Duplicates(same=0, other=0)


def test_conflicts_are_sentences_with_several_labels_within_and_across_splits() -> None:
    assert conflicts([TRAIN, VALIDATION, TEST], LABELS) == Conflicts(
        sentences=2,
        rows=5,  # 3 of HOT and 2 of PLAIN
        examples=(
            ConflictingSentence(HOT, {"negative": 1, "neutral": 2}),
            ConflictingSentence(PLAIN, {"negative": 1, "neutral": 1}),
        ),
    )
    assert conflicts([TEST], LABELS) == Conflicts(sentences=0, rows=0, examples=())


def test_leaks_are_counted_by_rows_of_the_second_split() -> None:
    found = leaks(TRAIN, TEST, near=True)
    assert (found.left, found.right) == ("train", "test")
    # The first test row is a training row. Case and punctuation do not count: the second is nearly that row too.
    assert (found.exact, found.near) == (1, 1)
    (example,) = found.examples
    assert example.jaccard == 1.0
    assert example.right == RowPlace("test", 3, "Thầy dạy rất nhiệt tình , và dễ hiểu")
    assert example.left.text == GOOD
    back = leaks(TEST, TRAIN, near=True)
    assert (back.exact, back.near) == (2, 0)


def test_a_row_that_is_near_several_others_counts_once_by_the_most_similar() -> None:
    one = "cô nên nói chậm hơn một chút để cả lớp kịp ghi bài đầy đủ"
    left = split("train", (one + " ạ", 0), (one + " nhé", 0), (one, 0))
    found = leaks(left, split("test", (one + " .", 0), (one + " nha", 0)), near=True)
    assert found.near == 2
    # The least similar pair first: whether it is a copy is for a person to judge.
    indices = [example.jaccard for example in found.examples]
    assert indices == sorted(indices)
    assert indices[0] < 1
    best = found.examples[-1]
    assert (best.jaccard, best.right.row, best.left.row) == (1.0, 2, 4)  # not one of the longer forms


def test_near_duplicates_are_left_out_on_request() -> None:
    found = leaks(TRAIN, TEST, near=False)
    assert (found.exact, found.near, found.examples) == (1, None, ())


def test_splits_without_a_common_sentence_have_no_leak() -> None:
    found = leaks(VALIDATION, TEST, near=True)
    assert (found.exact, found.near, found.examples) == (0, 0, ())


def test_examples_are_the_first_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "SHOWN", 1)
    assert len(conflicts([TRAIN, VALIDATION], LABELS).examples) == 1
    near = split("test", (GOOD + "!", 0), (HOT + "!", 0))
    found = leaks(TRAIN, near, near=True)
    assert (found.near, len(found.examples)) == (2, 1)


def test_a_row_is_described_by_split_number_and_sentence() -> None:
    assert RowPlace.of(VALIDATION, 1) == RowPlace("validation", 3, "tài liệu đầy đủ")
