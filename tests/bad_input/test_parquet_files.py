"""Parquet files, and data sets saved by `datasets`, that hold no labelled sentences."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.bad_input import refusal

TEXTS = ["thầy dạy hay", "phòng nóng"]
TABLES: dict[str, tuple[dict[str, Any], str]] = {
    "no columns": ({}, r"no column 'sentence' \(got none\)"),
    "no rows": ({"sentence": pa.array([], pa.string()), "sentiment": pa.array([], pa.int64())}, r"got an empty source"),
    "text only": ({"sentence": TEXTS}, r"no column 'sentiment' \(got sentence\)"),
    "other names": ({"text": TEXTS, "label": [0, 1]}, r"no column 'sentence' \(got text, label\)"),
    "forty columns": ({f"c{i}": [1] for i in range(40)}, r"no column 'sentence' \(got c0, .* and 30 more\)"),
    "numbers as text": ({"sentence": [1, 2], "sentiment": ["a", "b"]}, r"row 1: 'sentence' is not text \(got 1\)"),
    "bytes as text": ({"sentence": [b"hay"], "sentiment": ["a"]}, r"row 1: 'sentence' is not text \(got b'hay'\)"),
    "long bytes as text": ({"sentence": [b"h" * 9999], "sentiment": ["a"]}, r"is not text \(got b'hh.*\.\.\.\)"),
    "lists as text": ({"sentence": [["hay"]], "sentiment": ["a"]}, r"row 1: 'sentence' is not text \(got \['hay'\]\)"),
    "structs as text": ({"sentence": [{"vi": "hay"}], "sentiment": ["a"]}, r"'sentence' is not text \(got \{'vi'"),
    "dates as text": ({"sentence": [date(2026, 1, 2)], "sentiment": ["a"]}, r"row 1: 'sentence' is not text"),
    "nulls as text": ({"sentence": pa.array([None], pa.string()), "sentiment": ["a"]}, r"got 1 blank rows"),
    "nulls without a type": ({"sentence": [None], "sentiment": [None]}, r"got 1 blank rows"),
    "nulls as labels": ({"sentence": TEXTS, "sentiment": [None, None]}, r"row 2: no label in 'sentiment'"),
    "words as labels": ({"sentence": TEXTS, "sentiment": ["khen", "chê"]}, r"row 2: unknown label .* \(got 'chê'\)"),
    "lists as labels": ({"sentence": TEXTS, "sentiment": [[0], [1, 2]]}, r"row 2: unknown label .* \(got \[1, 2\]\)"),
    "empty lists as labels": ({"sentence": TEXTS, "sentiment": [[], []]}, r"row 1: .*label in 'sentiment' \(got \[\]"),
    "structs as labels": ({"sentence": TEXTS, "sentiment": [{"id": 0}] * 2}, r"row 1: unknown label in 'sentiment'"),
    "dates as labels": ({"sentence": TEXTS, "sentiment": [date(2026, 1, 2)] * 2}, r"row 1: unknown label"),
    "truths as labels": ({"sentence": TEXTS, "sentiment": [True, False]}, r"row 1: unknown label .* \(got True\)"),
    "fractions as labels": ({"sentence": TEXTS, "sentiment": [0.5, 1.5]}, r"row 1: unknown label .* \(got 0\.5\)"),
    "infinities as labels": ({"sentence": TEXTS, "sentiment": [float("inf")] * 2}, r"unknown label .* \(got inf\)"),
    "ids of another data set": ({"sentence": TEXTS, "sentiment": [0, 1]}, r"a number that does not say which label"),
    "a column twice": ({"sentence": TEXTS, "sentiment": ["a", "b"], "twice": TEXTS}, r"names repeat \(got twice"),
}  # fmt: skip
DAMAGED = {
    "empty": b"",
    "four letters": b"PAR1",
    "head and foot": b"PAR1" * 4,
    "text": "thầy dạy hay\n".encode(),
    "CSV": b"sentence,sentiment\nhay,positive\n",
    "zeros": bytes(4096),
    "zip": b"PK\x03\x04" + bytes(100),
}


@pytest.mark.parametrize(("columns", "says"), TABLES.values(), ids=TABLES)
def test_a_parquet_file_without_labelled_sentences_is_refused(columns: dict[str, Any], says: str) -> None:
    table = pa.table(columns)
    if "twice" in columns:
        table = table.rename_columns(["sentence", "sentiment", "sentiment"])
        says = says.replace("twice", "sentiment")
    pq.write_table(table, "dữ liệu.parquet")
    refusal(["train", "--data", "dữ liệu.parquet"], rf"^error:\s+dữ liệu\.parquet(?s:.)*{says}")


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_file_that_is_no_parquet_is_refused(content: bytes) -> None:
    Path("a.parquet").write_bytes(content)
    refusal(["eval", "--zero-shot", "--split", "a.parquet"], r"a\.parquet: not a readable Parquet file \(.*\); check")


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.99])
def test_a_parquet_file_that_is_cut_off_is_refused(kept: float) -> None:
    pq.write_table(pa.table({"sentence": TEXTS * 99, "sentiment": ["positive", "negative"] * 99}), "a.parquet")
    content = Path("a.parquet").read_bytes()
    Path("a.parquet").write_bytes(content[: int(len(content) * kept)])
    refusal(["train", "--data", "a.parquet"], r"a\.parquet: not a readable Parquet file \(.*\); check that it is compl")


@pytest.mark.parametrize("position", [10, 40, 80])
def test_a_parquet_file_with_other_bytes_inside_is_refused(position: int) -> None:
    pq.write_table(pa.table({"sentence": TEXTS * 99, "sentiment": ["positive", "negative"] * 99}), "a.parquet")
    content = bytearray(Path("a.parquet").read_bytes())
    content[position : position + 40] = b"\xff" * 40
    Path("a.parquet").write_bytes(content)
    refusal(["train", "--data", "a.parquet"], r"a\.parquet(:| row \d+:) ")


STATE = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_fingerprint": "a", "_format_type": None,
         "_format_columns": None, "_format_kwargs": {}, "_output_all_columns": False, "_split": None}  # fmt: skip
SAVED = {
    "empty state": ({"state.json": ""}, r"dữ liệu: cannot be loaded \(.*\); save it again with save_to_disk"),
    "a list as state": ({"state.json": "[]"}, r"dữ liệu: cannot be loaded"),
    "state alone": ({"state.json": json.dumps(STATE)}, r"dữ liệu: cannot be loaded"),
    "null as info": ({"state.json": json.dumps(STATE), "dataset_info.json": "null"}, r"dữ liệu: cannot be loaded"),
    "no arrow file": ({"state.json": json.dumps(STATE), "dataset_info.json": "{}"}, r"dữ liệu: cannot be loaded"),
    "text as arrow": (
        {"state.json": json.dumps(STATE), "dataset_info.json": "{}", "data-00000-of-00001.arrow": "hay"},
        r"dữ liệu: cannot be loaded",
    ),
    "empty arrow file": (
        {"state.json": json.dumps(STATE), "dataset_info.json": "{}", "data-00000-of-00001.arrow": ""},
        r"dữ liệu: cannot be loaded",
    ),
}


@pytest.mark.parametrize(("files", "says"), SAVED.values(), ids=SAVED)
def test_a_damaged_saved_data_set_is_refused(files: dict[str, str], says: str) -> None:
    Path("dữ liệu").mkdir()
    for name, content in files.items():
        Path("dữ liệu", name).write_text(content, encoding="utf-8")
    refusal(["train", "--data", "dữ liệu"], says)
