"""Tables of a data source's statistics: each number is where its heading says, and empty tables are left out."""

from dataclasses import replace

import pytest

from loraft.data.checks import ConflictingSentence, Conflicts, Duplicates, Leaks, NearPair, RowPlace
from loraft.display.page import cells
from loraft.studies.dataset import tables
from loraft.studies.dataset.records import (
    CrossTable,
    DatasetStatistics,
    Lengths,
    LongPrompt,
    LongRow,
    SplitStatistics,
    TokenLengths,
)

SENTENCE = "phòng học nóng , máy chiếu mờ , cần sửa sớm cho kịp học kỳ mới ."  # 64 characters
NEAR = tuple(
    NearPair(0.81 + n / 100, RowPlace("train", 10 + n, f"trái {n}"), RowPlace("test", 20 + n, f"phải {n}"))
    for n in range(4)
)


def lengths(first: int) -> Lengths:
    return Lengths(first + 0.25, {"50%": first + 1, "90%": first + 2, "95%": first + 3, "99%": first + 4}, first + 5)


@pytest.fixture
def data() -> DatasetStatistics:
    """30 rows in two splits with everything that can be found in them."""
    place = RowPlace("test", 3, SENTENCE)
    return DatasetStatistics(
        path="runs/data", source="góp ý", task="sentiment", labels=("xấu", "tốt"), label_column="cảm xúc", by="khoa",
        rows=30,
        splits=(
            SplitStatistics("train", "a/train.jsonl", {"blank rows skipped": 1234}, 24, 0.8, {"xấu": 6, "tốt": 18}),
            SplitStatistics("test", "a/test.jsonl", {}, 6, 0.2, {"xấu": 3, "tốt": 3}),
        ),
        shares=CrossTable(("Toán", "Tin"), ("xấu", "tốt"), ((3, 12), (6, 9))),
        lengths={"all": lengths(10), "xấu": lengths(20)},
        duplicates={"train": Duplicates(same=2, other=1), "test": Duplicates(same=0, other=4)},
        conflicts=Conflicts(1, 1500, (ConflictingSentence("bình thường", {"xấu": 2, "tốt": 1498}),)),
        near_threshold=0.8, leaks=(Leaks("train", "test", 5, 4, NEAR),), longest=(LongRow(15, 64, place),),
        tokens=TokenLengths("loraft-vi-tiny", 1024, 0, lengths(30), lengths(40), (LongPrompt(17, 120, place),)),
        notes=("no validation split: a",),
    )  # fmt: skip


def test_each_split_has_its_rows_and_shares_and_the_last_line_has_those_of_all(data: DatasetStatistics) -> None:
    heads, rows = cells(tables.splits(data))
    assert heads == ["split", "rows", "share", "xấu", "tốt", "repeated rows"]
    assert rows == [
        ["train", "24", "80.0%", "25.00 %", "75.00 %", "2"],
        ["test", "6", "20.0%", "50.00 %", "50.00 %", "0"],
        ["all", "30", "100.0%", "30.00 %", "70.00 %", "2"],  # 9 and 21 of 30
    ]


def test_shares_are_percent_of_all_rows_with_totals(data: DatasetStatistics) -> None:
    heads, rows = cells(tables.shares(data))
    assert heads == ["khoa / cảm xúc (%)", "xấu", "tốt", "total"]
    assert rows == [
        ["Toán", "10.00", "40.00", "50.00"], ["Tin", "20.00", "30.00", "50.00"], ["total", "30.00", "70.00", "100.00"]
    ]  # fmt: skip
    alone = replace(data, by=None, shares=CrossTable(("all",), ("xấu", "tốt"), ((9, 21),)))
    assert cells(tables.shares(alone)) == (
        ["cảm xúc (%)", "xấu", "tốt", "total"], [["total", "30.00", "70.00", "100.00"]]
    )  # fmt: skip


def test_shares_up_to_n_words_are_a_table_where_the_file_has_them(data: DatasetStatistics) -> None:
    shares = {"train": {5: 0.25, 15: 0.691}, "all": {5: 0.3, 15: 1.0}}
    with_shares = tables.length_tables(replace(data, words_up_to=shares))
    assert cells(with_shares[-1]) == (
        ["rows with at most n words", "n = 5", "n = 15"], [["train", "25.0%", "69.1%"], ["all", "30.0%", "100.0%"]]
    )  # fmt: skip
    assert len(with_shares) == len(tables.length_tables(data)) + 1  # which has no shares, as a file of before


