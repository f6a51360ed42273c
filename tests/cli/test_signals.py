"""Signals end every command with their exit code and one line that says how to go on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import Double, Says

from loraft.cli import signals
from loraft.config.schema import Config
from loraft.runs.run import run_of


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """Ctrl-C is Python's own, also where the tests run in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


def stopping(number: signal.Signals, before: Callable[..., None] = lambda *given: None) -> Callable[..., None]:
    """A function that gets a signal while it works."""

    def work(*given: Any, **named: Any) -> None:
        before(*given)
        os.kill(os.getpid(), number)
        time.sleep(10)

    return work


@pytest.mark.parametrize(("number", "code"), CODES)
def test_train_says_with_which_command_it_goes_on(
    number: signal.Signals, code: int, api: Double, here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begun(config: Config) -> None:
        run_of(config).config_path.parent.mkdir(parents=True)
        run_of(config).config_path.touch()

    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(api, "train", stopping(number, begun))
    said = loraft_says("train", "--set", "name=của em")
    assert said[:2] == (code, "")
    assert said[2].splitlines()[1:] == [
        "interrupted; loraft train --resume --config 'runs/của em/config.yaml' goes on from there"
    ]
    assert signal.getsignal(signal.SIGTERM) == handler
    monkeypatch.setattr(api, "train", stopping(number))
    assert loraft_says("train")[2].splitlines()[1:] == ["interrupted"]  # nothing was begun
    monkeypatch.setenv("WORLD_SIZE", "2")  # another number of processes would need another setting
    assert loraft_says("train", "--resume", "--set", "name=của em")[2].splitlines()[-1] == (
        "interrupted; loraft train --resume --config 'runs/của em/config.yaml', behind a launcher, goes on"
    )


@pytest.mark.parametrize(("number", "code"), CODES)
@pytest.mark.parametrize("command", ["eval --zero-shot", "predict câu", "config", "models", "train --folds 2"])
def test_every_command_ends_with_the_signals_code(
    command: str, number: signal.Signals, code: int, api: Double, run_dir: Path, loraft_says: Says,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    stop = stopping(number)
    for name in ("evaluate", "predict"):
        monkeypatch.setattr(api, name, stop)
    for name in ("cli.inspect.bundled_backbones", "config.yaml_io.dump_config", "studies.sweep.folds.train_folds"):
        monkeypatch.setattr(f"loraft.{name}", stop, raising=False)
    said = loraft_says(*command.split())
    assert said[:2] == (code, "")
    last = "interrupted; the same command goes on from there" if "folds" in command else "interrupted"
    assert said[2].splitlines()[-1] == last
    assert "Aborted" not in said[2]


def test_a_file_that_ends_too_early_is_an_error_and_not_aborted(
    api: Double, here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*given: Any, **named: Any) -> None:
        raise EOFError("Ran out of input")

    monkeypatch.setattr(api, "train", cut)
    code, _, err = loraft_says("train")
    assert code == 1
    assert err.splitlines()[1:] == [
        "error: a file is empty or cut off (got its end: Ran out of input); LORAFT_DEBUG=1 shows where it is read"
    ]


CHILD = """
import signal
import sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
import loraft.cli.app as app
from loraft.__main__ import main

def work():
    threading.Thread(target=sys.stdin.read, daemon=True).start()
    print("ready", flush=True)
    exec("import time; time.sleep(60)")  # as dataclasses make their methods

app.main = work
main()
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGTERM to another process")
@pytest.mark.parametrize(("number", "code"), CODES)
def test_the_process_exits_also_while_a_thread_reads_stdin(number: signal.Signals, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(number)
        assert (child.wait(30), child.stderr.read()) == (code, "interrupted\n")


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with signals.caught():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
