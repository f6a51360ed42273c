import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_comparing import GOLD, make_run, wrong_on
from tiny import CONFIGS
from typer.testing import CliRunner, Result

from loraft import sweeps
from loraft.cli import app
from loraft.errors import ConfigError, LoraftError


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def trial(rank: int, **more: Any) -> dict[str, Any]:
    return {
        "name": f"r{rank}", "run": f"runs/quét thử/r{rank}", "settings": {"lora.r": rank},
        "alpha_policy": "fixed, alpha 32", "status": "finished", "accuracy": 0.9, "macro_f1": 0.8,
        "macro_precision": 0.7, "macro_recall": 0.6, "intervals": {"accuracy": [0.85, 0.95], "macro_f1": [0.7, 0.9]},
        "n": 3166, "trainable_parameters": 106_496 * rank, "validation_macro_f1": 0.75, "seconds": 12.34,
        "resumed_from_step": None, "steps": 100, "peak_memory_mib": 900, "versus_best": None, **more,
    }  # fmt: skip


def swept(*trials: dict[str, Any]) -> dict[str, Any]:
    spread = {"mean": 0.8, "sd": None, "interval": [0.7, 0.9]}
    finished = [each for each in trials if each["status"] == "finished"]
    rows = [{"settings": each["settings"], "seeds": 1, "accuracy": spread, "macro_f1": spread} for each in finished]
    return {
        "kind": "sweep", "path": "runs/quét thử", "backbone": "loraft-vi-tiny", "quant": "none", "data": "feedback",
        "task": "sentiment", "labels": ["a", "b"], "keys": ["lora.r"], "alpha_policies": ["fixed, alpha 32"],
        "confidence": 0.95, "trials": list(trials), "settings": rows, "best": finished[0] if finished else None,
    }  # fmt: skip


def paired(p_holm: float) -> dict[str, Any]:
    return {"b": 1, "c": 2, "p_value": p_holm, "p_holm": p_holm, "same": p_holm >= 0.05}


@pytest.fixture
def result(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the sweep returns; its `trials` may be changed by the test."""
    found = swept(trial(4), trial(8, versus_best=paired(0.4)), trial(16, versus_best=paired(0.001)))
    monkeypatch.setattr(sweeps, "sweep", lambda config, **kwargs: found)
    return found


def test_the_table_marks_which_ranks_cannot_be_told_apart(result: dict[str, Any]) -> None:
    done = invoke("sweep", "--ranks", "4,8,16")
    assert done.exit_code == 0
    table = done.stdout.splitlines()
    assert table[0].split()[:3] == ["rank", "accuracy", "95%"]
    assert [" ".join(line.split()[-3:]) for line in table[1:4]] == ["12.3 900 best", "= (p 0.4)", "differs (p 0.001)"]
    assert "425,984" in table[1]
    assert "alpha policy: fixed, alpha 32" in table
    assert any("3,166 test rows: 1 of 2" in line and "Holm" in line for line in table)
    assert "loraft predict --run 'runs/quét thử/r4'" in done.stderr


def test_a_failed_trial_is_in_the_table_and_in_the_exit_code(result: dict[str, Any]) -> None:
    result["trials"][1] = {"name": "r8", "run": "x", "settings": {"lora.r": 8}, "status": "failed",
                           "alpha_policy": "fixed, alpha 32", "error": "hết bộ nhớ [gpu]\nthêm"}  # fmt: skip
    done = invoke("sweep", "--ranks", "4,8,16")
    assert done.exit_code == 1
    assert any(line.rstrip().endswith("failed: hết bộ nhớ [gpu]") for line in done.stdout.splitlines())
    assert "failed: 1 of 3 trials" in done.stdout


def test_json_is_the_whole_result(result: dict[str, Any]) -> None:
    done = invoke("sweep", "--ranks", "4,8,16", "--json")
    assert json.loads(done.stdout) == result


def test_flags_reach_the_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(sweeps, "sweep", lambda config, **kwargs: seen.append((config, kwargs)) or swept(trial(1)))
    invoke("sweep", "--grid", "train.optim=sgd,adamw_torch", "--seeds", "1,2,3,...,5", "--quant", "nf4", "--force")
    config, kwargs = seen[0]
    assert (config.sweep.ranks, config.sweep.seeds) == ([], [1, 2, 3, 4, 5])
    assert config.sweep.grid == {"train.optim": ["sgd", "adamw_torch"]}
    assert config.quant.method == "nf4"
    assert kwargs["force"] is True


def test_a_dry_run_lists_trials_without_a_framework_and_writes_nothing(tmp_path: Path) -> None:
    script = (
        "import sys; from loraft.cli import main\n"
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


def test_a_dry_run_says_why_it_cannot_count(tmp_path: Path) -> None:
    done = invoke("sweep", "--ranks", "1,3", "--dry-run", "--model", str(tmp_path / "không"))
    assert done.exit_code == 0
    assert done.stdout.splitlines()[1].split()[-2:] == ["?", "new"]
    assert done.stderr.count("cannot be counted") == 1


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
    assert table[1].split()[-1] == "first"
    assert "+28.33" in table[2]  # 17 of 60 rows
    assert table[2].split()[-1] == "better"
    assert "18  " in table[2]
    assert sum(line.lstrip().startswith("mended") for line in table) == 3  # two rows and the number of the others
    assert any("16 more" in line for line in table)


def test_fail_if_worse_is_an_exit_code_for_scripts(tmp_path: Path) -> None:
    good, slightly, clearly = (
        str(make_run(tmp_path / name, wrong_on(*rows))) for name, rows in (("a", [1]), ("b", [1, 2]), ("c", range(20)))
    )
    assert invoke("compare", good, slightly, "--fail-if-worse").exit_code == 0
    assert invoke("compare", good, clearly).exit_code == 0
    done = invoke("compare", good, slightly, clearly, "--fail-if-worse", "--json")
    assert done.exit_code == 1
    assert done.stderr.strip() == f"worse than {good}: {clearly}"
    assert [other["worse"] for other in json.loads(done.stdout)["others"]] == [False, True]


def test_compare_needs_runs_that_are_there(tmp_path: Path) -> None:
    make_run(tmp_path / "a", GOLD)
    for names in (("a",), ("a", "aa")):
        assert isinstance(invoke("compare", *names, "--output", str(tmp_path)).exception, LoraftError)
