"""Parts of a file have, one after the other, the rows that the whole file has."""

import gzip
import json
import os
import random
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from loraft.data import parts
from loraft.data.parts import input_files, part_rows, parts_of
from loraft.data.readers import input_rows
from loraft.data.records import BadRow, FileSettings, Row
from loraft.errors import ConfigError, DataError

JSON_ROWS = [json.dumps({"sentence": f"thầy giảng câu {n}", "mã": n}, ensure_ascii=False) for n in range(7)]
TEXTS: dict[str, tuple[str, bytes, int]] = {  # name, content, least number of parts of two rows
    "CSV": ("a.csv", b"m,sentence\n" + b"".join(f"{n},thầy dạy {n}\n".encode() for n in range(7)), 3),
    "no line end at the end": ("a.csv", "sentence\nmột\nhai\nba".encode(), 2),
    "a mark and other line ends": ("a.csv", "\ufeffm,sentence\r\n1,một\r\n2,hai\r\n3,ba\r\n".encode(), 2),
    "old line ends": ("a.csv", "m,sentence\r1,một\r2,hai\r3,ba\r".encode(), 2),
    "line ends in cells": ("a.csv", b'm,sentence\n1,"a\nb"\n2,"c\n\nd"\n3,"e\n1,f"\n4,g\n5,h\n', 3),
    "a stray quote inside": ("a.csv", 'm,sentence\n1,a 5" màn\n2,"b\nc"\n3,d\n4,e\n5,f\n'.encode(), 3),
    "malformed records": ("a.csv", b'm,sentence\n1,"a\n2,b\n3,c\n4,"d"x\n5,e\n6,"f\ng"\n7,h\n8,i\n', 1),
    "a header over two lines": ("a.csv", '\n"m\nx",sentence\n1,một\n2,hai\n3,ba\n'.encode(), 2),
    "blank rows between": ("a.csv", "m,sentence\n1,một\n,\n,\n\n4,bốn\n5,năm\n,\n6,sáu\n,\n,\n".encode(), 2),
    "a named delimiter": ("a.csv", "sep=;\nm;sentence\n1;một\n2;hai\n3;ba\n".encode(), 2),
    "tabs": ("a.tsv", "m\tsentence\n1\tmột\n2\thai\n3\tba\n".encode(), 2),
    "undecodable bytes": ("a.csv", b"m,sentence\n1,a\xff\xe1\xbb\n2,b\n3,c\n", 2),
    "only a header": ("a.csv", b"m,sentence\n", 1),
    "JSON lines": ("a.jsonl", "\n\n".join(JSON_ROWS).encode(), 3),
    "JSON that is none": ("a.jsonl", b'{"sentence": "a"}\n{"b\n\xff\n{"sentence": null}\n\n{"sentence": "c"}\n', 1),
    "blank JSON rows": ("a.jsonl", b'{"sentence": ""}\n' * 5, 1),
    "an array": ("a.json", f"\n [{','.join(JSON_ROWS)}]".encode(), 3),
    "JSON lines by another name": ("a.json", "\n".join(JSON_ROWS).encode(), 3),
    "UTF-16": ("a.csv", "m,sentence\n1,một\n2,hai\n3,ba\n".encode("utf-16"), 2),
    "lines": ("a.txt", "một\n\nba\n".encode(), 2),
    "compressed": ("a.csv.gz", gzip.compress("sentence\nmột\nhai\nba\n".encode()), 2),
    "JSON lines with NUL, and after each other": (
        "a.jsonl",
        b'{"sentence": "a"}\n{"sentence": "\0"}\n{"sentence": "c"}\n\xef\xbb\xbf{"sentence": "d"}\n{"m": 1}\n%PDF\n',
        3,
    ),
    "empty JSON lines": ("a.jsonl", b"", 1),
}  # fmt: skip


def read_in_parts(path: Path, most: int, least: int = 1) -> tuple[list[Row | BadRow], list[list[str]]]:
    """All rows, and each part's columns."""
    found, headers = [], []
    split = parts_of(path, "auto", "sentence", FileSettings(), most)
    assert len(split) >= least
    for part in split:
        headers.append([])
        rows = list(part_rows(part, "auto", "sentence", FileSettings(), headers[-1]))
        assert part.rows == len(rows)
        found += rows
    return found, headers


