"""With `output.texts: false` no file that loraft writes holds a sentence; row numbers stay."""

import json
import random
import sys
from pathlib import Path

import pytest
from helpers.tiny import backbone

from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.errors import RunError
from loraft.models.load import build_encoder
from loraft.runs.predictions import PredictedRow, difference_of_rows, read_predictions, read_rows, write_rows
from loraft.runs.run import Run
from loraft.studies import report
from loraft.studies.compare.compare import compare
from loraft.studies.dataset import listing, statistics
from loraft.studies.fewshot import study
from loraft.studies.sweep import local_engine, runner
from loraft.studies.sweep.folds import train_folds
from loraft.training.pipeline import train

LABELS = ("negative", "neutral", "positive")
SENTENCES = [f"chuyện riêng thứ {number} của sinh viên lớp {LABELS[number % 3]}" for number in range(24)]


def private(folder: Path, *overrides: str) -> Config:
    lines = [f"{text},{LABELS[number % 3]}" for number, text in enumerate(SENTENCES)]
    (folder / "data").mkdir()
    for split in ("train", "validation", "test"):  # the test rows stand in train too, and two conflict
        more = [f"{SENTENCES[0]},neutral"] if split == "train" else []
        table = "\n".join(["sentence,sentiment", *lines, *more])
        (folder / "data" / f"{split}.csv").write_text(table + "\n", encoding="utf-8")
    settings = [
        "output.texts=false", f"output={folder / 'runs'}", f"data.source={folder / 'data'}", "name=a",
        "train.max_steps=1", "train.eval_steps=1", "eval.bootstrap_samples=100", "eval.baselines=on",
    ]  # fmt: skip
    return resolve(overrides=[*settings, *overrides])


def assert_private(folder: Path) -> int:
    """No file below the folder holds a sentence, as text or as JSON escapes it; the number of files."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        content = path.read_bytes()
        for text in SENTENCES:
            assert text.encode() not in content, path
            assert json.dumps(text)[1:-1].encode() not in content, path
    return len(files)


def test_no_file_of_a_training_its_report_and_the_statistics_holds_a_sentence(tmp_path: Path) -> None:
    config = private(tmp_path)
    result = train(config, quiet=True)
    report.write_page(Path(result.run))
    rows = read_rows(Run(Path(result.run)))
    assert [row.row for row in rows] == list(range(1, 25))
    assert {row.text for row in rows} == {""}
    described = statistics.describe(config.model_copy(update={"name": "số liệu"}), tokens=False)
    assert described.conflicts.sentences == 1
    report.write_page(Path(described.path))
    assert {row["text"] for row in listing.listed(config, "leaks")[1]} == {""}
    assert (tmp_path / "runs" / ".rows").is_dir()
    assert assert_private(tmp_path / "runs") > 12
    assert not Run(Path(result.run)).explanations_path.exists()
    assert "sentences are not kept" in (Path(result.run) / "report.html").read_text(encoding="utf-8")
    compared = compare([Run(Path(result.run)).path, copied(Run(Path(result.run)))])
    assert compared.n == 24


def test_no_file_of_folds_and_of_a_few_shot_study_and_their_reports_holds_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(1)  # sentences that are no near-duplicates, or no folds could be drawn
    unlike = [" ".join("".join(draw.choices("aăâbdđeêghioôơuư", k=5)) for _ in range(8)) for _ in SENTENCES]
    monkeypatch.setattr(sys.modules[__name__], "SENTENCES", unlike)
    for place in ("studies.sweep.shared_backbone", "models.load"):
        monkeypatch.setattr(f"loraft.{place}.load_backbone", lambda *sections: backbone())
    config = private(tmp_path, "lora.r=1", "fewshot.shots=[0, 2]", "fewshot.repeats=1")
    one_file = config.data.model_copy(update={"source": str(tmp_path / "data" / "test.csv")})
    folded = train_folds(config.model_copy(update={"name": "gấp", "data": one_file}), 2, quiet=True)
    report.write_page(Path(folded.path))
    monkeypatch.setattr(study, "build", lambda config: (build_encoder(config), backbone()))
    asked = study.fewshot(config.model_copy(update={"name": "ví dụ"}), quiet=True)
    report.write_page(Path(asked.path))
    assert assert_private(tmp_path / "runs") > 20


def copied(run: Run) -> Path:
    """A second run, on the same rows, made with the sentences and with one other answer."""
    other = run.path.with_name("b")
    other.mkdir()
    for file in (run.config_path, run.results_path):
        (other / file.name).write_bytes(file.read_bytes())
    (other / "adapter").mkdir()
    (other / "adapter" / "loraft.json").write_bytes((run.adapter / "loraft.json").read_bytes())
    rows = [PredictedRow(row.row, SENTENCES[row.row - 1], row.label, "neutral", row.probs) for row in read_rows(run)]
    write_rows(Run(other), rows)
    moved = [PredictedRow(row.row + 1, "", row.label, row.predicted, row.probs) for row in rows]
    third = run.path.with_name("c")
    third.mkdir()
    for name in (run.config_path.name, run.results_path.name):
        (third / name).write_bytes((other / name).read_bytes())
    (third / "adapter").symlink_to(other / "adapter")
    write_rows(Run(third), moved)
    said = difference_of_rows(read_predictions(Run(other)), read_predictions(Run(third)))
    assert said == "other row numbers"
    return other


def test_the_error_file_of_a_trial_names_the_kind_of_error_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: object, **named: object) -> None:
        raise RunError(f"row 3: no label for {SENTENCES[3]}")

    monkeypatch.setattr(local_engine, "start_run", broken)
    monkeypatch.setattr(runner.SharedBackbone, "inputs", lambda self, config: None)
    monkeypatch.setattr(runner.SharedBackbone, "check", lambda self: True)
    told: list[str] = []
    result = runner.sweep(private(tmp_path, "sweep.ranks=[1]", "sweep.joint=off"), quiet=True, tell=told.append)
    assert [trial.error for trial in result.trials] == ["RunError"]
    assert any(SENTENCES[3] in line for line in told)  # people see it once, on stderr
    errors = list((tmp_path / "runs").rglob("errors/*"))
    assert len(errors) == 1
    assert "broken" in errors[0].read_text(encoding="utf-8")
    assert_private(tmp_path / "runs")


def test_a_generated_answer_is_replaced_by_its_label(tmp_path: Path) -> None:
    rows = [
        PredictedRow(1, SENTENCES[0], "neutral", "neutral", answer=f"Loại: neutral. {SENTENCES[0]}"),
        PredictedRow(2, SENTENCES[1], "neutral", None, answer=SENTENCES[1]),
    ]
    write_rows(Run(tmp_path), rows, texts=False)
    assert_private(tmp_path)
    assert [row.answer for row in read_rows(Run(tmp_path))] == ["neutral", ""]
