"""What is shown of work in progress: plain lines at their times, bars on a terminal, nothing where it must not be."""

import io
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from rich.console import Console

from loraft.display.progress import Bars, PlainLines, shown
from loraft.progress import ROWS, Stage, installed


@pytest.fixture
def time() -> SimpleNamespace:
    return SimpleNamespace(now=0.0)


@pytest.fixture
def plain(time: SimpleNamespace) -> Iterator[PlainLines]:
    listener = PlainLines(lambda: time.now)
    token = installed.set(listener)
    yield listener
    installed.reset(token)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    out, err = capsys.readouterr()
    assert out == ""
    assert "\x1b" not in err
    return err.splitlines()


def test_a_line_comes_with_five_per_cent_more_but_no_sooner_than_five_seconds(
    plain: PlainLines, time: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    with Stage("scoring test", 1000, ROWS) as stage:
        for _ in range(100):  # 1 % in 2 s
            time.now += 2
            stage.advance(10)
    found = lines(capsys)
    assert found[:2] == [
        "scoring test 50/1,000 rows, 3 min left, 5 rows/s",
        "scoring test 100/1,000 rows, 3 min left, 5 rows/s",
    ]
    assert len(found) == 19  # none at 1,000
    with Stage("scoring test", 1000, ROWS) as stage:
        for _ in range(100):  # 8 % in 1 s
            time.now += 0.125
            stage.advance(10)
    assert len(lines(capsys)) == 3  # in 12.5 s, the first one soon, since the last one is 10 s ago


def test_a_long_task_says_something_every_thirty_seconds_and_a_short_one_nothing(
    plain: PlainLines, time: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    with Stage("training", 100_000, "steps") as stage:
        for _ in range(90):
            time.now += 1
            stage.advance(1, "loss 0.5000, macro F1 0.6000, 2,500 tok/s")
    found = lines(capsys)
    assert found[0] == "training 30/100,000 steps, 27.8 h left, loss 0.5000, macro F1 0.6000, 2,500 tok/s"
    assert len(found) == 3
    with Stage("scoring test", 100, ROWS) as stage:
        for _ in range(4):
            time.now += 1
            stage.advance(25)
    assert lines(capsys) == []


def test_time_counts_from_the_first_stage_and_what_is_done_says_nothing(
    plain: PlainLines, time: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    time.now = 100  # libraries were imported
    with Stage("predicting", 2, ROWS) as stage:
        stage.advance()
        time.now += 40
        stage.advance()
    assert lines(capsys) == []


def test_the_line_of_a_trial_names_the_trial(
    plain: PlainLines, time: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    with Stage("trial", 8, note="hạng 4") as trials, Stage("training", 120, "steps") as steps:
        trials.done = 2
        time.now += 30
        steps.advance(40)
        with Stage("scoring validation", 80, ROWS):
            time.now += 30
            plain.waited()
    assert lines(capsys) == [
        "trial 3 of 8 (hạng 4): training 40/120 steps, 60 s left, 1.3 steps/s",
        "trial 3 of 8 (hạng 4): training 40/120 steps: scoring validation 0/80 rows",
    ]


def test_loading_is_told_while_it_lasts_and_an_idle_input_is_not(
    plain: PlainLines, time: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    with Stage("loading tiếng\x1b-việt"):
        for _ in range(13):
            time.now += 5
            plain.waited()
    assert lines(capsys) == [r"loading tiếng\x1b-việt, 30 s so far", r"loading tiếng\x1b-việt, 60 s so far"]
    with Stage("predicting", None, ROWS) as stage:
        time.now += 100
        plain.waited()
        assert lines(capsys) == []
        stage.advance(3)
    assert lines(capsys) == ["predicting 3 rows, 0.03 rows/s"]


@pytest.mark.parametrize("width", [60, 80])
def test_bars_stand_in_each_other_and_fit_the_terminal(width: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    bars = Bars(console)
    token = installed.set(bars)
    try:
        console.print(bars.table())
        with Stage("trial", 8, note="hạng 4"), Stage("training", 120, "steps") as steps:
            steps.advance(40, "loss 0.5000, macro F1 0.6000, 2,500 tok/s")
            console.print(bars.table())
    finally:
        installed.reset(token)
    idle, trial, training = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "loading libraries" in idle
    assert "trial 1 of 8 (hạng 4)" in trial
    assert "training 40/120 steps, 0 s left, loss 0.5000" in training
    assert max(map(len, (trial, training))) <= width


def test_a_bar_is_drawn_where_there_is_room() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    bars = Bars(console)
    token = installed.set(bars)
    try:
        with Stage("scoring test", 100, ROWS) as stage:
            stage.done = 50
            console.print(bars.table())
    finally:
        installed.reset(token)
    assert "scoring test 50/100 rows, 0 s left ━━━━━━━━━━━━" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("terminal", "name", "kind"),
    [(True, "xterm-256color", Bars), (True, "dumb", PlainLines), (False, "xterm-256color", PlainLines)],
)
def test_bars_are_for_terminals_that_can_move_the_cursor(
    terminal: bool, name: str, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", name)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with shown(quiet=False):
        outer = installed.get()
        assert type(outer) is kind
        with shown(quiet=False):
            assert installed.get() is outer
        with shown(quiet=True):
            assert installed.get() is None
        assert installed.get() is outer
    assert installed.get() is None


def test_of_several_processes_the_main_one_shows_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with shown(quiet=False):
        assert installed.get() is None


def test_a_stderr_that_nobody_reads_ends_no_training(
    plain: PlainLines, time: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=lambda text: (_ for _ in ()).throw(BrokenPipeError)))
    with Stage("training", 10, "steps") as stage:
        time.now += 40
        stage.advance()
    assert plain.printed == 40


ON_A_TERMINAL = """
import sys
from loraft.display.progress import shown
from loraft.progress import Stage, installed
with shown(quiet=False), Stage("scoring test", 4, "rows") as stage:
    stage.advance(2)
    installed.get().live.refresh()  # a frame, which else comes within a quarter of a second
    print("note: một dòng", file=sys.stderr)
    raise KeyboardInterrupt
"""


def test_on_a_terminal_messages_are_whole_and_an_interrupt_brings_the_cursor_back() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    run = subprocess.run([sys.executable, "-c", ON_A_TERMINAL], stdout=subprocess.PIPE, stderr=theirs, env=environment)
    os.close(theirs)
    found = b""
    try:
        while block := os.read(ours, 65536):
            found += block
    except OSError:  # Linux's end of a terminal
        pass
    os.close(ours)
    text = found.decode("utf-8")
    assert run.stdout == b""
    assert "note: một dòng\r\n" in text
    assert "scoring test 2/4 rows" in text
    assert "\x1b[?25l" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert text.rindex("\x1b[?25h") < text.index("Traceback")
