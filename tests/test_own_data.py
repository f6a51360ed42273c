"""`docs/own-data.md` does what it says: its blocks run one after the other, and print what stands below them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "own-data.md"
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
TRAINING = next(i for i, (_, code) in enumerate(BLOCKS) if code.startswith("loraft train"))


def run(blocks: list[tuple[str, str]], folder: Path) -> list[str]:
    """Runs the blocks of a page in a folder; returns what each code block printed on stdout.

    Checks what the page shows: a `text` block is all of stdout or stderr of the block above it.
    """
    (folder / "bin").mkdir()
    command = folder / "bin" / "loraft"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -X utf8 -m loraft "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"}
    printed: list[str] = []
    shown: list[list[str]] = []
    for kind, code in blocks:
        if kind == "text":
            assert lines(code) in shown
            continue
        program = ["bash", "-ec", code] if kind == "sh" else [sys.executable, "-X", "utf8", "-c", code]
        done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, encoding="utf-8")
        assert done.returncode == 0, f"{code}\n{done.stderr}"
        shown = [lines(done.stdout), lines(done.stderr)]
        printed.append(done.stdout)
    return printed


def lines(text: str) -> list[str]:
    """The lines without spaces at their ends, with which tables are filled up."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


def test_the_way_to_a_task_prints_what_the_page_shows(tmp_path: Path) -> None:
    config = run(BLOCKS[:TRAINING], tmp_path)[-1]
    assert '"góp ý", "khen" hoặc "lỗi"' in config
    assert "phản hồi của khách mua hàng" in config


@pytest.mark.integration
def test_the_whole_page_goes_from_one_file_to_predictions(tmp_path: Path) -> None:
    *_, table, from_python, trained = run(BLOCKS, tmp_path)
    assert table.splitlines()[0] == "mã,nội dung,loại,label,confidence,prob_góp ý,prob_khen,prob_lỗi"
    assert [line.split()[0] for line in from_python.splitlines()] == ["khen", "lỗi", "15"]
    assert trained == "runs/phan-hoi-2 ('góp ý', 'khen', 'lỗi')\n"
