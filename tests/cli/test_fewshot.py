"""`loraft fewshot`, `data` and `report` on the command line: what is parsed, printed where, and refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.folders import make_data, make_fewshot, make_run

from loraft.cli.app import main
from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.config.yaml_io import dump_yaml
from loraft.runs.files import write_json, write_text
from loraft.runs.run import Run
from loraft.studies.fewshot import study as fewshot_study


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """How the study was called; a finished one is answered."""
    study = json.loads((make_fewshot(tmp_path / "nghiên cứu") / "fewshot.json").read_text(encoding="utf-8"))
    study["path"] = "runs/của em"
    given: dict[str, Any] = {}

    def double(config: Config, **options: Any) -> dict[str, Any]:
        given.update(config=config, **options)
        return study

    monkeypatch.setattr(fewshot_study, "fewshot", double)
    return given


def run(*arguments: str) -> int:
    try:
        main(list(arguments))
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def finished_run(folder: Path, **sections: Any) -> Path:
    made = Run(folder)
    write_text(made.config_path, dump_yaml(resolve(flags={"name": folder.name, "lora.r": 4, **sections})))
    write_json(made.metrics_path, {})
    return folder


def test_fewshot_prints_table_and_verdict_and_names_the_next_command(
    called: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fewshot", "--shots", "1,2,3,...,6", "--repeats", "7", "--selection", "balanced") == 0
    section = called["config"].fewshot
    assert (section.shots, section.repeats, section.selection) == ([1, 2, 3, 4, 5, 6], 7, "balanced")
    assert (called["run"], called["adapter_shots"], called["force"], called["resume"]) == (None, False, False, False)
    out, err = capsys.readouterr()
    assert "TF-IDF + linear SVM" in out
    assert "2 draws of random demonstrations for each number of shots, on the same 60 test rows" in out.splitlines()
    assert "Fine-tuning pays" in out.splitlines()[-1]
    assert "next: loraft report 'runs/của em'" in err


def test_an_interrupted_fewshot_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(config: Config, *, tell: Callable[[str], None], **options: Any) -> None:
        tell("interrupted: 3 of 9 measurements are kept")
        raise KeyboardInterrupt

    monkeypatch.setattr(fewshot_study, "fewshot", interrupted)
    assert run("fewshot") == 130
    assert "interrupted: 3 of 9 measurements are kept\n" in capsys.readouterr().err


def test_fewshot_as_json_is_nothing_else(called: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fewshot", "--json", "--decode", "generate", "--force") == 0
    assert json.loads(capsys.readouterr().out)["path"] == "runs/của em"
    assert called["config"].eval.decode == "generate"
    assert called["force"]


def test_a_run_brings_its_own_config_and_not_its_name(called: dict[str, Any], tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "tốt-nhất", **{"prompt.task": "topic", "data.max_eval_rows": 9})
    given = ("--run", "tốt-nhất", "--output", str(tmp_path), "--shots", "2", "--seed", "3", "--adapter-shots")
    assert run("fewshot", *given, "--set", "prompt.max_length=2048") == 0
    config = called["config"]
    assert (called["run"], called["adapter_shots"]) == (folder, True)
    assert (config.prompt.task, config.data.max_eval_rows, config.lora.r) == ("topic", 9, 4)
    assert (config.fewshot.shots, config.seed, config.prompt.max_length) == ([2], 3, 2048)
    assert config.name is None
    assert run("fewshot", *given, "--set", "name=so-sánh") == 0
    assert called["config"].name == "so-sánh"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "x", "--model", "y", "--set", "lora.r=2"], "--model, --set lora.r=2: fixed by the run's training"),
        (["--adapter-shots"], "--adapter-shots: no adapter"),
        (["--force", "--resume"], "--force and --resume"),
        (["--shots", "1,2,...,8"], "the dots can be read in two ways"),
        (["--selection", "gần"], "fewshot.selection: not allowed (got 'gần'"),
        (["--repeats", "0"], "fewshot.repeats: not allowed (got '0'"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(
    called: dict[str, Any], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run("fewshot", *arguments) == 2
    assert message in capsys.readouterr().err
    assert called == {}


def test_data_prints_tables_and_says_where_the_figures_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "--output", str(tmp_path), "--no-near") == 0
    out, err = capsys.readouterr()
    assert "topic / sentiment (%)" in out
    assert "tokens, prompt and answer" in out
    assert "sentences with several labels: none" in out.splitlines()
    assert err.startswith("backbone loraft-vi-tiny, data feedback\n")
    assert str(tmp_path / "data-feedback-sentiment") in err
    assert run("data", "--output", str(tmp_path), "--no-near", "--no-tokens", "--json", "--task", "topic") == 0
    assert json.loads(capsys.readouterr().out)["by"] == "sentiment"


def test_data_says_what_was_left_out_and_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ý.csv").write_text("sentence,sentiment\nthầy tốt,2\n ,1\n", encoding="utf-8")
    assert run("data", "--data", str(tmp_path / "ý.csv"), "--output", str(tmp_path), "--no-tokens") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "train: 1 blank rows skipped" in lines
    assert any(line.startswith("no validation and no test split") for line in lines)
    assert run("report", str(tmp_path / "data-ý.csv-sentiment"), "--markdown") == 0
    assert "train: 1 blank rows skipped" in capsys.readouterr().out.splitlines()


def test_report_prints_the_path_of_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "chạy")
    assert run("report", "--output", str(tmp_path)) == 0
    page = tmp_path / "chạy" / "report.html"
    assert capsys.readouterr().out == f"{page}\n"
    assert "tích cực" in page.read_text(encoding="utf-8")
    assert run("report", str(tmp_path / "chạy"), "--to", str(tmp_path / "b.html")) == 0
    assert (tmp_path / "b.html").is_file()


def test_report_in_markdown_goes_to_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_data(tmp_path)
    capsys.readouterr()
    assert run("report", str(folder), "--markdown") == 0
    assert "| lecturer |" in capsys.readouterr().out
    assert not (folder / "report.html").exists()
    assert run("report", str(folder), "--markdown", "--to", "a.md") == 2


def test_report_of_nothing_names_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_fewshot(tmp_path / "nghiên-cứu")
    assert run("report", "nghien-cuu", "--output", str(tmp_path)) == 1
    assert "did you mean nghiên-cứu?" in capsys.readouterr().err
