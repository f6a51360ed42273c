"""Names and paths of runs that are none."""

import re
from pathlib import Path

import pytest
from helpers.bad_input import refusal

NONE = r"runs: no such run \(got "
COMMANDS = {
    "eval": ["eval", "--run", "X"],
    "predict": ["predict", "--run", "X", "thầy giảng hay"],
    "fewshot": ["fewshot", "--run", "X"],
    "compare": ["compare", "X", "X"],
}
NAMES = {
    "": rf"{NONE}''\)",
    " ": rf"{NONE}' '\)",
    "không-có": rf"{NONE}'không-có'\); ",
    "~ai-đó": rf"{NONE}'~ai-đó'\)",
    "a\0b": rf"{NONE}'a\\x00b'\)",
    "tệp": r"'tệp': exists, but is no folder of a run; ",
    "/dev/null": r"'/dev/null': exists, but is no folder of a run",
    "thư-mục": r"thư-mục: is not a run directory \(no config\.yaml or loraft.json in it\); loraft train makes runs",
    "../": r"is not a run directory",
}


@pytest.fixture
def inside(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder whose parent is empty beside it: pytest has a lock in the one above `work`."""
    (work / "đây").mkdir()
    monkeypatch.chdir(work / "đây")
    return work / "đây"


@pytest.mark.parametrize("name", NAMES, ids=[ascii(name) for name in NAMES])
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_run_is_told(command: str, name: str, inside: Path) -> None:
    (inside / "thư-mục").mkdir()
    (inside / "tệp").write_text("x", encoding="utf-8")
    refusal([name if word == "X" else word for word in COMMANDS[command]], NAMES[name])


@pytest.mark.parametrize("name", [".", ".."])
def test_the_working_folder_is_told_as_it_was_given(name: str, inside: Path) -> None:
    (inside / "runs").mkdir()
    for command, says in (("compare", "is not a run directory"), ("report", "nothing finished to report")):
        refusal([command, name, name][: 3 if command == "compare" else 2], rf"^error: {re.escape(name)}: {says}")


def test_of_many_runs_ten_are_named(work: Path) -> None:
    for number in range(40):
        (work / "runs" / f"r{number:02}").mkdir(parents=True)
        (work / "runs" / f"r{number:02}" / "config.yaml").write_text("seed: 1", encoding="utf-8")
    refusal(["eval", "--run", "khác"], r"runs there: r00, r01, .*r09 and 30 more")
    refusal(["eval", "--run", "r0"], r"did you mean r\d\d\?")
