"""Predictions beside the columns of their input: names, order and types in each format."""

import csv
import json
import warnings
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from loraft.errors import ConfigError, Note
from loraft.evaluation import output_file
from loraft.evaluation.output_file import PredictedInput, check_output, write_predictions
from loraft.evaluation.predict import Prediction

PROBS = {"chê": 0.25, "khen": 0.75}
ROWS = [
    PredictedInput({"mã": "007", "câu": 'hay,\n"lắm"', "số": 2}, Prediction(1, "x", "khen", PROBS)),
    PredictedInput({"mã": None, "câu": " "}, Prediction(2, "", None, error="no text")),
    PredictedInput({}, Prediction(3, "", None, error="not JSON")),
    PredictedInput({"mã": "a", "câu": "dở", "số": [1.5, True]}, Prediction(4, "dở", None, PROBS)),
]


def written(
    folder: Path, name: str, rows: list[PredictedInput] = ROWS, source: Path | None = None, **given: Any
) -> Path:
    write_predictions(folder / name, lambda: rows, source, labels=[*PROBS], **given)
    assert [path for path in folder.iterdir() if path.name.startswith(".")] == []
    return folder / name


def test_csv_has_a_column_for_each_label_and_a_row_for_each_row(tmp_path: Path) -> None:
    with written(tmp_path, "a.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["mã", "câu", "số", "label", "confidence", "prob_chê", "prob_khen"],
            ["007", 'hay,\n"lắm"', "2", "khen", "0.75", "0.25", "0.75"],
            ["", " ", "", "", "", "", ""],
            ["", "", "", "", "", "", ""],
            ["a", "dở", "[1.5, true]", "", "0.75", "0.25", "0.75"],
        ]


def test_csv_has_nothing_where_a_number_is_not_finite(tmp_path: Path) -> None:
    given = {"câu": "hay", "số": float("nan"), "tỉ lệ": float("-inf")}
    path = written(tmp_path, "a.csv", [PredictedInput(given, Prediction(1, "x", "khen", PROBS))])
    assert path.read_text(encoding="utf-8").splitlines()[1] == "hay,,,khen,0.75,0.25,0.75"


def test_json_lines_keep_each_rows_keys_and_types(tmp_path: Path) -> None:
    lines = written(tmp_path, "a.jsonl").read_text(encoding="utf-8").splitlines()
    nothing = {"label": None, "confidence": None, "probs": None}
    assert [json.loads(line) for line in lines] == [
        {"mã": "007", "câu": 'hay,\n"lắm"', "số": 2, "label": "khen", "confidence": 0.75, "probs": PROBS},
        {"mã": None, "câu": " ", **nothing},
        nothing,
        {"mã": "a", "câu": "dở", "số": [1.5, True], "label": None, "confidence": 0.75, "probs": PROBS},
    ]
    assert list(json.loads(lines[0])) == ["mã", "câu", "số", "label", "confidence", "probs"]


def test_parquet_keeps_the_types_of_a_parquet_input(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "câu": pyarrow.array(["hay", "dở"]),
        "số": pyarrow.array([1, None], pyarrow.int8()),
        "lúc": pyarrow.array([datetime(2024, 1, 1)] * 2, pyarrow.timestamp("us")),
        "giá": pyarrow.array([Decimal("1.50"), None], pyarrow.decimal128(5, 2)),
        "loại": pyarrow.array(["a", "b"]).dictionary_encode(),
    }
    table = pyarrow.table(columns)
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    rows = [PredictedInput(row, Prediction(1, "x", "khen", PROBS)) for row in table.to_pylist()]
    found = pyarrow.parquet.read_table(written(tmp_path, "a.parquet", rows, tmp_path / "in.parquet"))
    assert found.select(list(columns)).cast(table.schema) == table
    assert [field.type for field in found.schema][:5] == [field.type for field in table.schema]
    assert found.column_names[5:] == ["label", "confidence", "prob_chê", "prob_khen"]
    assert found["prob_khen"].to_pylist() == [0.75, 0.75]


def test_a_column_of_several_types_is_text_in_parquet_and_no_work_is_lost(tmp_path: Path) -> None:
    with pytest.warns(Note, match="column 'số' has values of several types; they are written as text"):
        path = written(tmp_path, "a.parquet")
    assert pyarrow.parquet.read_table(path)["số"].to_pylist() == ["2", None, None, "[1.5, true]"]
    assert pyarrow.parquet.read_table(path)["label"].to_pylist() == ["khen", None, None, None]


def test_types_are_found_in_all_row_groups_of_a_parquet_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_file, "ROW_GROUP", 2)
    cells = {"a": [None, None, 1, 2, 2.5, None], "b": [1, 2, "x", None, 3, 4], "c": [2**70, 0, 1, 1, 1, 1],
             "d": [1, 1, 2**60 + 1, 1, 0.5, 1], "e": [[], [], [1], None, None, [2]]}  # fmt: skip
    rows = [
        PredictedInput({name: values[row] for name, values in cells.items()}, Prediction(row + 1, "x", "khen", PROBS))
        for row in range(6)
    ]
    with pytest.warns(Note) as told:
        found = pyarrow.parquet.ParquetFile(written(tmp_path, "a.parquet", rows))
    assert sorted(str(note.message).split("'")[1] for note in told) == ["b", "c", "d"]
    table = found.read()
    assert (found.num_row_groups, table["label"].to_pylist()) == (3, ["khen"] * 6)
    assert [str(table.schema.field(name).type) for name in cells] == [
        "double", "string", "string", "string", "list<element: int64>"
    ]  # fmt: skip
    assert table["b"].to_pylist() == ["1", "2", "x", None, "3", "4"]
    assert table["c"].to_pylist()[0] == str(2**70)
    assert table["d"].to_pylist()[2] == str(2**60 + 1)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_refused_row_whose_columns_cannot_be_written_has_none(tmp_path: Path, suffix: str) -> None:
    deep: list[Any] = []
    for _ in range(3000):
        deep = [deep]
    bad = [{"câu": "x", "d\udcff": 1}, {"câu": deep}, {"câu": 10**5000}]
    rows = [PredictedInput(one, Prediction(n, "", None, error="bad")) for n, one in enumerate(bad, start=1)]
    assert written(tmp_path, f"a{suffix}", rows).stat().st_size > 0


