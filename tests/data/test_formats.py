"""What each format's parser makes of whole and of broken content."""

import json
import re
from decimal import Decimal
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from helpers.data import LABELS, ROWS, write_rows

from loraft.data.formats import (
    array_rows,
    fasttext_rows,
    jsonl_rows,
    line_rows,
    parquet_label_names,
    parquet_rows,
    table_rows,
)
from loraft.data.records import BadRow, Row
from loraft.errors import DataError, Note

REQUIRED = ("sentence", "sentiment")


def table(content: str, delimiter: str = ",") -> list[Row | BadRow]:
    return list(table_rows(content.splitlines(keepends=True), delimiter, "a.csv", REQUIRED))


def test_a_blank_line_is_a_row_between_lines_and_none_at_the_end() -> None:
    found = list(line_rows(["\n", " một \r\n", "\n", " \n", "hai\n", "\n", "\n"], "câu"))
    assert found == [Row(row, {"câu": text}) for row, text in enumerate(["", " một ", "", " ", "hai"], start=1)]


def test_jsonl_is_an_object_a_line_and_blank_lines_do_not_count() -> None:
    found = list(jsonl_rows(['{"a": 1}\n', "\n", '["a"]\n', "{\n", '{"a": "\u2028"}\n', "[" * 100_000]))
    assert (found[0], found[3]) == (Row(1, {"a": 1}), Row(4, {"a": "\u2028"}))
    assert found[1] == BadRow(2, "not a JSON object (got list)")
    assert [(item.row, item.reason[:8]) for item in (found[2], found[4]) if isinstance(item, BadRow)] == [
        (3, "not JSON"),
        (5, "not JSON"),
    ]


def test_an_array_is_its_objects_numbered_from_one() -> None:
    assert list(array_rows('[{"a": 1},\n\n 5, {"a": 2}]', "a.json")) == [
        Row(1, {"a": 1}), BadRow(2, "not a JSON object (got int)"), Row(3, {"a": 2})
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["[{", "[" * 100_000])
def test_an_array_that_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"^a\.json: not JSON \(.*; give an array of objects"):
        list(array_rows(text, "a.json"))


def test_a_tables_rows_are_counted_without_header_and_blank_lines() -> None:
    content = '\n , \nsentence, sentiment \n"thầy dạy ""hay"",\ndễ hiểu",2\n\nhay,1\n'
    assert table(content) == [
        Row(1, {"sentence": 'thầy dạy "hay",\ndễ hiểu', "sentiment": "2"}),
        Row(2, {"sentence": "hay", "sentiment": "1"}),
    ]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ('"dở" quá,0\n', "malformed, perhaps a stray or unclosed quote"),
        ('"chưa đóng,0\n', "malformed, perhaps a stray or unclosed quote"),
        ("hay, dễ hiểu,1\n", "3 fields, but the header has 2; quote fields with ','"),
        ("thiếu nhãn\n", "1 fields, but the header has 2"),
    ],
)
def test_a_broken_row_of_a_table_is_named_by_its_number(rows: str, reason: str) -> None:
    good, bad = table(f"sentence,sentiment\nhay,1\n{rows}")
    assert good == Row(1, {"sentence": "hay", "sentiment": "1"})
    assert isinstance(bad, BadRow)
    assert bad.row == 2
    assert bad.reason.startswith(reason)


def test_an_unclosed_quote_takes_no_other_row_with_it() -> None:
    found = table('sentence,sentiment\n"chưa đóng,0\nhay,1\n"dở, ""lắm""",0\nvui,2\n')
    assert [(item.row, type(item)) for item in found] == [(1, BadRow), (2, Row), (3, Row), (4, Row)]
    assert found[1:3] == [
        Row(2, {"sentence": "hay", "sentiment": "1"}), Row(3, {"sentence": 'dở, "lắm"', "sentiment": "0"})
    ]  # fmt: skip
    # The second line of a quoted field is no row of its own, although it has as many fields.
    found = table('sentence,sentiment\n"một\nhai" ba,0\nhay,1\n')
    assert [type(item) for item in found] == [BadRow, BadRow, Row]


