"""Inputs and flags of `loraft predict` that are refused before a backbone is loaded."""

import json
import os
from pathlib import Path

import pytest
from helpers.bad_input import refusal
from safetensors.torch import save_file

CONFIG = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "loraft-vi-tiny",
    "r": 2,
    "lora_alpha": 4,
}
FILES: dict[str, tuple[str, bytes, list[str], str]] = {
    "an empty table": ("a.csv", b"", [], r"a\.csv: no column 'sentence' \(got none\); name it with --text-column NAME"),
    "another column": ("a.csv", "câu\nhay\n".encode(), [], r"a\.csv: no column 'sentence' \(got câu\); name it with --text-c"),
    "a column that is not there": ("a.csv", b"sentence\nhay\n", ["--text-column", "x"], r"a\.csv: no column 'x' \(got sentence\)"),
    "names that repeat": ("a.csv", b"sentence,a,a\nhay,1,2\n", [], r"a\.csv: column names repeat \(got a more than once\)"),
    "a malformed header": ("a.csv", b'"a"b,sentence\n', [], r"a\.csv: the header line is malformed"),
    "another format": ("a.docx", b"PK\x03\x04", [], r"a\.docx: is no text|a\.docx: unknown file format"),
    "a binary": ("a.txt", bytes(10), [], r"a\.txt: is no text \(got b'"),
    "a picture": ("a.txt", b"\x89PNG\r\n\x1a\n", [], r"a\.txt: is no text \(got b'\\x89PNG"),
    "a Parquet file by another name": ("a.txt", b"PAR1" + bytes(9), [], r"a\.txt: is no text \(got b'PAR1"),
    "a damaged Parquet file": ("a.parquet", b"PAR1", [], r"a\.parquet: not a readable Parquet file"),
    "a damaged Excel file": ("a.xlsx", b"PK", [], r"a\.xlsx: not a readable Excel file"),
    "half a compressed file": ("a.csv.gz", b"\x1f\x8b\x08", [], r"a\.csv\.gz: cannot be read \("),
    "an array that does not end": ("a.json", b'[{"sentence": "hay"}', [], r"a\.json: not JSON"),
    "JSON without the column": ("a", b'{"text": "hay"}\n', [], r"a: no column 'sentence' \(got text\); name it with --text-column"),
    "an unknown format": ("a.csv", b"sentence\nhay\n", ["--format", "xml"], r"--format: unknown \(got 'xml'\); allowed: auto, lines"),
    "a name of a format in capitals": ("a.csv", b"sentence\nhay\n", ["--format", "CSV"], r"--format: unknown \(got 'CSV'\)"),
    "a text that is a picture": ("a.txt", b"\x89PNG", ["--format", "text"], r"a\.txt: is no text"),
    "sentences beside a file": ("a.csv", b"sentence\nhay\n", ["hay"], r"--input and sentences: two sources \(got a\.csv and 'hay'\)"),
    "JSON and a file of results": ("a.csv", b"sentence\nhay\n", ["--json", "--output-file", "b.csv"], r"--json and --output-file: two forms"),
    "a file of results of another format": ("a.csv", b"sentence\nhay\n", ["--output-file", "b.docx"], r"--output-file: unknown format \(got \.docx\)"),
    "results over the input": ("a.csv", b"sentence\nhay\n", ["--output-file", "a.csv"], r"a\.csv"),
    "a run beside an adapter": ("a.csv", b"sentence\nhay\n", ["--run", "b"], r"--run and --adapter: each says what to load"),
    "a blank column": ("a.csv", b"sentence\nhay\n", ["--text-column", ""], r"--text-column: is blank \(got ''\); give a name"),
    "a column with NUL": ("a.csv", b"sentence\nhay\n", ["--text-column", "a\0b"], r"--text-column: holds U\+0000, which"),
    "an unknown encoding": ("a.csv", b"sentence\nhay\n", ["--set", "data.encoding=vni"], r"data\.encoding: "),
    "an unknown sheet": ("a.csv", b"sentence\nhay\n", ["--set", "data.nothing=1"], r"data\.nothing"),
}  # fmt: skip


def predicted(*more: str) -> list[str]:
    """The arguments that predict with an adapter whose weights nothing reads before the input."""
    Path("adapter").mkdir()
    Path("adapter/adapter_config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    save_file({}, "adapter/adapter_model.safetensors")
    return ["predict", "--adapter", "adapter", *more]


@pytest.mark.parametrize(("name", "content", "flags", "says"), FILES.values(), ids=FILES)
def test_an_input_that_is_no_source_of_sentences_is_refused(
    name: str, content: bytes, flags: list[str], says: str
) -> None:
    Path(name).write_bytes(content)
    refusal(predicted("--input", name, *flags), says)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".xlsx", ".txt", ".csv.gz", ""])
def test_an_input_that_is_not_there_is_refused(suffix: str) -> None:
    refusal(predicted("--input", f"không có{suffix}"), rf"không có{suffix}: no such file; check the path")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".xlsx", ".txt", ""])
def test_a_folder_or_a_loop_as_input_is_refused(suffix: str) -> None:
    Path(f"thư mục{suffix}").mkdir()
    os.symlink(f"vòng{suffix}", f"vòng{suffix}")
    arguments = predicted("--input", f"thư mục{suffix}")
    refusal(arguments, rf"thư mục{suffix}: cannot be read \(Is a directory\)")
    refusal([*arguments[:-1], f"vòng{suffix}"], rf"vòng{suffix}: cannot be read \(Too many levels of symbolic links\)")


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such devices")
@pytest.mark.parametrize("format", ["auto", "text", "csv"])
def test_a_device_without_end_is_refused(format: str) -> None:
    refusal(
        predicted("--input", "/dev/zero", "--format", format), r"/dev/zero: is a device, which may have no end; sav"
    )


@pytest.mark.parametrize(
    "name", ["ạ" * 5000, "ạ" * 5000 + ".csv", "a/" * 1500 + "a.parquet"], ids=["name", "table", "path"]
)
def test_a_long_name_of_an_input_is_told_in_a_short_message(name: str) -> None:
    arguments = predicted("--input", name)
    for more in ([], ["--format", "text"]):
        said = refusal([*arguments, *more], r"\.\.\.': no such file; check the path")
        assert len(said) < 200
    if "/" not in name:
        said = refusal(
            [*arguments, "--output-file", f"{name}.csv"],
            r"--output-file: cannot be written \(got 'ạ+\.\.\.': File name too",
        )
        assert len(said) < 200
