"""What holds for all commands: errors, exit codes, versions, encodings; and the doubles of the other tests."""

import inspect
import io
import os
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import Double, Says

import loraft
from loraft.cli import app
from loraft.cli.app import main
from loraft.errors import BackboneError


def test_the_real_functions_can_be_called_like_the_doubles() -> None:
    for name in ("train", "evaluate", "predict"):
        real = inspect.signature(getattr(loraft, name)).parameters
        double = inspect.signature(getattr(Double(), name)).parameters
        assert {key: (real[key].kind, real[key].default) for key in double} == {
            key: (double[key].kind, double[key].default) for key in double
        }
        assert all(real[key].default is not inspect.Parameter.empty for key in real if key not in double)


def test_versions_are_printed_one_a_line(loraft_says: Says) -> None:
    code, out, err = loraft_says("--version")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{name} {version(name)}" for name in ("loraft", "torch", "transformers", "peft", "trl", "bitsandbytes")
    ]


def test_a_library_that_is_not_installed_is_no_error(loraft_says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "VERSIONS", ("loraft", "không-có"))
    assert loraft_says("--version")[:2] == (0, f"loraft {version('loraft')}\nkhông-có is not installed\n")


def test_without_a_command_the_help_lists_them(loraft_says: Says) -> None:
    _, out, err = loraft_says()
    for command in (
        "train",
        "eval",
        "predict",
        "fewshot",
        "sweep",
        "compare",
        "data",
        "task",
        "report",
        "models",
        "config",
    ):
        assert f" {command} " in out + err


def test_an_error_is_one_message_and_no_traceback(
    api: Double, here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any, **named: Any) -> None:
        raise BackboneError("mô-hình: not there (got nothing); loraft models")

    monkeypatch.setattr(api, "train", broken)
    code, out, err = loraft_says("train")
    assert (code, out) == (1, "")
    assert err.splitlines()[1:] == ["error: mô-hình: not there (got nothing); loraft models"]
    monkeypatch.setenv("LORAFT_DEBUG", "1")
    with pytest.raises(BackboneError):
        main(["train"])


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            OSError(28, "No space left on device", "đĩa/a"),
            "error: đĩa/a: cannot be used (No space left on device); free",
        ),
        (PermissionError(13, "Permission denied", "a"), "error: a: cannot be used (Permission denied); ask for"),
        (OSError(24, "Too many open files", "a"), "error: a: cannot be used (Too many open files); raise the limit"),
        (MemoryError(), "error: memory: is used up"),
    ],
)
def test_an_error_of_the_system_is_one_message(
    api: Double, here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch, error: Exception, says: str
) -> None:
    def broken(*given: Any, **named: Any) -> None:
        raise error

    monkeypatch.setattr(api, "train", broken)
    code, out, err = loraft_says("train")
    assert (code, out) == (1, "")
    assert err.splitlines()[1].startswith(says)
    monkeypatch.setenv("LORAFT_DEBUG", "1")
    with pytest.raises(type(error)):
        main(["train"])


def test_a_mistake_of_the_program_keeps_its_traceback(api: Double, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "train", lambda *given, **named: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["train"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_behind_stdout_is_one_message() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "loraft", "config"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: stdout: cannot be used (No space left on device); ")
    assert len(done.stderr.splitlines()) == 1


def test_several_mistakes_stand_below_each_other(here: Path, loraft_says: Says) -> None:
    code, out, err = loraft_says("config", "--rank", "x", "--seed", "-1")
    assert (code, out) == (2, "")
    first, *mistakes = err.splitlines()
    assert first == "error:"
    assert sorted(line.partition(":")[0] for line in mistakes) == ["  lora.r", "  seed"]


def test_an_unknown_flag_is_a_usage_error(loraft_says: Says) -> None:
    code, out, err = loraft_says("train", "--rnak", "4")
    assert (code, out) == (2, "")
    assert "--rank" in err


def test_a_reader_that_goes_away_gets_no_traceback() -> None:
    command = f"{shlex.quote(sys.executable)} -m loraft config | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_output_is_utf_8_whatever_the_terminal_says(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    with pytest.raises(SystemExit):
        main(["config", "--set", "name=thử"])
    sys.stdout.flush()
    assert "name: thử\n" in written.getvalue().decode("utf-8")


def test_the_hub_gets_no_telemetry_unless_the_user_allows_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for before, after in ((None, "1"), ("0", "0")):
        if before is None:
            monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY")
        else:
            monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", before)
        with pytest.raises(SystemExit):
            main(["models"])
        assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == after