def test_a_field_may_be_long_and_may_hold_nul() -> None:
    found = table(f"sentence,sentiment\n{'dài ' * 50_000},1\na\0b,2\n")  # csv's own limit is 131,072 characters
    assert [item.columns["sentiment"] for item in found if isinstance(item, Row)] == ["1", "2"]


NESTED = '{"sentence": "hay", "x": ' + 101 * "[" + "1" + 101 * "]" + "}"
DEEP = '{"sentence": "hay", "x": ' + 5000 * "[" + 5000 * "]" + "}"
DIGITS = '{"sentence": "hay", "x": ' + "1" * 5000 + "}"


def test_numbers_and_nesting_without_bound_make_their_own_row_bad_and_no_other() -> None:
    rows = [DIGITS, NESTED, DEEP, '{"sentence": "hay, [\\"lắm", "x": NaN}', '{"sentence": "dở"}']
    for found in (list(jsonl_rows(rows)), list(array_rows(f"[{', '.join(rows)}]", "a.json"))):
        assert [item.row for item in found] == [1, 2, 3, 4, 5]
        assert [item.reason for item in found if isinstance(item, BadRow)] == [
            "not JSON (a number has more than 4,300 digits)", "nested deeper than 100 levels",
            "not JSON (nested deeper than 100 levels)",
        ]  # fmt: skip
        assert [item.columns["sentence"] for item in found if isinstance(item, Row)] == ['hay, ["lắm', "dở"]


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pyarrow.array([0, 2**62, 0], pyarrow.timestamp("us")), "column 'x' cannot be read (date value out of range)"),
        (pyarrow.array([0, 2**31 - 1, 0], pyarrow.date32()), "column 'x' cannot be read (days=2147483647"),
        (pyarrow.array([b"a", b"\xff", b"b"]).view(pyarrow.string()), "column 'x' cannot be read ('utf-8' codec"),
        (pyarrow.array([b"a", b"\xff", b"b"]).view(pyarrow.string()).dictionary_encode(), "column 'x' cannot be read"),
    ],
    ids=["timestamp", "date", "UTF-8", "dictionary"],
)
def test_a_value_that_python_cannot_hold_makes_its_own_row_bad(
    tmp_path: Path, column: pyarrow.Array, reason: str
) -> None:
    made = pyarrow.table({"sentence": ["a", "b", "c"], "x": column})
    pyarrow.parquet.write_table(made, tmp_path / "a.parquet")
    before, bad, after = parquet_rows(tmp_path / "a.parquet", ["sentence", "x"])
    assert isinstance(bad, BadRow)
    assert bad.reason.startswith(reason)
    assert isinstance(before, Row)
    assert isinstance(after, Row)
    assert (before.columns["sentence"], bad.row, after.row, after.columns["sentence"]) == ("a", 2, 3, "c")
    told = reason.replace("column 'x'", "column 'x': 1 cell")
    with pytest.warns(Note, match=re.escape(told)):  # a column that nothing depends on costs no row its label
        rows = list(parquet_rows(tmp_path / "a.parquet", ["sentence"]))
    assert [isinstance(row, Row) and row.columns["sentence"] for row in rows] == ["a", "b", "c"]
    assert [isinstance(row, Row) and row.columns["x"] is None for row in rows] == [False, True, False]


