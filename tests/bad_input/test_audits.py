"""What `loraft audit` refuses, before anything is trained."""

from pathlib import Path

import pytest
from helpers.bad_input import refusal
from helpers.data import sentences, write_rows

LABELS = ("negative", "neutral", "positive")
CASES: list[tuple[list[str], str]] = [
    (["câu.csv", "--drop-worst", "0"], r"--drop-worst"),
    (["câu.csv", "--to", "sạch.csv"], r"--to: no rows to drop .*--drop-worst N"),
    (["câu.csv", "--data", "khác.csv"], r"--data: another source than the argument \(got khác.csv and câu.csv\)"),
    (["câu.csv", "--drop-worst", "2", "--to", "câu.csv"], r"--to: is the input"),
    (["câu.csv", "--drop-worst", "2", "--to", "sạch.jsonl"], r"format of its input \(got sạch.jsonl\); .*\.csv"),
    (["câu.csv", "--drop-worst", "2", "--set", "output.texts=false"], r"output\.texts=false .*--to FILE"),
    (["câu.csv", "--set", "prompt.kind=multilabel"], r"audit: counts one label a row \(got prompt.kind=multilabel\)"),
    (["câu.csv", "--set", "lora.use_dora=true"], r"share one backbone.*\(got DoRA\); change .*section lora"),
    (["câu.csv", "--split", "test"], r"one file holds one split, the train split \(got a request for test\)"),
    (["ít.csv"], r"too few rows of a label .*neutral: 3 rows\); an audit draws 5 folds .*add rows"),
    (["không có.csv"], r"không có.csv: no such file"),
]


@pytest.mark.parametrize(("arguments", "says"), CASES, ids=[" ".join(arguments)[:50] for arguments, _ in CASES])
def test_what_cannot_be_audited_is_refused(arguments: list[str], says: str, work: Path) -> None:
    rows = [{"sentence": text, "sentiment": LABELS[i % 3]} for i, text in enumerate(sentences(30))]
    write_rows(work / "câu.csv", rows)
    write_rows(work / "ít.csv", [row for i, row in enumerate(rows) if row["sentiment"] != "neutral" or i < 9])
    refusal(["audit", *arguments], says)
