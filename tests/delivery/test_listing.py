"""The rows of `loraft runs list`: every kind and state of work, trials among them, in the order that is asked for."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.damage import CONTENTS, copied

from loraft.delivery import listing
from loraft.delivery.listing import Row, rows_in, size_of
from loraft.errors import RunError
from loraft.runs.lock import LOCK_FILE, locked
from loraft.runs.run import Run
from loraft.runs.study_folders import FoldsFolder
from loraft.training.results import RunResult


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The folder with finished work of every kind but folds; its files may be changed."""
    folder = copied(tmp_path)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    return folder


def by_name(folder: Path) -> dict[str, Row]:
    return {row.name: row for row in rows_in(folder)}


def test_work_of_every_kind_has_a_row_with_its_score(runs: Path) -> None:
    shutil.copytree(runs / "run", runs / "chạy")
    shutil.copytree(runs / "run" / "adapter", runs / "bộ-chuyển")
    shutil.copytree(runs / "run" / "adapter", runs / "onnx")
    manifest = json.loads((runs / "onnx" / "loraft.json").read_text(encoding="utf-8"))
    (runs / "onnx" / "loraft.json").write_text(json.dumps({**manifest, "merged": {"to": "onnx"}}), encoding="utf-8")
    (runs / "tệp-khác").mkdir()
    (runs / ".rows").mkdir()
    found = by_name(runs)
    assert {name: row.kind for name, row in found.items()} == {
        "run": "run", "chạy": "run", "sweep": "sweep", "sweep/r1": "trial", "sweep/r2": "trial",
        "fewshot": "few-shot", "data": "data", "bộ-chuyển": "bundle", "onnx": "export",
    }  # fmt: skip
    assert {row.state for row in found.values()} == {"finished"}
    after = json.loads((runs / "run" / "metrics.json").read_text())["after"]
    assert found["run"].score == found["bộ-chuyển"].score == after["macro_f1"]
    assert found["run"].interval == tuple(after["intervals"]["macro_f1"])
    assert found["onnx"].score == after["macro_f1"]
    best = json.loads((runs / "sweep" / "sweep.json").read_text())["best"]
    assert (found["sweep"].score, found["sweep"].score) == (best["macro_f1"], found[f"sweep/{best['name']}"].score)
    assert (found["data"].score, found["fewshot"].metric) == (None, None)


def test_the_score_is_that_of_the_runs_own_metric(runs: Path) -> None:
    config = runs / "run" / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("train:\n", "train:\n  metric: accuracy\n"))
    row = by_name(runs)["run"]
    assert (row.metric, row.score) == ("accuracy", 0.75)  # of the fixture's metrics.json
    assert row.interval is not None


def test_rows_are_sorted_by_date_score_and_name(runs: Path) -> None:
    for number, name in enumerate(("run/metrics.json", "sweep/r2/metrics.json", "data/data.json")):
        os.utime(runs / name, (2_000_000_000 + number,) * 2)
    assert [row.name for row in rows_in(runs)][:3] == ["data", "sweep/r2", "run"]
    assert rows_in(runs)[2].date == "2033-05-18T03:33:20+00:00"
    assert [row.name for row in rows_in(runs, sort="name")] == [
        "data",
        "fewshot",
        "run",
        "sweep",
        "sweep/r1",
        "sweep/r2",
    ]
    scores = [row.score for row in rows_in(runs, sort="score")]
    known = [score for score in scores if score is not None]
    assert known == sorted(known, reverse=True)
    assert scores[len(known) :] == [None, None]


def test_an_error_counts_as_better_where_it_is_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {name: Row(name, name, "run", "finished", None, "mean_absolute_error", score, None, "", 0)
            for name, score in (("a", 0.9), ("b", 0.2))}  # fmt: skip
    for name in made:
        (tmp_path / name).mkdir()
    monkeypatch.setattr("loraft.delivery.listing.rows_of", lambda path: [made[path.name]])
    assert [row.name for row in rows_in(tmp_path, sort="score")] == ["b", "a"]


