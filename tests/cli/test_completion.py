"""Completion: every flag with choices, runs or files has one, and bash's words are put together."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from cli.test_help_page import LEAVES
from cli.test_options import completed
from helpers.command_line import Says, finished

from loraft.config.reference import reference
from loraft.config.schema import METRICS

PATHS = {"FILE", "FOLDER", "FILE.png"}
# What nobody can list: numbers, columns, names.
FREE = {"NUMBER", "N", "K", "TOKENS", "NAME", "TEXT...", "1,2,3", "1,2,4,8", "1,2,4,...,128", "OWNER/NAME", "BRANCH",
        "ADDRESS", "HOST:PORT", "OPTION"}  # fmt: skip
PARAMETERS = [
    pytest.param(command, parameter, id=f"{' '.join(words)} {parameter.name}")
    for words, command in LEAVES.items()
    for parameter in command.params
    if not getattr(parameter, "is_flag", False)
]


@pytest.mark.parametrize(("command", "parameter"), PARAMETERS)
def test_what_can_be_listed_is_completed(here: Path, command: Any, parameter: Any) -> None:
    finished(here / "runs" / "xong")
    with typer.Context(command) as context:
        command.get_help(context)  # fills in the metavars of config keys
        offered = [one.value for one in parameter.shell_complete(context, "")]
        words = set(re.findall(r"(?<![A-Z])[a-z][\w]+", parameter.metavar)) if "|" in parameter.metavar else set()
        assert words <= set(offered)
        if re.search("RUN|STUDY", parameter.metavar):
            assert "xong" in offered
        elif parameter.metavar in PATHS:
            # An empty answer lets the shell complete files, in each script that typer writes.
            assert parameter.shell_complete(context, "./") == []
        else:
            assert offered or parameter.metavar in FREE


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train --set quant.method=", ["quant.method=none", "quant.method=nf4"]),
        ("train --set quant.meth", ["quant.method=", "quant.method=none", "quant.method=nf4"]),
        ("train --set lora.use_dora=t", ["lora.use_dora=true"]),
        ("train --set train.metric=macro", ["train.metric=macro_f1"]),
        ("sweep --grid lora.use_d", ["lora.use_dora=", "lora.use_dora=true", "lora.use_dora=false"]),
        ("config --describe quant.c", ["quant.compute_dtype", "quant.cache"]),
        ("data --list l", ["leaks"]),
        ("data feed", ["feedback"]),
        ("export --to g", ["gguf"]),
        ("task new --language ", ["vi", "en"]),
        ("predict --format js", ["jsonl"]),
    ],
)
def test_values_are_completed(
    words: str, expected: list[str], here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert completed(f"loraft {words}", loraft_says, monkeypatch) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("data ", ["feedback", "dữ-liệu/", "phản-hồi.csv"]),
        ("data ph", ["phản-hồi.csv"]),
        ("data ./", ["./dữ-liệu/", "./phản-hồi.csv"]),
        ("train --data dữ", ["dữ-liệu/", "dữ-liệu/test.csv", "dữ-liệu/train.csv"]),
        ("train --model dữ-liệu/te", ["dữ-liệu/test.csv"]),
        ("train --set data.source=ph", ["data.source=phản-hồi.csv"]),
        ("train --task ph", ["phản-hồi.csv"]),
        ("eval --split t", ["train", "test"]),
        ("eval --split ph", ["phản-hồi.csv"]),
        ("data không-có/", []),
    ],
)
def test_files_and_folders_are_completed_beside_names(
    words: str, expected: list[str], here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "dữ-liệu").mkdir()
    for name in ("phản-hồi.csv", ".ẩn.csv", "có dấu cách.csv", "dữ-liệu/train.csv", "dữ-liệu/test.csv"):
        (here / name).touch()
    assert completed(f"loraft {words}", loraft_says, monkeypatch) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--set", "quant.method", "="], ["none", "nf4"]),
        (["--set", "quant.method", "=", "nf"], ["nf4"]),
        (["--set", "lora.r", "=", "4", "--set", "train.metric", "=", "a"], ["accuracy"]),
        (["--quant", "=", "no"], ["none"]),
        (["--set", "lora.r", "=", "4", "--quant", ""], ["none", "nf4"]),
    ],
)
def test_bash_divides_at_equals_signs_and_gets_what_stands_behind(
    words: list[str], expected: list[str], here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["loraft", "train", *words]
    monkeypatch.setenv("_LORAFT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "\n".join(given))
    monkeypatch.setenv("COMP_CWORD", str(len(given) - 1))
    assert loraft_says()[1].split() == expected


@pytest.mark.parametrize("words", ["train --set lora.r", "predict --run "])
def test_completion_imports_nothing_heavy(here: Path, words: str) -> None:
    script = """
import sys
from loraft.cli.app import main
try:
    main([])
finally:
    print("\\nIMPORTED", *sorted({"torch", "transformers", "datasets", "numpy", "pandas", "rich"} & set(sys.modules)))
"""
    asked = {"_LORAFT_COMPLETE": "complete_bash", "COMP_WORDS": f"loraft {words}", "COMP_CWORD": "3"}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **asked}, cwd=here, capture_output=True, text=True
    )
    assert done.stdout.endswith("IMPORTED\n"), done.stdout + done.stderr


def test_metrics_are_among_the_examples() -> None:
    assert set(METRICS) <= set(reference()["train.metric"].examples)


@pytest.mark.integration
def test_bash_completes_values_and_files(here: Path) -> None:
    (here / "câu.csv").touch()
    loraft = Path(sys.executable).with_name("loraft")
    environment = {**os.environ, "_LORAFT_COMPLETE": "source_bash"}
    script = subprocess.run([loraft], env=environment, capture_output=True, text=True, check=True).stdout
    assert "complete -o default" in script  # files, where nothing is offered

    def offered(*words: str) -> list[str]:
        line = f'COMP_WORDS=(loraft {" ".join(words)}); COMP_CWORD={len(words)}; _loraft_completion "$0"'
        found = subprocess.run(
            ["bash", "-c", f'{script}\n{line}; echo "${{COMPREPLY[*]}}"', loraft],
            cwd=here, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return found.stdout.split()

    assert offered("train", "--set", "quant.method", "=", "n") == ["none", "nf4"]
    assert offered("predict", "--input", "c") == []
