"""Folders of a tiny backbone, as save_pretrained writes them, to be damaged."""

import json
import shutil
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from helpers.tiny import backbone, tokenizer

ROWS = "sentence,sentiment\nthầy dạy hay,positive\nphòng nóng,negative\nbình thường,neutral\n"


@lru_cache
def _saved() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="loraft-tiny-")
    backbone("llama").save_pretrained(folder.name)
    tokenizer().save_pretrained(folder.name)
    return folder


def tiny_model(folder: str = "mô hình") -> Path:
    """A copy of the tiny Llama in the working folder, and a labelled file to evaluate it on."""
    shutil.copytree(_saved().name, folder)
    Path("a.csv").write_text(ROWS, encoding="utf-8")
    return Path(folder)


def evaluated(*more: str) -> list[str]:
    """The arguments that evaluate `tiny_model`."""
    return ["eval", "--zero-shot", "--model", "./mô hình", "--split", "a.csv", *more]


def edited(path: Path, change: dict[str, Any] | Callable[[Any], Any]) -> None:
    """Changes keys of a JSON file, or its whole value."""
    value = json.loads(path.read_text(encoding="utf-8"))
    value = {**value, **change} if isinstance(change, dict) else change(value)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
