"""`loraft runs` on the command line: tables of 80 columns, JSON, questions before anything is removed."""

import io
import json
from pathlib import Path

import pytest
from helpers.bad_input import refusal
from helpers.command_line import Says
from helpers.damage import copied

from loraft.cli.runs import _size, _table
from loraft.delivery import run_details
from loraft.delivery.listing import Row
from loraft.delivery.run_details import Difference
from loraft.display.page import cells
from loraft.display.table import fitted


@pytest.fixture
def runs(here: Path) -> Path:
    return copied(here)


def test_the_list_has_a_line_for_each_run_and_trial(runs: Path, loraft_says: Says) -> None:
    code, out, _ = loraft_says("runs", "list", "--sort", "name")
    names = [line.split()[-1] for line in out.splitlines() if "finished" in line]
    assert (code, names) == (0, ["data", "fewshot", "run", "sweep", "sweep/r1", "sweep/r2"])
    assert "macro F1" in out.splitlines()[0]
    (runs / "run" / "metrics.json").unlink()
    (runs / "run" / "metrics.json").write_text("{")
    code, out, _ = loraft_says("runs", "list")
    assert (code, "damaged" in out, "run: runs/run/metrics.json: is not JSON" in out) == (0, True, True)
    rows = json.loads(loraft_says("runs", "list", "--json", "--sort", "score")[1])
    assert [row["name"] for row in rows[:2]] == ["sweep", "sweep/r1"]
    (runs / "trống").mkdir()
    assert "no runs in runs/trống" in loraft_says("runs", "list", "--output", "runs/trống")[2]


def test_a_row_with_a_long_name_fits_80_columns_and_names_the_metric_where_they_differ() -> None:
    name = "loraft-vi-tiny-feedback-sentiment-qlora-r16-s42"
    row = Row(name, f"runs/{name}", "few-shot", "working", 1234567, "macro_f1", 0.5, (0.25, 0.75), "2026-11-27", 10**9)
    made, _ = fitted(_table([row]), 80)
    assert cells(made) == (
        ["macro F1", "state", "kind", "name"],
        [["0.500\n[0.250, 0.750]", "working\n1234567", "few-shot", name]],
    )
    made, _ = fitted(_table([row]), 60)  # where it cannot stay whole
    assert cells(made)[1][0][-1].split("\n") == ["loraft-vi-tiny-feedback-", "sentiment-qlora-r16-s42"]
    assert str(_table([row]).columns[0].header) == "macro F1"
    other = Row("b", "b", "run", "finished", None, "accuracy", 0.5, None, "2026-11-27", 5)
    assert [str(column.header) for column in _table([row, other]).columns][:2] == ["score", "metric"]


def test_sizes_are_read_at_a_glance() -> None:
    assert [_size(n) for n in (0, 999, 1000, 12_340_000, 5 * 10**9)] == ["0 B", "999 B", "1.0 kB", "12.3 MB", "5.0 GB"]


def test_show_and_diff_print_on_stdout_and_say_the_next_command(runs: Path, loraft_says: Says) -> None:
    code, out, err = loraft_says("runs", "show", "run")
    assert code == 0
    for word in ("lora.r", "macro_f1", "metrics.json", "finished"):
        assert word in out
    assert "next: loraft predict --run runs/run" in err
    assert json.loads(loraft_says("runs", "show", "sweep/r1", "--json")[1])["row"]["kind"] == "trial"
    code, out, err = loraft_says("runs", "diff", "sweep/r1", "sweep/r2")
    assert (code, "config lora.r" in out, "next: loraft compare runs/sweep/r1 runs/sweep/r2" in err) == (0, True, True)
    assert {one["group"] for one in json.loads(loraft_says("runs", "diff", "sweep/r1", "sweep/r2", "--json")[1])} == {
        "config", "score",
    }  # fmt: skip
    assert "no difference" in loraft_says("runs", "diff", "run", "run")[1]


def test_a_side_without_a_value_is_a_dash(runs: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Difference("config", "lora.alpha_per_rank", None, 2.0), Difference("config", "name", "một", None)]
    monkeypatch.setattr(run_details, "differences", lambda *paths: found)
    lines = loraft_says("runs", "diff", "run", "sweep/r1")[1].splitlines()
    assert [line.split()[1:] for line in lines[1:3]] == [["lora.alpha_per_rank", "-", "2"], ["name", "một", "-"]]


@pytest.mark.parametrize(("answer", "gone"), [("y\n", True), ("n\n", False)])
def test_remove_asks_on_a_terminal(
    answer: str, gone: bool, runs: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin", terminal)
    code, out, err = loraft_says("runs", "remove", "run")
    assert (code, out) == (0 if gone else 1, "")
    assert "remove this for good?" in err
    assert (runs / "run").exists() != gone


def test_remove_needs_yes_where_nobody_can_be_asked(runs: Path, loraft_says: Says) -> None:
    refusal(["runs", "remove", "run", "sweep"], r"--yes: .*\(got 2 to remove\); add it")
    assert loraft_says("runs", "remove", "run", "--checkpoints")[2].startswith("nothing to remove")
    code, out, err = loraft_says("runs", "remove", "run", "sweep", "--yes")
    assert (code, out, "removed" in err) == (0, "", True)
    assert not (runs / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["list", "--sort", "size"], r"--sort: not allowed \(got 'size'\); one of date, name, score"),
        (["list", "--output", "không-có"], "không-có: no such folder"),
        (["show", "rum"], "no such run or study .*did you mean run"),
        (["diff", "run", "a\0b"], "no such run or study"),
        (["remove", "rum", "--yes"], "no such run or study"),
        (["remove", "sweep/r1", "--yes"], "belongs to the sweep"),
        (["remove", "run/adapter", "--yes"], "holds weights outside of a run"),
        (["remove", ".", "--yes"], "is not the directory of a run or study"),
    ],
)
def test_what_cannot_be_done_is_one_message(arguments: list[str], says: str, runs: Path) -> None:
    refusal(["runs", *arguments], says)