def test_decimals_and_nested_columns_are_values(tmp_path: Path) -> None:
    columns = {
        "giá": pyarrow.array(["1.5"]).cast(pyarrow.decimal128(5, 2)), "số": pyarrow.array([[1, None]]),
        "cặp": pyarrow.array([[("a", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
        "mục": pyarrow.array([{"a": 1}]),
    }  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    (row,) = parquet_rows(tmp_path / "a.parquet", [])
    assert row == Row(1, {"giá": Decimal("1.50"), "số": [1, None], "cặp": [("a", 1)], "mục": {"a": 1}})


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("", r"no column 'sentence' \(got none\)"),
        ("sentence\n", "no column 'sentiment'"),
        ('"sentence"x,sentiment\n', "the header line is malformed"),
        ("sentence,sentence,sentiment\n", r"column names repeat \(got sentence more than once\); rename one"),
    ],
)
def test_a_table_with_a_broken_header_is_refused(header: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"^a\.csv: {message}"):
        table(header + "hay,1\n" * bool(header))


def test_parquet_rows_are_numbered_over_all_batches(tmp_path: Path) -> None:
    rows = [{"sentence": f"câu {i}", "sentiment": i % 3} for i in range(70_000)]  # a batch has 65,536
    found = list(parquet_rows(write_rows(tmp_path / "a.parquet", rows), REQUIRED))
    assert found[0] == Row(1, rows[0])
    assert found[-1] == Row(70_000, rows[-1])


def test_a_parquet_file_that_lacks_a_column_or_is_none_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.parquet", [{"sentence": "hay"}])
    with pytest.raises(DataError, match=r"a\.parquet: no column 'sentiment'"):
        list(parquet_rows(path, REQUIRED))
    path.write_text("sentence,sentiment")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        list(parquet_rows(path, REQUIRED))
    with pytest.raises(DataError, match=r"không có\.parquet: no such file"):
        parquet_label_names(tmp_path / "không có.parquet", "sentiment")


def test_label_names_are_those_that_datasets_wrote_into_the_file(tmp_path: Path) -> None:
    features = {"sentence": datasets.Value("string"), "sentiment": datasets.ClassLabel(names=LABELS[::-1])}
    rows = [{key: row[key] for key in features} for row in ROWS]
    made = datasets.Dataset.from_list(rows, features=datasets.Features(features))
    made.to_parquet(tmp_path / "a.parquet")
    assert parquet_label_names(tmp_path / "a.parquet", "sentiment") == LABELS[::-1]
    assert parquet_label_names(tmp_path / "a.parquet", "sentence") == []


@pytest.mark.parametrize("metadata", [None, "{", "[]", '{"info": {"features": {"sentiment": {"dtype": "int64"}}}}'])
def test_a_file_of_another_program_has_no_label_names(tmp_path: Path, metadata: str | None) -> None:
    made = pyarrow.Table.from_pylist(ROWS)
    if metadata is not None:
        made = made.replace_schema_metadata({b"huggingface": metadata.encode()})
    pyarrow.parquet.write_table(made, tmp_path / "a.parquet")
    assert parquet_label_names(tmp_path / "a.parquet", "sentiment") == []


def test_json_rows_keep_the_types_of_their_values() -> None:
    columns = {"a": 1, "b": None, "c": [True, 0.5], "d": "x"}
    assert list(jsonl_rows([json.dumps(columns)])) == [Row(1, columns)]


def test_columns_that_a_spreadsheet_left_over_are_dropped_and_the_header_is_composed() -> None:
    found = table("sentence,sentiment,y\u0301,,\nhay,1,a,,\ndở,0,b\ntạm,1,c,,x\n,,\nvui,1,\n,,,,\n,,\n")
    assert found[:2] == [
        Row(1, {"sentence": "hay", "sentiment": "1", "ý": "a"}), Row(2, {"sentence": "dở", "sentiment": "0", "ý": "b"})
    ]  # fmt: skip
    assert isinstance(found[2], BadRow)
    assert [item.row for item in found] == [1, 2, 3, 4, 5]  # row 4 is empty; the two rows of commas at the end are none


def test_column_names_are_composed_in_json_and_parquet_too(tmp_path: Path) -> None:
    assert list(jsonl_rows(['{"y\u0301": 1}'])) == [Row(1, {"ý": 1})]
    path = write_rows(tmp_path / "a.parquet", [{"y\u0301": 1}])
    assert list(parquet_rows(path, ("ý",))) == [Row(1, {"ý": 1})]


def test_a_field_may_be_longer_than_the_csv_module_allows() -> None:
    (row,) = table(f"sentence,sentiment\n{'hay ' * 40_000},1\n")
    assert isinstance(row, Row)
    assert len(row.columns["sentence"]) == 160_000


def test_fasttext_labels_are_the_words_with_its_prefix() -> None:
    lines = ["__label__tốt thầy  dạy hay\n", "\n", "__label__a hai nhãn __label__b\n", "không nhãn"]
    assert list(fasttext_rows(lines, "câu", "nhãn")) == [
        Row(1, {"câu": "thầy  dạy hay", "nhãn": "tốt"}), Row(2, {"câu": "hai nhãn", "nhãn": ["a", "b"]}),
        Row(3, {"câu": "không nhãn", "nhãn": None}),
    ]  # fmt: skip
