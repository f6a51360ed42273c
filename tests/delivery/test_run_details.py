"""`loraft runs show` and `diff`: a run in short, and in what two differ."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.damage import copied

from loraft.delivery.run_details import IN_SHORT, details, differences
from loraft.errors import LoraftError
from loraft.models.calibration import Calibration


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return copied(tmp_path)


def test_a_finished_run_is_shown_with_config_scores_files_and_commands(runs: Path) -> None:
    found = details(runs / "run")
    assert (found.row.name, found.row.state, found.runs) == ("run", "finished", ())
    assert set(found.config) == set(IN_SHORT)
    assert found.config["lora.r"] == 1
    after = json.loads((runs / "run" / "metrics.json").read_text())["after"]
    assert found.scores["accuracy"][1] == after["accuracy"]
    assert found.files["metrics.json"] == (runs / "run" / "metrics.json").stat().st_size
    assert sum(found.files.values()) == found.row.bytes
    assert found.next == tuple(f"loraft {what} {runs / 'run'}{more}" for what, more in
                               (("predict --run", " --input FILE"), ("eval --run", ""), ("report", "")))  # fmt: skip


def test_the_calibration_is_shown(runs: Path) -> None:
    assert details(runs / "run").calibration is None
    path = runs / "run" / "adapter" / "loraft.json"
    content = json.loads(path.read_text(encoding="utf-8")) | {"calibration": {"temperature": 1.5, "rows": 60}}
    path.unlink()
    path.write_text(json.dumps(content), encoding="utf-8")
    assert details(runs / "run").calibration == Calibration(1.5, None, 60)


def test_a_sweep_shows_its_trials_and_other_work_what_it_has(runs: Path) -> None:
    assert [row.name for row in details(runs / "sweep").runs] == ["sweep/r1", "sweep/r2"]
    assert details(runs / "data").config == {}
    assert details(runs / "fewshot").next == (f"loraft report {runs / 'fewshot'}",)
    shutil.copytree(runs / "run" / "adapter", runs / "bó")
    assert details(runs / "bó").config == {
        "model.name": "loraft-vi-tiny", "model.revision": None, "quant.method": "none", "data.source": "feedback",
        "prompt.task": "sentiment",
    }  # fmt: skip
    assert [line.split()[1] for line in details(runs / "bó").next] == ["predict", "eval"]
    manifest = json.loads((runs / "bó" / "loraft.json").read_text(encoding="utf-8"))
    (runs / "bó" / "loraft.json").unlink()
    (runs / "bó" / "loraft.json").write_text(json.dumps({**manifest, "merged": {"to": "onnx"}}), encoding="utf-8")
    assert (details(runs / "bó").row.kind, details(runs / "bó").next) == ("export", ("docs/export.md shows its use",))


def test_unfinished_and_damaged_work_says_how_to_go_on(runs: Path) -> None:
    (runs / "run" / "metrics.json").unlink()
    assert "loraft train --resume --config" in details(runs / "run").next[0]
    (runs / "sweep" / "sweep.json").unlink()
    (runs / "sweep" / "sweep.json").write_text("{")
    assert details(runs / "sweep").next == ("run the command that made it again, with --force",)
    with pytest.raises(LoraftError, match="not the directory of a run or study"):
        details(runs)


def test_only_what_differs_is_told(runs: Path) -> None:
    found = {
        (one.group, one.key): (one.first, one.second)
        for one in differences(runs / "sweep" / "r1", runs / "sweep" / "r2")
    }
    assert found.pop(("config", "lora.r")) == (1, 2)
    assert {group for group, _ in found} == {"score"}
    assert found["score", "accuracy"][0] != found["score", "accuracy"][1]
    assert differences(runs / "run", runs / "run") == []


def test_data_and_versions_are_compared_by_what_the_run_recorded(runs: Path) -> None:
    for name, key, change in (
        ("adapter/loraft.json", "data", {"fingerprints": {"train": "f" * 64}}),
        ("environment.json", "packages", {"torch": "9.9"}),
    ):
        path = runs / "sweep" / "r1" / name
        content = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        path.write_text(json.dumps({**content, key: {**content[key], **change}}), encoding="utf-8")
    found = {(one.group, one.key): one.first for one in differences(runs / "sweep" / "r1", runs / "run")}
    assert found["data", "train rows"] == "f" * 12
    assert found["version", "torch"] == "9.9"


def test_what_has_no_config_cannot_be_compared(runs: Path) -> None:
    with pytest.raises(LoraftError, match="describes a data set"):
        differences(runs / "run", runs / "data")
    assert {one.group for one in differences(runs / "run", runs / "sweep")} == {"config"}  # a sweep has no more
    assert differences(runs / "run", runs / "run" / "adapter") == []  # which records no more of the config
