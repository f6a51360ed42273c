"""Data sources that do not exist, cannot be opened, or are no files; hub names without a network."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.bad_input import refusal

GOOD = "sentence,sentiment\nthầy dạy hay,positive\nphòng nóng,negative\nbình thường,neutral\n"
MISSING = {
    "a file": ("không có.csv", r"không có\.csv: no such file; check the path"),
    "a path": ("./không/có", r"không/có: no such folder or file; give a folder, a file"),
    "an absolute path": ("/không/có/train.jsonl", r"/không/có/train\.jsonl: no such file"),
    "a home": ("~không_có/a.csv", r"no such (file|folder)"),
    "a dot": ("./.", r"no file for split train \(got no data files\)"),
    "a bundled name misspelt": ("feedbak", r"hub feedbak, split train: cannot be loaded, and is no folder here: .*; did you mean the bundled 'feedb"),
    "a hub name": ("uitnlp/không_có", r"hub uitnlp/kh.*: it is no hub id either; a hub id is owner/name"),
    "a plain hub name": ("abc/def", r"hub abc/def, split train: cannot be loaded, .*it is not in the cache, and HF_HUB_OFFLINE is set; unset"),
    "three parts": ("a/b/c", r"a/b/c: no such folder or file; give a folder"),
    "an address": ("https://example.org/a.csv", r"no such f"),
    "an address of S3": ("s3://bucket/a.parquet", r"no such f"),
    "a blank": (" ", r"data\.source: is blank"),
    "a star": ("*.csv", r"\*\.csv: no such file"),
    "300 letters": ("ă" * 300, r"data\.source: is too long"),
    "300 letters and a suffix": ("ă" * 300 + ".csv", r"data\.source: is too long .*; at most 255 bytes"),
    "2,000 letters": ("a/" * 800 + "b" * 300 + ".csv", r"data\.source: is too long .*; at most 255 bytes"),
    "a device": ("/dev/null", r"/dev/null: "),
    "a device without end": ("/dev/zero", r"/dev/zero: "),
}  # fmt: skip


def fifo(path: Path) -> None:
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    path.symlink_to("không có")


def folder(path: Path) -> None:
    path.mkdir()


KINDS = {"fifo": fifo, "symlink loop": loop, "dangling symlink": dangling, "folder": folder}


@pytest.mark.parametrize(("source", "says"), MISSING.values(), ids=MISSING)
def test_a_source_that_is_not_there_is_refused(source: str, says: str) -> None:
    refusal(["train", "--data", source, "--set", "name=a"], says)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".xlsx", ".txt"])
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_what_is_no_plain_file_is_refused(make: Callable[[Path], None], suffix: str) -> None:
    make(Path(f"a{suffix}"))
    refusal(["train", "--data", f"./a{suffix}"], rf"a{suffix}: (exists, but is no|no such|cannot be read|no file for)")


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_a_split_that_is_no_plain_file_is_refused(make: Callable[[Path], None]) -> None:
    Path("d").mkdir()
    make(Path("d/train.csv"))
    refusal(["train", "--data", "d"], r"d(/train\.csv)?: (exists, but is no|no such|cannot be read|no file for)")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".xlsx", ".csv.gz"])
def test_a_file_that_may_not_be_read_is_refused(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(f"a{suffix}").write_text(GOOD, encoding="utf-8")
    opened = Path.open

    def denied(path: Path, *given: Any, **named: Any) -> Any:
        if path.name == f"a{suffix}":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *given, **named)

    monkeypatch.setattr(Path, "open", denied)
    refusal(["train", "--data", f"a{suffix}"], rf"a{suffix}: .*Permission denied")
