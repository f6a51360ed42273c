"""`loraft sweep` prints the plan or the results, and says how to go on."""

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import Says
from helpers.sweeps import result as swept
from helpers.tiny import CONFIGS
from typer.testing import CliRunner, Result

from loraft.cli.app import app
from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.config.yaml_io import dump_config
from loraft.errors import BackboneError, ConfigError
from loraft.evaluation.equivalence import Equivalence
from loraft.runs.atomic_files import to_json, write_text
from loraft.runs.records import as_json
from loraft.runs.run import Run
from loraft.runs.study_folders import SweepFolder
from loraft.studies.sweep import curve, runner
from loraft.studies.sweep.curve_records import CurvePoint, RankCurve
from loraft.studies.sweep.grid import expand
from loraft.studies.sweep.records import SweepResult, TrialRecord
from loraft.studies.sweep.trials import run_of


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The options of the result that the sweep returns; the test may change them."""
    options: dict[str, Any] = {"ranks": (4, 8, 16)}
    monkeypatch.setattr(runner, "sweep", lambda config, **kwargs: swept(**options))
    return options


def best_of(result: SweepResult) -> TrialRecord:
    assert result.best is not None
    return result.best


def test_the_table_the_notes_and_the_next_command_are_printed(given: dict[str, Any]) -> None:
    done = invoke("sweep", "--ranks", "4,8,16")
    assert done.exit_code == 0
    table = done.stdout.splitlines()
    assert table[0].split()[:2] == ["rank", "accuracy"]
    assert [line.split()[0] for line in table[1:4]] == ["4", "8", "16"]
    assert "alpha policy: fixed, alpha 32" in table
    assert "sweep: runs/quét" in done.stderr.splitlines()
    assert f"loraft predict --run {shlex.quote(best_of(swept(**given)).run)} " in done.stderr


def test_with_several_seeds_the_best_trial_is_the_one_to_predict_with(given: dict[str, Any]) -> None:
    given |= {"seeds": (1, 2)}
    done, result = invoke("sweep", "--ranks", "4,8,16", "--seeds", "1,2"), swept(**given)
    best = best_of(result)
    assert result.best_setting is not None
    assert best.name in result.best_setting.trials
    assert f"best trial: {best.name}," in done.stdout
    assert f"/{best.name}' --input FILE\n" in done.stderr  # the double wrote no rows


def test_a_failed_trial_is_in_the_table_and_in_the_exit_code(given: dict[str, Any]) -> None:
    given |= {"failed": ("r8",)}
    done = invoke("sweep", "--ranks", "4,8,16")
    assert done.exit_code == 1
    assert any(line.rstrip().endswith(" failed") for line in done.stdout.splitlines())
    assert "r8 failed: RuntimeError: hết bộ nhớ <gpu>\n" in done.stdout


def test_json_is_the_whole_result(given: dict[str, Any]) -> None:
    done = invoke("sweep", "--ranks", "4,8,16", "--json")
    printed = json.loads(done.stdout)
    assert printed == json.loads(to_json(as_json(swept(**given))))
    assert isinstance(printed["best"]["macro_f1"], float)  # the keys are flat, as in sweep.json


@pytest.mark.parametrize(("flags", "printed"), [(["--engine", "ray"], False), (["--engine", "ray", "--verbose"], True)])
def test_what_rays_threads_print_is_shown_on_request_alone(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], printed: bool
) -> None:
    monkeypatch.setattr(runner, "sweep", lambda *given, **named: print("(raylet) một tiến trình chết") or swept((1,)))
    done = invoke("sweep", "--ranks", "1", *flags)
    assert (done.exit_code, "(raylet)" in done.output) == (0, printed)
    assert done.stdout.splitlines()[-1] != ""


def test_flags_reach_the_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(runner, "sweep", lambda config, **kwargs: seen.append((config, kwargs)) or swept((1,)))
    invoke("sweep", "--grid", "train.optim=sgd,adamw_torch", "--seeds", "1,2,3,...,5", "--quant", "nf4", "--force",
           "--joint", "off")  # fmt: skip
    config, kwargs = seen[0]
    assert (config.sweep.ranks, config.sweep.seeds) == ([], [1, 2, 3, 4, 5])
    assert config.sweep.grid == {"train.optim": ["sgd", "adamw_torch"]}
    assert (config.quant.method, config.sweep.joint) == ("nf4", "off")
    assert kwargs["force"] is True


def test_a_renamed_sweep_goes_on_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = SweepFolder(Path("runs/mới"))
    write_text(folder.config_path, dump_config(resolve(overrides=["sweep.ranks=[1]"])))
    folder.environment_path.touch()
    seen: list[Any] = []
    monkeypatch.setattr(runner, "sweep", lambda config, **kwargs: seen.append(config) or swept((1,)))
    assert invoke(*shlex.split(folder.how_to_resume)[1:]).exit_code == 0
    assert [run_of(trial).path for trial in expand(seen[0])] == [folder.path / "r1"]


def test_an_interrupted_sweep_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, loraft_says: Says) -> None:
    def interrupted(config: Any, **kwargs: Any) -> SweepResult:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "sweep", interrupted)
    code, _, err = loraft_says("sweep", "--ranks", "1,2")
    assert code == 130
    assert err.splitlines()[-1] == "interrupted; the same command goes on from there"
    assert loraft_says("sweep", "--ranks", "1,2", "--force")[2].splitlines()[-1] == (
        "interrupted; the same command begins again"
    )


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


@pytest.fixture
def curved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """How a run of the name r8 was cut; nothing is loaded."""
    given: dict[str, Any] = {}
    run = Run(tmp_path / "của tôi" / "r8")
    write_text(run.config_path, dump_config(resolve(overrides=["lora.r=8", "name=của tôi/r8"])))

    def cut(run: Run, config: Config, ranks: list[int] | None = None, **flags: Any) -> RankCurve:
        given.update(run=run, config=config, ranks=ranks, **flags)
        full = CurvePoint(8, "trained", str(run.path), 80, {"accuracy": 0.9, "macro_f1": 0.8}, {}, 1.0, None, None)
        same = Equivalence(-0.001, (-0.004, 0.002), equivalent=True)
        two = replace(full, rank=2, made="cut", trainable_parameters=20, energy=0.75, to_full=same, to_trained=same)
        return RankCurve(
            path="runs/của tôi-r8-cut", source=str(run.path), rank=8, backbone="b", quant="none", data="d",
            task="sentiment", labels=("a", "b"), n=100, confidence=0.95, margin=0.015, points=(two, full),
            training_seconds=10.0, seconds=1.0, together=False,
        )  # fmt: skip

    monkeypatch.setattr(curve, "rank_curve", cut)
    return given


def test_from_cuts_a_run_and_prints_what_was_trained_and_what_was_cut(curved: dict[str, Any], tmp_path: Path) -> None:
    done = invoke("sweep", "--from", "của tôi/r8", "--ranks", "1,2,4", "--output", str(tmp_path), "--force")
    assert done.exit_code == 0, done.stderr
    assert (curved["run"].path, curved["ranks"], curved["force"]) == (tmp_path / "của tôi" / "r8", [1, 2, 4], True)
    assert (curved["config"].name, curved["config"].output.folder) == (None, str(tmp_path))
    rows = [line.split() for line in done.stdout.splitlines()[:3]]
    assert rows[0][:2] == ["rank", "weights"]
    assert rows[1] == ["2", "cut", "0.9000", "0.8000", "75.00%", "20", *["=", "-0.1", "[-0.4,+0.2]"] * 2]
    assert rows[2] == ["8", "trained", "0.9000", "0.8000", "100.00%", "80"]
    assert "both together are 1.10 of it" in done.stdout
    assert f"next: loraft predict --run {shlex.quote(str(tmp_path / 'của tôi' / 'r8'))} " in done.stderr


def test_from_gives_json_too(curved: dict[str, Any], tmp_path: Path) -> None:
    done = invoke("sweep", "--from", "của tôi/r8", "--output", str(tmp_path), "--json", "--set", "name=khác")
    content = json.loads(done.stdout)
    assert content["kind"] == "rank curve"
    assert [point["made"] for point in content["points"]] == ["cut", "trained"]
    assert content["points"][0]["macro_f1"] == 0.8
    assert (curved["ranks"], curved["config"].name) == (None, "khác")


def test_a_search_as_a_job_array_is_refused_before_it_is_announced(loraft_says: Says) -> None:
    code, out, err = loraft_says("sweep", "--search", "lora.r=4,8", "--emit", "slurm")
    assert (code, out) == (2, "")
    assert err.startswith("error: --emit slurm: the script runs each trial by itself")
