import io
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.compared_runs import GOLD, make_run, wrong_on
from helpers.sweeps import result as swept
from helpers.tiny import CONFIGS
from rich.console import Console
from typer.testing import CliRunner, Result

from loraft.cli.app import app
from loraft.cli.compare import WORSE
from loraft.errors import BackboneError, ConfigError, LoraftError
from loraft.studies.compare import compare, tables
from loraft.studies.sweep import runner


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The options of the result that the sweep returns; the test may change them."""
    options: dict[str, Any] = {"ranks": (4, 8, 16)}
    monkeypatch.setattr(runner, "sweep", lambda config, **kwargs: swept(**options))
    return options


def test_the_table_the_notes_and_the_next_command_are_printed(given: dict[str, Any]) -> None:
    done = invoke("sweep", "--ranks", "4,8,16")
    assert done.exit_code == 0
    table = done.stdout.splitlines()
    assert table[0].split()[:2] == ["rank", "accuracy"]
    assert [line.split()[0] for line in table[1:4]] == ["4", "8", "16"]
    assert "alpha policy: fixed, alpha 32" in table
    assert f"loraft predict --run {shlex.quote(swept(**given)['best']['run'])} " in done.stderr


def test_with_several_seeds_the_best_trial_is_the_one_to_predict_with(given: dict[str, Any]) -> None:
    given |= {"seeds": (1, 2)}
    done, result = invoke("sweep", "--ranks", "4,8,16", "--seeds", "1,2"), swept(**given)
    assert result["best"]["name"] in result["best_setting"]["trials"]
    assert f"best trial: {result['best']['name']}," in done.stdout
    assert f"/{result['best']['name']}' " in done.stderr


def test_a_failed_trial_is_in_the_table_and_in_the_exit_code(given: dict[str, Any]) -> None:
    given |= {"failed": ("r8",)}
    done = invoke("sweep", "--ranks", "4,8,16")
    assert done.exit_code == 1
    assert any(line.rstrip().endswith(" failed") for line in done.stdout.splitlines())
    assert "r8 failed: RuntimeError: hết bộ nhớ <gpu>\n" in done.stdout


def test_json_is_the_whole_result(given: dict[str, Any]) -> None:
    done = invoke("sweep", "--ranks", "4,8,16", "--json")
    assert json.loads(done.stdout) == swept(**given)


def test_flags_reach_the_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(runner, "sweep", lambda config, **kwargs: seen.append((config, kwargs)) or swept((1,)))
    invoke("sweep", "--grid", "train.optim=sgd,adamw_torch", "--seeds", "1,2,3,...,5", "--quant", "nf4", "--force")
    config, kwargs = seen[0]
    assert (config.sweep.ranks, config.sweep.seeds) == ([], [1, 2, 3, 4, 5])
    assert config.sweep.grid == {"train.optim": ["sgd", "adamw_torch"]}
    assert config.quant.method == "nf4"
    assert kwargs["force"] is True


def test_a_dry_run_lists_trials_without_a_framework_and_writes_nothing(tmp_path: Path) -> None:
    script = (
        "import sys; from loraft.cli.app import main\n"
        "try: main(['sweep', '--ranks', '1,2,4,...,128', '--dry-run', '--json'])\n"
        "finally: print([m for m in ('torch', 'transformers', 'peft') if m in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-X", "utf8", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"
    planned = json.loads(done.stdout)
    assert [row["name"] for row in planned] == ["r1", "r2", "r4", "r8", "r16", "r32", "r64", "r128"]
    assert [row["trainable_parameters"] for row in planned] == [
        planned[0]["trainable_parameters"] * 2**i for i in range(8)
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_counts_on_shapes_where_arithmetic_does_not_reach(tmp_path: Path) -> None:
    CONFIGS["gpt2"].save_pretrained(tmp_path)
    done = invoke("sweep", "--ranks", "1,3", "--dry-run", "--json", "--model", str(tmp_path), "--set",
                  "lora.target_modules=default")  # fmt: skip
    # gpt2's c_attn: 32 in, 96 out, in each of two blocks
    assert [row["trainable_parameters"] for row in json.loads(done.stdout)] == [256, 768]


def test_a_dry_run_of_a_backbone_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    done = invoke("sweep", "--ranks", "1,3", "--dry-run", "--model", str(tmp_path / "không"))
    assert isinstance(done.exception, BackboneError)
    assert "no such backbone" in str(done.exception)


def test_a_dry_run_says_why_it_cannot_count(tmp_path: Path) -> None:
    (tmp_path / "lạ").mkdir()
    (tmp_path / "lạ" / "config.json").write_text('{"model_type": "không có"}', encoding="utf-8")
    done = invoke("sweep", "--ranks", "1,3", "--dry-run", "--model", str(tmp_path / "lạ"))
    assert done.exit_code == 0
    assert done.stdout.splitlines()[1].split()[-2:] == ["?", "new"]
    assert done.stderr.count("cannot be counted") == 1


def test_one_seed_beside_several_is_refused() -> None:
    done = invoke("sweep", "--ranks", "1,2", "--seed", "4", "--seeds", "1,2", "--dry-run")
    assert isinstance(done.exception, ConfigError)
    assert "--seed and --seeds" in str(done.exception)


@pytest.mark.parametrize(
    "arguments", [("--ranks", "1,2,...,8"), ("--grid", "lora.rank=8"), ("--seeds", "x"), ("--ranks", "0")]
)
def test_mistakes_come_before_anything_loads(arguments: tuple[str, str]) -> None:
    assert isinstance(invoke("sweep", *arguments).exception, ConfigError)


def test_compare_prints_differences_in_points_and_changed_rows(tmp_path: Path) -> None:
    make_run(tmp_path / "a", wrong_on(*range(20)))
    make_run(tmp_path / "b", wrong_on(0, 1, 30))
    done = invoke("compare", "a", "b", "--output", str(tmp_path), "--rows", "2")
    assert done.exit_code == 0
    table = done.stdout.splitlines()
    assert table[1].split() == ["1", "accuracy", "0.6667", "first"]
    assert table[3].split()[:4] == ["2", "accuracy", "0.9500", "+28.33"]  # 57 of 60 rows, 17 more than 40
    assert table[3].split()[-4:-2] == ["18", "1"]
    assert table[3].split()[-1] == "better"
    assert table[4].split()[:4] == ["2", "macro", "F1", "0.9499"]
    assert sum(line.lstrip().startswith("mended") for line in table) == 3  # two rows and the number of the others
    assert any("16 more" in line for line in table)
    assert table[-3:-1] == [f"run 1: {tmp_path / 'a'}", f"run 2: {tmp_path / 'b'}"]
    assert "Holm" not in table[-1]


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
    assert tables.comparison_notes(result)[-1].endswith("Holm-corrected for 2 comparisons")


def test_fail_if_worse_is_an_exit_code_for_scripts(tmp_path: Path) -> None:
    good, slightly, clearly = (
        str(make_run(tmp_path / name, wrong_on(*rows))) for name, rows in (("a", [1]), ("b", [1, 2]), ("c", range(20)))
    )
    assert invoke("compare", good, slightly, "--fail-if-worse").exit_code == 0
    assert invoke("compare", good, clearly).exit_code == 0
    done = invoke("compare", good, slightly, clearly, "--fail-if-worse", "--json")
    assert done.exit_code == 3
    assert done.stderr.strip() == f"worse than {good}: {clearly}"
    assert [other["worse"] for other in json.loads(done.stdout)["others"]] == [False, True]


def test_compares_exit_code_is_no_errors_and_is_in_the_help() -> None:
    assert WORSE not in {error.exit_code for error in (LoraftError, ConfigError)}
    assert f"Exit code {WORSE} if a run is worse" in " ".join(invoke("compare", "--help").stdout.split())


def test_compare_needs_runs_that_are_there(tmp_path: Path) -> None:
    make_run(tmp_path / "a", GOLD)
    for names in (("a",), ("a", "aa")):
        assert isinstance(invoke("compare", *names, "--output", str(tmp_path)).exception, LoraftError)