def test_many_labels_are_rows_and_a_part_of_them_is_shown(data: DatasetStatistics) -> None:
    names = tuple(f"nhãn {n:02}" for n in range(80))
    split = replace(data.splits[0], labels={name: n for n, name in enumerate(names)})
    shares = CrossTable(("Toán", "Tin"), names, (tuple(range(80)), tuple(range(80))))
    found = replace(data, labels=names, splits=(split,), shares=shares, rows=3160,
                    lengths={"all": lengths(1), **{name: lengths(n) for n, name in enumerate(names)}})  # fmt: skip
    most, splits, rarest = (cells(table) for table in tables.row_tables(found))
    assert most[0] == ["cảm xúc / khoa (%), the most frequent first", "Toán", "Tin", "total"]
    assert most[1][0] == ["nhãn 79", "2.50", "2.50", "5.00"]  # 79 and 79 of 3,160
    assert len(most[1]) == len(rarest[1]) == 16
    assert splits[0] == ["split", "rows", "share", "repeated rows"]
    assert rarest[0] == ["label, the rarest first", "train", "share of all rows"]
    assert rarest[1][1] == ["nhãn 01", "1", "0.03 %"]
    assert rarest[1][-1] == ["65 more", "", ""]
    assert [row[0] for row in cells(tables.lengths(found))[1][:3]] == ["words, all", "words, nhãn 79", "words, nhãn 78"]
    assert len(cells(tables.row_tables(replace(found, by=None))[0])[0]) == 2


def test_lengths_are_in_words_and_where_they_were_measured_in_tokens(data: DatasetStatistics) -> None:
    heads, rows = cells(tables.lengths(data))
    assert heads == ["length", "mean", "50% up to", "90% up to", "95% up to", "99% up to", "longest"]
    assert rows == [
        [name, f"{first}.2", *(str(first + n) for n in range(1, 6))]
        for name, first in (
            ("words, all", 10), ("words, xấu", 20), ("tokens, sentence", 30), ("tokens, prompt and answer", 40)
        )
    ]  # fmt: skip
    assert cells(tables.lengths(replace(data, tokens=None)))[1] == rows[:2]


def test_leaks_tell_not_looked_for_from_none(data: DatasetStatistics) -> None:
    assert cells(tables.leaks(data.leaks))[1] == [["test rows that train has", "5", "4"]]
    for near, shown in ((0, "0"), (None, "not looked for")):
        found = replace(data, leaks=(Leaks("train", "test", 1234, near),))
        assert cells(tables.leaks(found.leaks))[1] == [["test rows that train has", "1,234", shown]]
    assert tables.near_legend(data).endswith("character 4-grams is above 0.8")


def test_near_copies_are_the_first_three_of_each_pair_of_splits(data: DatasetStatistics) -> None:
    pair = data.leaks[0]
    _, rows = cells(tables.near_copies(replace(data, leaks=(pair, pair))))
    assert rows[0] == ["0.81", "train 10", "trái 0", "test 20", "phải 0"]
    assert [row[0] for row in rows] == ["0.81", "0.82", "0.83"] * 2


def test_the_longest_rows_are_those_by_tokens_where_they_were_measured(data: DatasetStatistics) -> None:
    short = SENTENCE[:44].rstrip() + "…"
    heads, rows = cells(tables.longest(data))
    assert heads == ["longest rows", "tokens", "prompt and answer", "sentence"]
    assert rows == [["test row 3", "17", "120", short]]
    heads, rows = cells(tables.longest(replace(data, tokens=None)))
    assert heads == ["longest rows", "words", "characters", "sentence"]
    assert rows == [["test row 3", "15", "64", short]]


def test_conflicts_give_the_rows_of_each_label_and_the_total(data: DatasetStatistics) -> None:
    assert cells(tables.conflicts(data))[1] == [["xấu 2, tốt 1498", "bình thường"]]
    assert tables.conflict_total(data) == "sentences with several labels: 1, in 1,500 rows"
    assert tables.conflict_total(replace(data, conflicts=Conflicts(0, 0, ()))) == "sentences with several labels: none"


def test_notes_of_reading_come_before_those_on_what_is_not_described(data: DatasetStatistics) -> None:
    assert tables.data_notes(data) == ["train: 1,234 blank rows skipped", "no validation split: a"]
    assert data.tokens is not None
    assert tables.data_notes(replace(data, tokens=replace(data.tokens, shortened=3, cut=0.25)))[1] == (
        "3 of 30 sentences are shortened to fit prompt.max_length (1,024 tokens), by 25.0% of the tokens of all"
        " sentences"
    )


def test_tables_without_rows_are_left_out(data: DatasetStatistics) -> None:
    def first_heads(data: DatasetStatistics) -> list[str]:
        return [cells(table)[0][0] for table in tables.data_tables(data)]

    always = ["khoa / cảm xúc (%)", "split", "length"]
    assert first_heads(data) == [*always, "leaks", "Jaccard index", "labels", "longest rows"]
    no_pairs = replace(data, leaks=(Leaks("train", "test", 5, 0),))
    assert first_heads(no_pairs) == [*always, "leaks", "labels", "longest rows"]
    nothing = replace(data, leaks=(), conflicts=Conflicts(0, 0, ()))
    assert first_heads(nothing) == [*always, "longest rows"]
