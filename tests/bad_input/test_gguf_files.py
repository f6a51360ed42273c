"""GGUF files that are cut off, damaged, of another version, or several in one folder."""

import shutil
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest
from helpers.bad_input import refusal
from helpers.gguf_files import write_gguf


@lru_cache
def _made() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="loraft-gguf-")
    write_gguf(Path(folder.name, "a.gguf"))
    return folder


def cut(size: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:size]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "the magic word": cut(4),
    "the version": cut(8),
    "the head": cut(24),
    "half of the keys": cut(400),
    "another magic word": lambda content: b"GGML" + content[4:],
    "version 1": lambda content: content[:4] + (1).to_bytes(4, "little") + content[8:],
    "version 99": lambda content: content[:4] + (99).to_bytes(4, "little") + content[8:],
    "other byte order": lambda content: content[:4] + content[7:3:-1] + content[8:],
    "many tensors": lambda content: content[:8] + (2**40).to_bytes(8, "little") + content[16:],
    "many keys": lambda content: content[:16] + (2**40).to_bytes(8, "little") + content[24:],
    "no tensors": lambda content: content[:8] + bytes(8) + content[16:],
    "text": lambda content: "thầy dạy hay".encode(),
    "zeros": lambda content: bytes(1000),
    "a pointer of Git LFS": lambda content: b"version https://git-lfs.github.com/spec/v1\n",
    "another architecture": lambda content: content.replace(b"llama", b"llamb"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_refused(damage: Callable[[bytes], bytes]) -> None:
    Path("a.gguf").write_bytes(damage(Path(_made().name, "a.gguf").read_bytes()))
    Path("a.csv").write_text("sentence,sentiment\nhay,positive\n", encoding="utf-8")
    refusal(
        ["eval", "--zero-shot", "--model", "./a.gguf", "--split", "a.csv"],
        r"^error: model\.name: (cannot load|the weights of) .*a\.gguf",
    )


def test_two_files_in_a_folder_are_refused() -> None:
    Path("m").mkdir()
    for name in ("a.gguf", "b.GGUF"):
        shutil.copy(Path(_made().name, "a.gguf"), Path("m", name))
    refusal(
        ["eval", "--zero-shot", "--model", "./m"], r"/m holds several GGUF files \(a\.gguf, b\.GGUF\); name one of them"
    )


@pytest.mark.parametrize("name", ["./không.gguf", "a/b.gguf", "a.GGUF", "/không/có.gguf"])
def test_a_file_that_is_not_there_is_refused(name: str) -> None:
    refusal(["train", "--model", name], r"model\.name: no such backbone \(got '.*'\); bundled: loraft-vi-tiny")
