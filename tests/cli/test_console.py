"""What a command prints on stderr while it works, and which warnings of libraries are shown."""

import io
import json
import logging
import os
import pty
import sys
import termios
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import Double, Says

from loraft.cli import console
from loraft.cli.console import python_alone_on_stderr, results_follow, results_on_screen, say, start_command
from loraft.config.resolve import resolve
from loraft.display.progress import Bars, PlainLines
from loraft.errors import LoraftError, Note
from loraft.evaluation import evaluate as evaluation
from loraft.evaluation import predict as prediction
from loraft.progress import installed, remove
from loraft.training import pipeline

PLAIN = warnings.formatwarning  # Python's own


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", PLAIN)
    for stream in ("stdin", "stdout"):
        monkeypatch.setattr(sys, stream, getattr(sys, stream))
    monkeypatch.setattr(console, "_stdout", None)
    for variable in ("WORLD_SIZE", "RANK", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(variable, raising=False)


def processes(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    """Makes this one of two processes of a launcher."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", str(rank))


def shown(verbose: bool) -> list[str]:
    """What is printed of a note and a warning of loraft's and a warning of a library's."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()  # of whoever runs the tests
        start_command(resolve(), verbose)
        warnings.warn_explicit("using 8 of 9 rows", Note, "dataset.py", 1, module="loraft.data.dataset")
        warnings.warn_explicit("2 duplicate rows", UserWarning, "dataset.py", 2, module="loraft.data.dataset")
        warnings.warn_explicit("deprecated", UserWarning, "modeling.py", 3, module="transformers.modeling")
    return [warnings.formatwarning(one.message, one.category, one.filename, one.lineno) for one in caught]


def test_a_note_and_a_warning_are_one_line_each_and_libraries_are_quiet() -> None:
    assert shown(verbose=False) == ["note: using 8 of 9 rows\n", "warning: 2 duplicate rows\n"]
    assert logging.getLogger("bitsandbytes").level == logging.ERROR


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_its_lines_broken_at_blanks_but_not_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "30")
    say("note: 200 training rows are few; --folds 5 gives scores over all")
    say("next: loraft predict --run runs/của-em 'câu phản hồi'")
    say("next: fill in the column 'nhãn', then loraft train --from runs/của-em --add nhãn.csv")
    assert sys.stderr.getvalue().splitlines() == [
        "note: 200 training rows are",
        "few; --folds 5 gives scores",
        "over all",
        "next: loraft predict --run runs/của-em 'câu phản hồi'",
        "next: fill in the column",
        "'nhãn', then",
        "loraft train --from runs/của-em --add nhãn.csv",
    ]


def test_an_error_is_broken_at_blanks_too(loraft_says: Says, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    assert loraft_says("train", "--set", "quant.method=nf5", "--set", "lora.r=-1")[0] == 2
    told = terminal.getvalue().splitlines()
    assert told[0] == "error:"
    assert all(line.startswith("  ") for line in told[1:])
    assert max(len(line) for line in told if " " in line.strip()) <= 40


def test_the_width_is_that_of_stderr_where_stdout_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 30))
    monkeypatch.delenv("COLUMNS", raising=False)
    with os.fdopen(theirs, "w", encoding="utf-8") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        say("note: 200 training rows are few; --folds 5 gives scores over all")
        found = os.read(ours, 1000).decode()
    os.close(ours)
    assert found.splitlines() == ["note: 200 training rows are", "few; --folds 5 gives scores", "over all"]


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_what_is_printed_to_a_closed_stream_is_dropped_and_the_rest_goes_on(
    closed: str, api: Double, run_dir: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, closed, None)
    code, out, err = loraft_says("predict", "--run", str(run_dir), "thầy giảng hay")
    assert (code, out) == (0, "positive\n" if closed == "stderr" else "")
    assert "positive" not in err
    assert getattr(sys, closed) is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a device of Linux")
