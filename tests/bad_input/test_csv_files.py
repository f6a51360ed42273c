"""CSV and TSV files that are no tables of labelled sentences."""

from pathlib import Path

import pytest
from helpers.bad_input import refusal

GOOD = "sentence,sentiment\nthầy dạy hay,positive\nphòng nóng,negative\nbình thường,neutral\n"
NO_ROWS = r"dữ liệu\.csv: no row with text and label \(got an empty source\); add rows"
FIELDS = r"dữ liệu\.csv row 1: 3 fields, but the header has 2; quote fields with ','"
CASES = {
    "empty file": ("", r"dữ liệu\.csv: no column 'sentence' \(got none\); name it with --set data\.text_column"),
    "one line end": ("\n", r"no column 'sentence' \(got none\)"),
    "blank lines only": ("\n\n  \n\n", r"no column 'sentence' \(got none\)"),
    "mark of UTF-8 only": ("\ufeff", r"no column 'sentence' \(got none\)"),
    "no header": (GOOD.partition("\n")[2], r"no column 'sentence' \(got thầy dạy hay, positive\)"),
    "header in the second line": ("bảng 1\n" + GOOD, r"no column 'sentence' \(got bảng 1\)"),
    "one column": ("sentence\nthầy dạy hay\n", r"\(got sentence\).*name it with --set data\.label_column"),
    "labels only": ("sentiment\npositive\n", r"no column 'sentence' \(got sentiment\)"),
    "misspelt text column": ("sentense,sentiment\na,positive\n", r"did you mean 'sentense'\?"),
    "misspelt label column": ("sentence,sentimnt\na,positive\n", r"did you mean 'sentimnt'\?"),
    "text column in another language": ("câu,sentiment\na,positive\n", r"no column 'sentence' \(got câu, sentiment\)"),
    "forty columns": (
        ",".join(f"cột{i}" for i in range(40)) + "\n", r"no column 'sentence' \(got cột0, .* and 3\d more\)"
    ),
    "header twice": ("sentence,sentiment,sentiment\na,b,c\n", r"column names repeat \(got .* more than once\); rename"),
    "header twice in two forms": (
        "sentence,sentiment,nghĩ,nghi\u0303\na,positive,b,c\n", r"names repeat \(got .* more than once\); rename"
    ),
    "header twice among many": (
        "sentence,sentiment," + ",".join(f"c{i}" for i in range(40)) + ",c7\n", r"names repeat \(got c7 more than once"
    ),
    "open quote in the header": ('"sentence,sentiment\na,positive\n', r"no column 'sentence'|line is malformed"),
    "stray quote in the header": ('"sent"ence,sentiment\na,positive\n', r"the header line is malformed \("),
    "short row": ("sentence,sentiment\nthầy dạy hay\n", r"row 1: 1 fields, but the header has 2; quote fields"),
    "twelve long rows": ("sentence,sentiment\n" + "a,b,positive\n" * 12, r"row 5: 3 fields.*\n.*and 7 more such rows"),
    "open quote in a row": ('sentence,sentiment\n"thầy dạy hay,positive\n', r"row 1: malformed, perhaps a stray"),
    "stray quote in a row": ('sentence,sentiment\n"thầy" dạy,positive\n', r"row 1: malformed, perhaps a stray"),
    "NUL in a label": ("sentence,sentiment\nthầy dạy,positive\0\n", r"row 1: unknown label .* \(got 'positive.x00'\)"),
    "NUL in the header": ("sent\0ence,sentiment\na,positive\n", r"is no text \(got b'sent.x00enc'\)"),
    "sentence of blanks": ("sentence,sentiment\n   ,positive\n", r"\(got 1 blank rows\); add rows"),
    "semicolons in the rows": ("sentence,sentiment\nhay;positive\n", r"row 1: 1 fields, but the header has 2"),
    "labels with a fraction": ("sentence,sentiment\na,1.5\n", r"unknown label in 'sentiment' \(got '1\.5'\); |allowed"),
    "id above the last": ("sentence,sentiment\na,3\n", r"a number that does not say which .* \(got '3'\)"),
    "id below zero": ("sentence,sentiment\na,-1\n", r"a number that does not say which .* \(got '-1'\)"),
    "id of 5,000 digits": ("sentence,sentiment\na," + "9" * 5000 + "\n", r"unknown label in .* \(got '99.*\.\.\.'\)"),
    "label of 100,000 letters": ("sentence,sentiment\na," + "ă" * 100_000 + "\n", r"unknown label in 'senti.*\.\.\."),
    "infinite label": ("sentence,sentiment\na,inf\n", r"unknown label in 'sentiment' \(got 'inf'\)"),
    "no label in a row": (GOOD + "hay,\n", r"row 4: no label in 'sentiment'(?s:.)*or data\.unlabelled=skip"),
    "no label in any row": ("sentence,sentiment\nhay,\n", r"row 1: no label in 'sentiment'"),
}  # fmt: skip
SETTINGS = {
    "header only": ("sentence,sentiment\n", [], NO_ROWS),
    "header without line end": ("sentence,sentiment", [], NO_ROWS),
    "header and blank rows": ("sentence,sentiment\n,\n , \n", [], NO_ROWS),
    "long row": ("sentence,sentiment\na,b,positive\n", [], FIELDS),
    "ragged rows": ("sentence,sentiment\na,b,positive\na\na,b,c,positive\n", [], FIELDS + r"(?s:.)*row 2: 1 fields"),
    "another delimiter named": (GOOD, ["data.delimiter=;"], r"no column 'sentence' \(got sentence,sentiment\)"),
    "delimiter inside a name": (GOOD, ["data.delimiter=e"], r"no column 'sentence' \(got s, nt, nc,|names repeat"),
    "a second header's name for text": (GOOD, ["data.text_column=câu"], r"no column 'câu' \(got sentence, sentiment\)"),
    "a name of the label that is not there": (GOOD, ["data.label_column=nhãn"], r"no column 'nhãn'"),
    "text and label one column": (
        GOOD, ["data.label_column=sentence"], r"unknown label in 'sentence' \(got 'thầy dạy hay'\)"
    ),
    "unlabelled rows skipped": (
        "sentence,sentiment\nhay,\n", ["data.unlabelled=skip"], r"\(got 1 unlabelled rows\); add rows"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "says"), CASES.values(), ids=CASES)
