"""`loraft fewshot` on the command line: what is parsed, printed where, and refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import Says
from helpers.folders import fewshot_result

from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.config.yaml_io import dump_config
from loraft.runs.atomic_files import write_json, write_text
from loraft.runs.run import Run
from loraft.runs.study_folders import FewshotFolder
from loraft.studies.fewshot import study as fewshot_study
from loraft.studies.fewshot.records import FewshotResult


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """How the study was called; a finished one is answered."""
    given: dict[str, Any] = {}

    def double(config: Config, **options: Any) -> FewshotResult:
        given.update(config=config, **options)
        return fewshot_result("runs/của em")

    monkeypatch.setattr(fewshot_study, "fewshot", double)
    return given


def finished_run(folder: Path, **sections: Any) -> Path:
    made = Run(folder)
    write_text(made.config_path, dump_config(resolve(flags={"name": folder.name, "lora.r": 4, **sections})))
    write_json(made.results_path, {})
    return folder


def test_fewshot_prints_table_and_verdict_and_names_the_next_command(called: dict[str, Any], loraft_says: Says) -> None:
    arguments = ("--shots", "1,2,3,...,6", "--repeats", "7", "--selection", "balanced")
    code, out, err = loraft_says("fewshot", *arguments)
    assert code == 0
    section = called["config"].fewshot
    assert (section.shots, section.repeats, section.selection) == ([1, 2, 3, 4, 5, 6], 7, "balanced")
    assert (called["run"], called["adapter_shots"], called["force"], called["resume"]) == (None, False, False, False)
    assert "TF-IDF + linear SVM" in out
    assert "2 draws of random demonstrations for each number of shots, on the same 60 test rows" in out.splitlines()
    assert "Fine-tuning pays" in out.splitlines()[-1]
    assert err.endswith("study: runs/của em\nnext: loraft report 'runs/của em'\n")


def test_a_renamed_study_goes_on_in_its_folder(
    called: dict[str, Any], loraft_says: Says, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = FewshotFolder(Path("runs/mới"))
    write_text(folder.config_path, dump_config(resolve()))
    folder.environment_path.touch()
    for flag, path in (("--resume", folder.path), ("--force", folder.path), ("--json", None)):
        assert loraft_says("fewshot", flag, "--config", str(folder.config_path))[0] == 0
        assert path in (None, fewshot_study.folder_of(called["config"], None).path)
    assert called["config"].name is None  # without either flag it is another study


def test_an_interrupted_fewshot_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, loraft_says: Says) -> None:
    def interrupted(config: Config, *, tell: Callable[[str], None], **options: Any) -> None:
        stop = KeyboardInterrupt()
        stop.add_note("3 of 9 measurements are saved")
        raise stop

    monkeypatch.setattr(fewshot_study, "fewshot", interrupted)
    code, _, err = loraft_says("fewshot")
    assert code == 130
    assert err.endswith("interrupted; 3 of 9 measurements are saved\n")


def test_fewshot_as_json_is_nothing_else(called: dict[str, Any], loraft_says: Says) -> None:
    code, out, _ = loraft_says("fewshot", "--json", "--decode", "generate", "--force")
    assert code == 0
    assert json.loads(out)["path"] == "runs/của em"
    assert called["config"].eval.decode == "generate"
    assert (called["force"], called["resume"]) == (True, False)
    assert loraft_says("fewshot", "--resume")[0] == 0
    assert (called["force"], called["resume"]) == (False, True)


def test_without_a_run_the_flags_choose_model_task_and_quantization(called: dict[str, Any], loraft_says: Says) -> None:
    assert (
        loraft_says("fewshot", "--model", "mô-hình", "--task", "topic", "--quant", "nf4", "--set", "lora.r=3")[0] == 0
    )
    config = called["config"]
    assert (config.model.name, config.prompt.task, config.quant.method, config.lora.r) == ("mô-hình", "topic", "nf4", 3)


def test_a_run_brings_its_own_config_and_not_its_name(
    called: dict[str, Any], tmp_path: Path, loraft_says: Says
) -> None:
    folder = finished_run(tmp_path / "tốt-nhất", **{"prompt.task": "topic", "data.max_eval_rows": 9})
    given = ("--run", "tốt-nhất", "--output", str(tmp_path), "--shots", "2", "--seed", "3", "--adapter-shots")
    code, _, err = loraft_says("fewshot", *given, "--set", "prompt.max_length=2048")
    assert code == 0
    assert err.startswith(f"backbone loraft-vi-tiny, adapter {folder}, data feedback\n")
    config = called["config"]
    assert (called["run"], called["adapter_shots"]) == (folder, True)
    assert (config.prompt.task, config.data.max_eval_rows, config.lora.r) == ("topic", 9, 4)
    assert (config.fewshot.shots, config.seed, config.prompt.max_length) == ([2], 3, 2048)
    assert config.name is None
    assert loraft_says("fewshot", *given, "--set", "name=so-sánh")[0] == 0
    assert called["config"].name == "so-sánh"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "x", "--model", "y", "--set", "lora.r=2"], "--model, --set lora.r=2: fixed by the run's training"),
        (
            ["--run", "x", "--preset", "quickstart", "--config", "a.yaml", "--task", "topic", "--quant", "nf4"],
            "--preset, --config, --task, --quant: fixed by the run's training",
        ),
        (["--adapter-shots"], "--adapter-shots: no adapter"),
        (["--force", "--resume"], "--force and --resume"),
        (["--shots", "1,2,...,8"], "--shots: two progressions fit the dots"),
        (["--selection", "gần"], "fewshot.selection: not allowed (got 'gần'"),
        (["--repeats", "0"], "fewshot.repeats: not allowed (got '0'"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(
    called: dict[str, Any], loraft_says: Says, arguments: list[str], message: str
) -> None:
    code, _, err = loraft_says("fewshot", *arguments)
    assert code == 2
    assert message in err
    assert called == {}