def test_a_stderr_that_cannot_be_written_costs_no_result_and_no_exit_code(
    api: Double, run_dir: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(full, write_through=True))
        assert loraft_says("predict", "--run", str(run_dir), "thầy giảng hay")[:2] == (0, "positive\n")
        assert loraft_says("trian")[:2] == (2, "")
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("to", "prints", "screen", "kind"),
    [
        ("terminal", True, True, Bars),
        ("pipe", True, False, PlainLines),
        ("pipe", False, False, Bars),
        (os.devnull, True, False, Bars),
    ],
)
def test_no_bars_where_results_in_a_pipe_may_reach_their_terminal(
    to: str, prints: bool, screen: bool, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stderr", Terminal())
    other = -1
    if to == "pipe":
        other, end = os.pipe()
    stdout = Terminal() if to == "terminal" else open(end if to == "pipe" else to, "w")  # noqa: SIM115 - closed below
    try:
        monkeypatch.setattr(sys, "stdout", stdout)
        start_command(resolve(), False, prints=prints)
        assert type(installed.get()) is kind
        assert results_on_screen() is screen
    finally:
        remove()
        stdout.close()
        if other >= 0:
            os.close(other)


def test_verbose_shows_the_libraries_as_python_does() -> None:
    assert [text.partition(" ")[0] for text in shown(verbose=True)] == [
        "dataset.py:1:",
        "dataset.py:2:",
        "modeling.py:3:",
    ]
    assert logging.getLogger("bitsandbytes").level != logging.ERROR


@pytest.mark.parametrize(
    ("flags", "named", "line"),
    [
        ({}, {}, "backbone loraft-vi-tiny, data feedback"),
        ({"quant.method": "nf4"}, {"source": "stdin"}, "backbone loraft-vi-tiny (nf4), data stdin"),
        ({"model.name": "m"}, {"adapter": Path("runs/a")}, "backbone m, adapter runs/a, data feedback"),
    ],
)
def test_what_will_be_loaded_is_printed(
    flags: dict[str, str], named: dict[str, str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    start_command(resolve(flags=flags), False, **named)  # type: ignore[arg-type]
    assert capsys.readouterr() == ("", f"{line}\n")


def test_one_gpu_is_used_unless_the_user_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    start_command(resolve(), False)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    start_command(resolve(), False)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"


def test_each_process_of_a_launcher_sees_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    processes(monkeypatch, 0)
    start_command(resolve(), False, several=True)
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_the_main_process_alone_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for rank, expected in ((1, ("", "")), (0, ("a result\n", "backbone loraft-vi-tiny, data feedback\na message\n"))):
        processes(monkeypatch, rank)
        with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as caught:
            patch.setattr(sys, "stdout", sys.stdout)
            start_command(resolve(), False, several=True)
            say("a message")
            results_follow()
            print("a result")
            warnings.warn_explicit("2 duplicate rows", UserWarning, "dataset.py", 2, module="loraft.data.dataset")
        assert capsys.readouterr() == expected
        assert len(caught) == (rank == 0)


def test_several_processes_are_for_training_only(
    api: Double, here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes(monkeypatch, 0)
    with pytest.raises(LoraftError, match=r"only loraft train .*\(got WORLD_SIZE above 1\)"):
        start_command(resolve(), False)
    code, out, err = loraft_says("eval", "--zero-shot")
    assert (code, out) == (1, "")
    assert "only loraft train works with a launcher" in err
    assert api.config is None
    assert loraft_says("train")[0] == 0
    assert api.config is not None


def test_a_library_reads_no_row_of_stdin_and_prints_no_result(
    api: Double, run_dir: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[str] = []

    def asks(call: Callable[..., Any]) -> Callable[..., Any]:
        def asking(*given: Any, **named: Any) -> Any:
            print("a library prints")
            try:
                answers.append(input("Run the custom code? [y/N]"))
            except EOFError:
                answers.append("nothing")
            return call(*given, **named)

        return asking

    monkeypatch.setattr(prediction, "predict", asks(prediction.predict))
    monkeypatch.setattr(evaluation, "evaluate", asks(evaluation.evaluate))
    monkeypatch.setattr(pipeline, "train", asks(pipeline.train))
    stdin = io.StringIO("y\nthầy giảng hay\n")
    monkeypatch.setattr(sys, "stdin", stdin)
    code, out, err = loraft_says("predict", "--run", str(run_dir))
    assert (code, out.splitlines()) == (0, ["positive"] * 2)  # `y` is a sentence
    assert "a library prints" in err
    for command in (["eval", "--run", str(run_dir), "--json"], ["train", "--json"]):
        code, out, err = loraft_says(*command)
        assert (code, "a library prints" in err) == (0, True)
        json.loads(out)
    assert answers == ["nothing"] * 3
    assert sys.stdin is stdin


def test_what_is_not_printed_by_python_is_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    with open(2, "w", encoding="utf-8", closefd=False) as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        with python_alone_on_stderr():
            os.write(2, b"core_worker.cc: E\n")
            say("thầy dạy hay")
        assert sys.stderr is stream
        os.write(2, b"sau\n")
    assert capfd.readouterr().err == "thầy dạy hay\nsau\n"
