"""`loraft compare` prints differences in points, changed rows, and an exit code for scripts."""

import io
import json
from pathlib import Path

from helpers.compared_runs import GOLD, make_run, wrong_on
from rich.console import Console
from typer.testing import CliRunner, Result

from loraft.cli.app import app
from loraft.cli.compare import WORSE
from loraft.errors import ConfigError, LoraftError
from loraft.studies.compare import compare, tables


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def words(page: str) -> str:
    """The words of a help page without its frames."""
    return " ".join(page.replace("│", " ").split())


def test_compare_prints_differences_in_points_and_changed_rows(tmp_path: Path) -> None:
    make_run(tmp_path / "a", wrong_on(*range(20)))
    make_run(tmp_path / "b", wrong_on(0, 1, 30))
    done = invoke("compare", "a", "b", "--output", str(tmp_path), "--rows", "2")
    assert done.exit_code == 0
    table = done.stdout.splitlines()
    assert table[1].split() == ["1", "accuracy", "0.6667", "first"]
    assert table[3].split()[:4] == ["2", "accuracy", "0.9500", "+28.3"]  # 57 of 60 rows, 17 more than 40
    assert table[3].split()[-4:] == ["18", "1", "<0.001", "better"]  # mended, broken, p
    assert table[3].split()[-1] == "better"
    assert table[4].split()[:4] == ["2", "macro", "F1", "0.9499"]
    assert sum(line.lstrip().startswith("mended") for line in table) == 3  # two rows and the number of the others
    assert any("16 more" in line for line in table)
    assert table[-5:-3] == [f"run 1: {tmp_path / 'a'}", f"run 2: {tmp_path / 'b'}"]


def test_changed_rows_can_be_left_out(tmp_path: Path) -> None:
    paths = [str(make_run(tmp_path / name, wrong_on(*rows))) for name, rows in (("a", range(20)), ("b", (0, 1, 30)))]
    done = invoke("compare", *paths, "--rows", "0")
    assert done.exit_code == 0
    assert "better" in done.stdout
    assert "sentence" not in done.stdout  # a column of the table of changed rows


def test_compare_fits_a_terminal_of_100_columns(tmp_path: Path) -> None:
    names = [f"loraft-vi-tiny-feedback-sentiment-qlora-r{i}-s42" for i in (8, 16, 32)]
    for name, wrong in zip(names, ([1], range(20), range(40)), strict=True):
        make_run(tmp_path / name, wrong_on(*wrong))
    result = compare.compare([tmp_path / name for name in names])
    console = Console(width=100, file=io.StringIO())
    console.print(tables.comparison(result))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.split()[0] for line in lines[2:] if line.strip()] == ["1", "1", "2", "2", "3", "3"]
    assert "…" not in "".join(lines)
    assert tables.comparison_notes(result)[-1].endswith(
        "Holm-corrected for 4 tests; better or worse: a p of at most 0.05"
    )


def test_fail_if_worse_is_an_exit_code_for_scripts(tmp_path: Path) -> None:
    good, slightly, clearly = (
        str(make_run(tmp_path / name, wrong_on(*rows))) for name, rows in (("a", [1]), ("b", [1, 2]), ("c", range(20)))
    )
    assert invoke("compare", good, slightly, "--fail-if-worse").exit_code == 0
    assert invoke("compare", good, clearly).exit_code == 0
    done = invoke("compare", good, slightly, clearly, "--fail-if-worse", "--json")
    assert done.exit_code == 3
    # 20 of 60 rows are wrong instead of 1: 19 / 60 = 31.7 points of accuracy; both scores are named, with their test.
    assert done.stderr.startswith(f"worse than {good}: {clearly}: accuracy -31.7 points (95% interval -")
    assert ", macro F1 -31." in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [other["worse"] for other in json.loads(done.stdout)["others"]] == [False, True]


def test_compares_exit_code_is_no_errors_and_is_in_the_help() -> None:
    assert WORSE not in {error.exit_code for error in (LoraftError, ConfigError)}
    assert f"Exit code {WORSE} if accuracy or macro F1 is lower" in words(invoke("compare", "--help").stdout)


def test_compare_needs_runs_that_are_there(tmp_path: Path) -> None:
    make_run(tmp_path / "a", GOLD)
    for names in (("a",), ("a", "aa")):
        assert isinstance(invoke("compare", *names, "--output", str(tmp_path)).exception, LoraftError)
