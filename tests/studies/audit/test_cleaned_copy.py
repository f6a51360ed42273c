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
from loraft.data.dataset import load_data
from loraft.data.readers import read_rows
from loraft.data.records import Row
from loraft.errors import ConfigError, Note, RunError
from loraft.runs.study_folders import AuditFolder
from loraft.studies.audit.audit import fingerprint
from loraft.studies.audit.cleaned_copy import target, with_copies, write_without

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
    for split in ("train", "validation"):
        with pytest.warns(Note, match="holds the rows of all splits that are drawn; a training on it draws others"):
            path = copied(config(drawn, "data.split=[0.5, 0.5, 0]"), split=split)
        assert len(contents(path)) == 4


def test_texts_without_a_header_read_back_with_the_same_settings(tmp_path: Path) -> None:
    lines = "".join(f"__label__{'positive' if i else 'negative'} câu thứ {i}\n" for i in range(6))
    fasttext = tmp_path / "câu.txt"
    fasttext.write_text(lines, encoding="utf-8")
    (tmp_path / "nhãn").mkdir()
    (tmp_path / "nhãn" / "positive.txt").write_text("".join(f"câu thứ {i}\n" for i in range(6)), encoding="utf-8")
    for source in (fasttext, tmp_path / "nhãn"):
        section = config(source, "data.text_column=câu", "data.label_column=nhãn")
        before = load_data(section, "train")
        copy = copied(section)
        assert copy.suffix == ".jsonl"
        after = load_data(config(copy, "data.text_column=câu", "data.label_column=nhãn"), "train")
        kept = [0, 2, 3, 5]
        assert list(after.texts) == [before.texts[i] for i in kept]
        assert after.labels.tolist() == before.labels[kept].tolist()


def test_all_copies_of_a_dropped_row_are_dropped_and_other_rows_refused(tmp_path: Path) -> None:
    rows = [ROWS[0], ROWS[1], ROWS[0], {**ROWS[0], "sentiment": "negative"}, ROWS[1], ROWS[2]]
    section = config(write_rows(tmp_path / "câu.csv", rows), "data.drop_duplicates=true", "data.max_train_rows=3")
    audited = load_data(section, "train")
    assert audited.examples.rows.tolist() == [1, 2, 4]
    assert with_copies(section, "train", [1], fingerprint(audited)) == {1, 3}
    write_rows(tmp_path / "câu.csv", [rows[5], *rows])
    with pytest.raises(RunError, match=r"câu\.csv: its rows changed since they were audited; loraft audit --force"):
        with_copies(section, "train", [1], fingerprint(audited))


def test_the_input_a_foreign_file_and_another_format_are_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    source = write_rows(tmp_path / "d" / "train.csv", ROWS)
    for given in (source, tmp_path / "d"):
        for to in (source, tmp_path / "d" / "mới.csv") if given != source else (source,):
            with pytest.raises(ConfigError, match="is the input, or in its folder"):
                copied(config(given), to)
    (tmp_path / "có.csv").write_text("của tôi", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"exists \(got .*--force replaces it"):
        copied(config(source), tmp_path / "có.csv")
    with pytest.raises(ConfigError, match=r"has the format of its input \(got sạch.jsonl\); name a file with \.csv"):
        copied(config(source), tmp_path / "sạch.jsonl")
    with pytest.raises(ConfigError, match=r"output\.texts=false .*--to FILE"):
        copied(config(source, "output.texts=false"))
    with pytest.raises(ConfigError, match=r"copy is made of one source .*data\.extra_train"):
        copied(config(source, f"data.extra_train=[{source}]"))
    assert copied(config(source, "output.texts=false"), tmp_path / "sạch.csv").is_file()