def test_a_table_without_labelled_sentences_is_refused(content: str, says: str) -> None:
    Path("dữ liệu.csv").write_text(content, encoding="utf-8")
    refusal(["train", "--data", "dữ liệu.csv"], says)


@pytest.mark.parametrize(("content", "sets", "says"), SETTINGS.values(), ids=SETTINGS)
def test_settings_that_do_not_fit_the_table_are_refused(content: str, sets: list[str], says: str) -> None:
    Path("dữ liệu.csv").write_text(content, encoding="utf-8")
    refusal(["train", "--data", "dữ liệu.csv", *(word for one in sets for word in ("--set", one))], says)


@pytest.mark.parametrize("suffix", [".tsv", ".json", ".jsonl", ".parquet", ".xlsx", ".txt", ".csv.gz", ".docx", ""])
def test_a_table_with_another_suffix_is_refused(suffix: str) -> None:
    Path(f"bảng{suffix}").write_text(GOOD, encoding="utf-8")
    refusal(["train", "--data", f"bảng{suffix}"], rf"^error:\s+bảng{suffix}( row 1)?: |no such folder or file")


@pytest.mark.parametrize(
    "arguments",
    [
        ["eval", "--zero-shot", "--split", "a.csv"],
        ["fewshot", "--data", "a.csv"],
        ["sweep", "--data", "a.csv"],
        ["train", "--folds", "5", "--data", "a.csv"],
        ["task", "new", "--data", "a.csv"],
        ["data", "a.csv", "--task", "sentiment"],
        ["predict", "--adapter", "a", "--input", "a.csv"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_every_command_refuses_a_table_without_rows(arguments: list[str]) -> None:
    Path("a.csv").write_text("", encoding="utf-8")
    refusal(arguments, r"^error:( a\.csv: | a: no such folder)")
