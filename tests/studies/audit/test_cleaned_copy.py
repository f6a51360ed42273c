"""A cleaned copy has all rows but the dropped ones, with all columns, in the format of its input."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from helpers.data import write_rows

from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.data.readers import read_rows
from loraft.data.records import Row
from loraft.errors import ConfigError
from loraft.runs.study_folders import AuditFolder
from loraft.studies.audit.cleaned_copy import target, write_without

ROWS: list[dict[str, Any]] = [
    {"mã": f"a{i}", "sentence": f'thầy dạy "hay",\nbuổi {i}; rất dễ hiểu', "sentiment": "positive", "năm": 2020 + i}
    for i in range(6)
]


def config(source: Path, *overrides: str) -> Config:
    return resolve(overrides=[f"data.source={source}", f"output={source.parent / 'runs'}", *overrides])


def copied(section: Config, to: Path | None = None, split: str = "train") -> Path:
    path = target(section, split, AuditFolder(Path(section.output.folder) / "kiểm tra"), to, force=False)
    assert write_without(section, split, {2, 5}, path) == len(ROWS) - 2
    return path


def contents(path: Path) -> list[dict[str, Any]]:
    return [item.columns for item in read_rows(path) if isinstance(item, Row)]


@pytest.mark.parametrize("name", ["câu.csv", "câu.tsv", "câu.jsonl", "câu.json", "câu.parquet"])
def test_the_copy_reads_back_as_the_input_without_the_dropped_rows(tmp_path: Path, name: str) -> None:
    source = write_rows(tmp_path / name, ROWS)
    before = source.read_bytes()
    path = copied(config(source))
    assert path == tmp_path / "runs" / "kiểm tra" / name.replace("câu.", "câu.cleaned.")
    assert contents(path) == [row for i, row in enumerate(contents(source)) if i not in (1, 4)]
    assert source.read_bytes() == before


def test_a_delimiter_a_schema_and_compression_stay(tmp_path: Path) -> None:
    lines = [f"{i};câu {i};positive" for i in range(6)]
    semicolons = tmp_path / "câu.csv"
    semicolons.write_text("mã;sentence;sentiment\n" + "\n".join(lines) + "\n", encoding="utf-8")
    kept = "\n".join(line for i, line in enumerate(lines) if i not in (1, 4))
    assert copied(config(semicolons)).read_text(encoding="utf-8") == f"mã;sentence;sentiment\n{kept}\n"
    table = write_rows(tmp_path / "bảng.parquet", ROWS)
    assert pyarrow.parquet.read_schema(copied(config(table))) == pyarrow.parquet.read_schema(table)
    packed = tmp_path / "nén.jsonl.gz"
    packed.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode()))
    assert contents(copied(config(packed))) == [row for i, row in enumerate(ROWS) if i not in (1, 4)]


def test_rows_of_another_split_and_of_a_folder_are_found(tmp_path: Path) -> None:
    (tmp_path / "dữ liệu").mkdir()
    write_rows(tmp_path / "dữ liệu" / "test.csv", ROWS)
    path = copied(config(tmp_path / "dữ liệu"), tmp_path / "sạch.csv", split="test")
    assert len(contents(path)) == 4
    drawn = write_rows(tmp_path / "một.csv", ROWS)  # its validation rows are rows of the file
    assert len(contents(copied(config(drawn, "data.split=[0.5, 0.5, 0]"), split="validation"))) == 4


def test_the_input_a_foreign_file_and_another_format_are_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    source = write_rows(tmp_path / "d" / "train.csv", ROWS)
    for given in (source, tmp_path / "d"):
        for to in (source, tmp_path / "d" / "mới.csv") if given != source else (source,):
            with pytest.raises(ConfigError, match="is the input, or in its folder"):
                copied(config(given), to)
    (tmp_path / "có.csv").write_text("của tôi", encoding="utf-8")
    with pytest.raises(ConfigError, match="not an earlier output of this command"):
        copied(config(source), tmp_path / "có.csv")
    with pytest.raises(ConfigError, match=r"has the format of its input \(got sạch.jsonl\); name a file with \.csv"):
        copied(config(source), tmp_path / "sạch.jsonl")
    with pytest.raises(ConfigError, match=r"output\.texts=false .*--to FILE"):
        copied(config(source, "output.texts=false"))
    assert copied(config(source, "output.texts=false"), tmp_path / "sạch.csv").is_file()