def test_unfinished_work_is_interrupted_working_or_failed(runs: Path) -> None:
    for name in ("run/metrics.json", "sweep/sweep.json", "sweep/r2/metrics.json"):
        (runs / name).unlink()
    (runs / "sweep" / "errors").mkdir()
    for name in ("r2", "r4"):  # r4 failed before it had a directory
        (runs / "sweep" / "errors" / f"{name}.txt").write_text("Traceback", encoding="utf-8")
    (runs / "mới").mkdir()
    owner = {
        "pid": 1,
        "host": "another",
        "process_started": 0.0,
        "started": "2026-01-01T00:00:00+00:00",
        "command": "x",
    }
    for name in ("fewshot", "mới"):  # of the second no config was written yet
        (runs / name / LOCK_FILE).write_text(json.dumps(owner))
    found = by_name(runs)
    states = {name: (row.state, row.pid) for name, row in found.items()}
    assert states == {
        "run": ("interrupted", None), "data": ("finished", None), "sweep": ("interrupted", None),
        "sweep/r1": ("finished", None), "sweep/r2": ("failed", None), "sweep/r4": ("failed", None),
        "fewshot": ("working", 1), "mới": ("working", 1),
    }  # fmt: skip
    assert str(found["sweep/r4"].error).endswith("r4.txt has the traceback")
    assert found["run"].score is None
    (runs / "fewshot" / LOCK_FILE).unlink()
    with locked(runs / "fewshot"):  # by this process
        assert by_name(runs)["fewshot"].state == "finished"


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *[("run/metrics.json", damage) for damage in ("empty", "nested", "half", "no UTF-8")],
        *[(name, "an empty object") for name in ("sweep/sweep.json", "sweep/r1/metrics.json", "data/data.json",
                                                 "fewshot/fewshot.json")],
    ],
)  # fmt: skip
def test_a_damaged_file_is_told_in_its_row(name: str, damage: str, runs: Path) -> None:
    (runs / name).write_bytes(CONTENTS[damage])
    (row,) = [row for row in rows_in(runs) if row.state == "damaged"]
    assert row.name == name.rpartition("/")[0]
    assert str(runs / name) in str(row.error)


def test_a_damaged_config_of_interrupted_work_is_told_as_well(runs: Path) -> None:
    (runs / "run" / "metrics.json").unlink()
    (runs / "run" / "config.yaml").write_bytes(b"\xff")
    assert (by_name(runs)["run"].state, "not UTF-8" in str(by_name(runs)["run"].error)) == ("damaged", True)


def test_sizes_count_files_and_not_what_symlinks_name(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x").write_bytes(bytes(1000))
    (tmp_path / "lớn").write_bytes(bytes(10_000))
    os.symlink(tmp_path / "lớn", tmp_path / "a" / "liên-kết")
    assert 1000 < size_of(tmp_path / "a") < 2000
    assert (size_of(tmp_path / "lớn"), size_of(tmp_path / "không-có")) == (10_000, 0)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder; loraft train makes runs"):
        rows_in(tmp_path / "runs")


def test_folds_have_the_score_over_all_rows(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.rename(runs / "sweep", runs / "gấp")
    os.rename(runs / "gấp" / "sweep.yaml", runs / "gấp" / FoldsFolder.config_file)
    os.rename(runs / "gấp" / "sweep.json", runs / "gấp" / FoldsFolder.results_file)
    report = RunResult.of(Run(runs / "run")).after
    made = SimpleNamespace(metric=listing.DEFAULT, report=report)
    monkeypatch.setattr(listing.FoldsResult, "of", lambda folder: made)
    found = by_name(runs)
    assert (found["gấp"].kind, found["gấp/r1"].kind, found["gấp"].score) == ("folds", "fold", report.macro_f1)