@pytest.mark.parametrize(("name", "content", "least"), TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("most", [1, 2, 1000])
def test_parts_have_the_rows_of_the_file(name: str, content: bytes, least: int, most: int, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    header: list[str] = []
    whole = list(input_rows(path, header=header))
    found, headers = read_in_parts(path, most, least if most <= 2 else 1)
    assert found == whole
    assert headers == [header] * len(headers)


def test_a_pattern_leaves_its_own_output_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path
    monkeypatch.chdir(here)
    for name in (
        "a.jsonl",
        "dưới/b.jsonl",
        "_c.jsonl",
        ".d.jsonl",
        "dưới/out/_predictions.jsonl",
        "dưới/out/part.jsonl",
    ):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).touch()
    monkeypatch.setenv("HOME", str(here))
    for given in ("**/*.jsonl", "~/**/*.jsonl"):
        assert input_files(Path(given), Path("dưới/out")) == [here / "a.jsonl", here / "dưới/b.jsonl"]
    assert input_files(here, here / "out") == [here / "a.jsonl"]
    with pytest.raises(ConfigError, match="only files of the output"):
        input_files(Path("dưới/out/*"), Path("dưới/out"))


@pytest.mark.skipif(os.name == "nt", reason="Windows lets only some users make links")
def test_a_link_to_nowhere_is_told_and_not_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    (tmp_path / "b.csv").symlink_to(tmp_path / "không có")
    (tmp_path / "c.csv").mkdir()
    for given in (tmp_path, tmp_path / "*.csv"):
        assert input_files(given, tmp_path / "out") == [tmp_path / "a.csv", tmp_path / "b.csv"]
    with pytest.raises(DataError, match=r"b.csv: cannot be read \(No such file"):
        parts_of(tmp_path / "b.csv", "auto", "sentence", FileSettings(), 8)


def test_parts_of_json_know_the_columns_of_the_whole_file(tmp_path: Path) -> None:
    rows = b'{"sentence": "a"}\n{"sentence": "b", "m": 1}\n{"\\ud800": 1, "sentence": "c"}\n'
    for name, content in (("a.jsonl", rows), ("a.jsonl.gz", gzip.compress(rows))):
        (tmp_path / name).write_bytes(content)
        split = parts_of(tmp_path / name, "auto", "sentence", FileSettings(), 1)
        assert [one.columns for one in split] == [("sentence", "m", "?")] * 3


def test_parts_of_any_bytes_have_the_rows_of_the_file(tmp_path: Path) -> None:
    draw, path, cut = random.Random(0), tmp_path / "a.csv", 0
    for _ in range(400):
        body = "".join(draw.choices(['"', ",", "\n", "\n", "\r\n", "\r", "ệ", "a", " ", '"b\nc"', "1,x\n"], k=30))
        path.write_bytes(f"m,sentence\n{body}".encode())
        found, _ = read_in_parts(path, 1)
        assert found == list(input_rows(path)), body
        cut += len(parts_of(path, "auto", "sentence", FileSettings(), 1)) > 1
    assert cut > 100


@pytest.mark.parametrize("group", [3, 1000])
def test_a_parquet_file_is_cut_between_any_rows(group: int, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"sentence": [f"câu {n}" for n in range(10)], "mã": range(10)})
    pyarrow.parquet.write_table(table, path, row_group_size=group)
    for most in (1, 4, 10, 11):
        assert read_in_parts(path, most, -(-10 // most))[0] == list(input_rows(path))
    pyarrow.parquet.write_table(table.slice(0, 0), path)
    assert read_in_parts(path, 4) == ([], [["sentence", "mã"]])


def test_parts_of_long_rows_have_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST_BYTES", 100)
    texts = [f"{n} {'ệ' * 50}" for n in range(6)]
    (tmp_path / "a.csv").write_text("\n".join(["sentence", *texts]), encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.table({"sentence": texts}), tmp_path / "a.parquet", use_dictionary=False)
    for name in ("a.csv", "a.parquet"):
        assert read_in_parts(tmp_path / name, 1000, 5)[0] == list(input_rows(tmp_path / name))


def test_a_file_that_changes_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("sentence\nmột\nhai\n", encoding="utf-8")
    (part,) = parts_of(path, "auto", "sentence", FileSettings(), 10)
    path.write_text("sentence\nmột\nhai b\n\nx", encoding="utf-8")
    list(part_rows(part, "auto", "sentence", FileSettings()))
    path.write_text("sentence\nmột\nha\nb", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.csv: has changed \(got 3 rows after row 0, not 2\); leave"):
        list(part_rows(part, "auto", "sentence", FileSettings()))
    with pytest.raises(DataError, match=r"b\.csv: cannot be read \(No such file"):
        parts_of(tmp_path / "b.csv", "auto", "sentence", FileSettings(), 10)
