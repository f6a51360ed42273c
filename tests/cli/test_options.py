"""Short flags and their config keys, and what the shell completes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli.test_help_page import LEAVES
from helpers.command_line import Says, finished

from loraft.bundled import bundled_backbones
from loraft.cli.options import dotted
from loraft.config.diagnostics import known_keys
from loraft.config.names import SHORT, flag_of


def test_short_flags_stand_for_config_keys() -> None:
    assert set(SHORT.values()) <= set(known_keys())
    assert dotted(rank="8", seed="1", data=None) == {"lora.r": "8", "seed": "1", "data.source": None}


def test_every_flag_of_a_key_is_named_as_the_origin_of_a_wrong_value() -> None:
    found = {
        key[1]: parameter.opts[0]
        for command in LEAVES.values()
        for parameter in command.params
        if (key := re.fullmatch(r"\{([\w.]+)\}", str(getattr(parameter, "show_default", ""))))
    }
    assert {key: flag_of(key) for key in found} == found | {"preset": "--preset"}
    assert flag_of("train.learning_rate") == "flags"  # has none


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("loraft train --quant ", ["none", "nf4"]),
        ("loraft train --preset ", ["quickstart", "tutorial"]),
        ("loraft eval --task ", ["app-reviews", "sentiment", "topic"]),
        ("loraft train --model ", list(bundled_backbones())),
        ("loraft train --set quant.", [f"{key}=" for key in known_keys() if key.startswith("quant.")]),
        ("loraft runs list --sort ", ["date", "name", "score"]),
    ],
)
def test_the_shell_completes_values(
    words: str, expected: list[str], here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert completed(words, loraft_says, monkeypatch) == expected


USABLE = ["bó", "quét", "quét/r8", "xong"]
WORK = ["bó", "dở", "quét", "quét/r8", "quét/r9", "xong"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        *[(words, USABLE) for words in ("eval --run ", "predict --run ", "fewshot --run ", "serve --run ")],
        *[(words, USABLE) for words in ("compare ", "compare bó ", "merge ", "export ", "push ")],
        *[(words, WORK) for words in ("report ", "runs show ", "runs diff ", "runs diff bó ", "runs remove bó ")],
        ("predict --run quét/", ["quét/r8"]),
        ("report --output khác ", ["kia"]),
        ("merge --output khác ", USABLE),
    ],
)
def test_the_shell_completes_names_of_runs_trials_and_bundles(
    words: str, expected: list[str], here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_work(here)
    assert completed(f"loraft {words}", loraft_says, monkeypatch) == expected


@pytest.mark.integration
def test_bash_completes_a_trial(here: Path) -> None:
    make_work(here)
    loraft = Path(sys.executable).with_name("loraft")
    environment = {**os.environ, "_LORAFT_COMPLETE": "source_bash"}
    script = subprocess.run([loraft], env=environment, capture_output=True, text=True, check=True).stdout
    line = 'COMP_WORDS=(loraft predict --run quét); COMP_CWORD=3; _loraft_completion "$0"; echo "${COMPREPLY[*]}"'
    found = subprocess.run(
        ["bash", "-c", f"{script}\n{line}", loraft], cwd=here, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["quét", "quét/r8"]


def make_work(here: Path) -> None:
    """In `runs`: a run, an unfinished one, a sweep with a finished and an unfinished trial, a bundle, other folders."""
    runs = here / "runs"
    for name in ("xong", "dở", "quét/r8", "quét/r9"):
        finished(runs / name)
    for name in ("dở", "quét/r9"):
        (runs / name / "metrics.json").unlink()
    (runs / "quét" / "joint-1").mkdir()
    for path in (runs / "quét" / "sweep.yaml", runs / "quét" / "sweep.json", runs / "bó" / "loraft.json",
                 runs / "xong" / "adapter" / "loraft.json", runs / ".rows" / "data.json",
                 here / "khác" / "kia" / "config.yaml"):  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def completed(words: str, loraft_says: Says, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the shell offers for the last word."""
    count = str(words.count(" "))
    for variable, value in (("_LORAFT_COMPLETE", "complete_bash"), ("COMP_WORDS", words), ("COMP_CWORD", count)):
        monkeypatch.setenv(variable, value)
    return loraft_says()[1].split()