def test_names_that_the_input_has_are_left_to_it(tmp_path: Path) -> None:
    given = {"label": 1, "predicted_label": "x", "prob_chê": 0}
    rows = [PredictedInput(given, Prediction(1, "x", "khen", PROBS))]
    with pytest.warns(Note, match="label is predicted_predicted_label, prob_chê is predicted_prob_chê"):
        path = written(tmp_path, "a.csv", rows)
    header, values = path.read_text(encoding="utf-8").splitlines()
    assert header.split(",")[3:] == ["predicted_predicted_label", "confidence", "predicted_prob_chê", "prob_khen"]
    assert values == "1,x,0,khen,0.75,0.25,0.75"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_bytes_that_are_no_text_and_no_rows_at_all_can_be_written(tmp_path: Path, suffix: str) -> None:
    rows = [PredictedInput({"câu": "d\udcff"}, Prediction(1, "", None, error="not valid UTF-8"))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = written(tmp_path, f"a{suffix}", rows)
        assert suffix == ".parquet" or "d?" in path.read_text(encoding="utf-8")
        written(tmp_path, f"b{suffix}", [])


@pytest.mark.parametrize("rows", [[], [PredictedInput({}, Prediction(1, "", None, error="not JSON"))]])
@pytest.mark.parametrize("several", [True, False])
def test_the_columns_are_there_where_no_row_is_predicted(
    tmp_path: Path, rows: list[PredictedInput], several: bool
) -> None:
    names = ["mã", "câu", "label", "confidence", "prob_chê", "prob_khen"]
    path = written(tmp_path, "a.csv", rows, header=["mã", "câu"], several=several)
    assert path.read_text(encoding="utf-8") == ",".join(names) + "\n" + len(rows) * ",,,,,\n"
    found = pyarrow.parquet.read_table(written(tmp_path, "a.parquet", rows, header=["mã", "câu"], several=several))
    assert (found.column_names, found.schema.field("prob_khen").type) == (names, pyarrow.float64())
    label = pyarrow.list_(pyarrow.string()) if several else pyarrow.string()
    assert found.schema.field("label").type == label


def test_several_labels_are_a_list_and_in_csv_a_text(tmp_path: Path) -> None:
    sets: list[tuple[str, ...] | None] = [("chê", "khen"), (), None]
    rows = [
        PredictedInput({"câu": "x"}, Prediction(n, "x", one, {} if one is None else PROBS))
        for n, one in enumerate(sets, start=1)
    ]
    lists = [["chê", "khen"], [], None]
    lines = written(tmp_path, "a.jsonl", rows, several=True).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["label"] for line in lines] == lists
    table = pyarrow.parquet.read_table(written(tmp_path, "a.parquet", rows, several=True))
    assert table["label"].to_pylist() == lists
    text = written(tmp_path, "a.csv", rows, several=True).read_text(encoding="utf-8")
    assert text.splitlines()[1:] == ["x,chê|khen,,0.25,0.75", "x,,,0.25,0.75", "x,,,,"]


def test_what_cannot_be_written_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    (tmp_path / "in.csv").touch()
    check_output(tmp_path / "mới" / "a.CSV", tmp_path / "in.csv")
    assert [*(tmp_path / "mới").iterdir()] == []
    for name, what in (
        ("a.xlsx", r"unknown format \(got \.xlsx\); allowed are \.csv"), ("x.csv", "is a folder"),
        ("in.csv", "is the input"), ("in.csv/a.csv", "cannot be written"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"--output-file: {what}"):
            check_output(tmp_path / name, tmp_path / "in.csv")


def test_sets_of_labels_stand_beside_the_label(tmp_path: Path) -> None:
    found = Prediction(1, "x", "khen", PROBS, set=("chê", "khen"))
    rows = [PredictedInput({"câu": "x"}, found), PredictedInput({"câu": " "}, Prediction(2, "", None, error="no text"))]
    lines = written(tmp_path, "a.csv", rows, sets=True).read_text(encoding="utf-8").splitlines()
    assert lines == ["câu,label,set,confidence,prob_chê,prob_khen", "x,khen,chê|khen,0.75,0.25,0.75", " ,,,,,"]
    first = json.loads(written(tmp_path, "a.jsonl", rows, sets=True).read_text(encoding="utf-8").splitlines()[0])
    assert first == {"câu": "x", "label": "khen", "set": ["chê", "khen"], "confidence": 0.75, "probs": PROBS}
    table = pyarrow.parquet.read_table(written(tmp_path, "a.parquet", rows, sets=True))
    assert table["set"].to_pylist() == [["chê", "khen"], None]
    assert table.schema.field("set").type == pyarrow.list_(pyarrow.string())
