"""Splits that cannot be drawn or are not there, label names that do not fit, and too few rows."""

from pathlib import Path

import pytest
from helpers.bad_input import refusal

LABELS = ["positive", "negative", "neutral"]
WORDS = [
    "thầy",
    "dạy",
    "hay",
    "dễ",
    "hiểu",
    "phòng",
    "nóng",
    "bình",
    "thường",
    "cô",
    "vui",
    "bài",
    "khó",
    "lớp",
    "đông",
    "tài",
    "liệu",
    "đủ",
]
ROWS = "sentence,sentiment\n" + "".join(
    f"{WORDS[i]} {WORDS[(i * 5 + 3) % len(WORDS)]} số {i}{WORDS[-i]},{LABELS[i % 3]}\n" for i in range(15)
)
FEW = "sentence,sentiment\nthầy dạy hay,positive\nphòng học nóng,negative\nbình thường thôi,neutral\n"
SHARES = {
    "a text": "data.split=nửa", "a number": "data.split=0.8", "two shares": "data.split=[0.8, 0.2]", "none": "data.split=[]",
    "four shares": "data.split=[0.7, 0.1, 0.1, 0.1]", "a negative share": "data.split=[1.1, -0.1, 0]",
    "above one": "data.split=[2, 0, 0]", "a sum below one": "data.split=[0.5, 0.1, 0.1]", "NaN": "data.split=[.nan, 0, 1]",
    "a sum above one": "data.split=[0.9, 0.2, 0.1]", "all for train": "data.split=[1, 0, 0]", "truths": "data.split=[true, false, false]",
    "none for train": "data.split=[0, 0.5, 0.5]", "texts": "data.split=[a, b, c]", "percent": "data.split=[80, 10, 10]",
    "infinite": "data.split=[.inf, 0, 0]", "nulls": "data.split=[null, null, null]", "a mapping": "data.split={train: 1}",
}  # fmt: skip
CASES: dict[str, tuple[str, list[str], str]] = {
    "one file for three splits": (ROWS, [], r"one file holds one split, the train split \(got a request for validation\)"),
    "three rows for three splits": (FEW, ["data.split=[0.8, 0.1, 0.1]"], r"too few rows of a label to draw 3 splits \(got negative: 1 rows"),
    "copies of one row": (
        "sentence,sentiment\n" + "".join(f"thầy dạy hay,{label}\n" for label in LABELS for _ in range(5)),
        ["data.split=[0.8, 0.1, 0.1]"], r"too few rows of a label to draw 3 splits .*near-duplicate groups",
    ),
    "a validation file that is not there": (ROWS, ["data.validation_split=không.csv"], r"không\.csv: no such file"),
    "a test split of a file": (ROWS, ["data.validation_split=a.csv", "data.test_split=thử"], r"one split, .*request for test"),
    "a subset of a file": (ROWS, ["data.subset=x"], r"data\.subset: a\.csv has none \(got 'x'\); leave it out"),
    "an empty subset": (ROWS, ["data.subset=''"], r"data\.subset: "),
    "an unknown fold": (ROWS, ["data.fold=6/5"], r"data\.fold: is no fold"),
    "a fold of one": (ROWS, ["data.fold=1/1"], r"data\.fold: is no fold"),
    "a fold as a number": (ROWS, ["data.fold=2"], r"data\.fold: "),
    "more folds than rows of a label": (ROWS, ["data.fold=1/9"], r"too few rows of a label to draw 9 splits"),
    "no rows wanted": (ROWS, ["data.max_train_rows=0"], r"data\.max_train_rows: "),
    "rows as text": (ROWS, ["data.max_train_rows=nhiều"], r"data\.max_train_rows: "),
    "a negative seed": (ROWS, ["data.split_seed=-1"], r"data\.split_seed: "),
    "one label name": (ROWS, ["data.label_names=[positive]"], r"data\.label_names: "),
    "label names of another task": (ROWS, ["data.label_names=[khen, chê]"], r"the label names of column 'sentiment' are not the task's labels \(got khen, chê"),
    "thirty label names": (ROWS, [f"data.label_names=[{', '.join(f'k{i}' for i in range(30))}]"], r"\(got k0, .* and 20 more"),
    "an unknown way with rows without label": (ROWS, ["data.unlabelled=đoán"], r"data\.unlabelled: "),
    "a delimiter of two letters": (ROWS, ["data.delimiter=;;"], r"data\.delimiter: "),
    "an empty delimiter": (ROWS, ["data.delimiter=''"], r"data\.delimiter: "),
    "a line end as delimiter": (ROWS, ['data.delimiter="\\n"'], r"delimiter|no column"),
    "a quote as delimiter": (ROWS, ["data.delimiter='\"'"], r"delimiter|header line is malformed|no column"),
    "a separator of a text with one label": (ROWS, ["data.label_separator=''"], r"data\.label_separator: "),
    "a text column that is empty": (ROWS, ["data.text_column=''"], r"(no column ''|data\.text_column)"),
    "text and label the same": (ROWS, ["data.label_column=sentence"], r"unknown label in 'sentence'"),
    "a task of other labels": (ROWS, ["prompt.task=topic", "data.label_column=sentiment"], r"unknown label in 'sentiment' \(got 'positive'\)"),
}  # fmt: skip
FOLDERS: dict[str, tuple[dict[str, str], list[str], str]] = {
    "train alone": ({"train.csv": ROWS}, [], r"d: no file for split validation \(got train\.csv\); expected validation"),
    "no test": ({"train.csv": ROWS, "dev.csv": ROWS}, [], r"d: no file for split test"),
    "no train": ({"test.csv": ROWS}, [], r"d: no file for split train \(got test\.csv\)"),
    "an empty validation": ({"train.csv": ROWS, "dev.csv": FEW.partition("\n")[0], "test.csv": ROWS}, [], r"d/dev\.csv: no row with text and label"),
    "other columns in test": ({"train.csv": ROWS, "dev.csv": ROWS, "test.csv": "a,b\n1,2\n"}, [], r"d/test\.csv: no column 'sentence' \(got a, b\)"),
    "other labels in test": ({"train.csv": ROWS, "dev.csv": ROWS, "test.csv": "sentence,sentiment\nhay,tốt\n"}, [], r"d/test\.csv row 1: unknown label"),
    "a subset that is not there": ({"train.csv": ROWS}, ["data.subset=b"], r"d/b: no such folder \(got data\.subset="),
    "all train rows dropped": (
        {"train.csv": FEW, "dev.csv": FEW, "test.csv": FEW}, ["data.drop_leaked=true"], r"d/train\.csv: no row with text and label \(got 3 "
    ),
    "all in conflict": (
        {"train.csv": "sentence,sentiment\nhay,positive\nhay,negative\n", "dev.csv": ROWS, "test.csv": ROWS}, ["data.drop_conflicts=true"],
        r"d/train\.csv: no row with text and label \(got 2 ",
    ),
}  # fmt: skip


def train(source: str, sets: list[str]) -> list[str]:
    return ["train", "--data", source, *(word for one in sets for word in ("--set", one))]


@pytest.mark.parametrize("shares", SHARES.values(), ids=SHARES)
def test_shares_that_are_none_are_refused(shares: str) -> None:
    Path("a.csv").write_text(ROWS, encoding="utf-8")
    refusal(train("a.csv", [shares]), r"^error: data\.split: must (be three shares|sum to 1)")


@pytest.mark.parametrize(("content", "sets", "says"), CASES.values(), ids=CASES)
def test_splits_that_cannot_be_had_are_refused(content: str, sets: list[str], says: str) -> None:
    Path("a.csv").write_text(content, encoding="utf-8")
    refusal(train("a.csv", sets), says)


@pytest.mark.parametrize(("files", "sets", "says"), FOLDERS.values(), ids=FOLDERS)
def test_folders_without_all_splits_are_refused(files: dict[str, str], sets: list[str], says: str) -> None:
    Path("d").mkdir()
    for name, content in files.items():
        Path("d", name).write_text(content, encoding="utf-8")
    refusal(train("./d", sets), says)
