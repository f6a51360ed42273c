"""`loraft runs remove` deletes whole runs and studies, or checkpoints, and nothing else."""

import json
import os
import shutil
from pathlib import Path

import pytest
from helpers.damage import copied

from loraft.delivery import removal
from loraft.delivery.removal import remove, to_remove
from loraft.errors import LoraftError
from loraft.runs.folders import delete
from loraft.runs.lock import LOCK_FILE

OTHER = {"pid": 1, "host": "another", "process_started": 0.0, "started": "2026-01-01T00:00:00+00:00", "command": "x"}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = copied(tmp_path)
    for run in ("run", "sweep/r1", "sweep/r2"):
        (folder / run / "checkpoints" / "checkpoint-2").mkdir(parents=True)
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".md"}


def test_whole_runs_and_studies_are_removed_once_each(runs: Path) -> None:
    remove(to_remove([runs / "run", runs / "." / "run" / ".." / "run"], checkpoints=False))
    assert names(runs) == {"sweep", "fewshot", "data"}
    remove(to_remove([runs / "sweep", runs / "fewshot", runs / "data"], checkpoints=False))
    assert names(runs) == set()


def test_checkpoints_go_and_the_rest_stays(runs: Path) -> None:
    remove(to_remove([runs / "run", runs / "sweep"], checkpoints=True))
    assert not list(runs.rglob("checkpoints"))
    assert (runs / "run" / "metrics.json").exists()
    assert (runs / "sweep" / "r1" / "adapter").is_dir()
    (runs / "sweep" / "r1" / "checkpoints").mkdir()
    assert to_remove([runs / "sweep" / "r1"], checkpoints=True) == [runs / "sweep" / "r1" / "checkpoints"]
    assert to_remove([runs / "run"], checkpoints=True) == []


def refused(says: str, *paths: Path, checkpoints: bool = False) -> None:
    with pytest.raises(LoraftError, match=says):
        to_remove(paths, checkpoints=checkpoints)


def test_what_is_not_of_loraft_is_refused_and_nothing_of_the_same_call_removed(runs: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "của-em"
    foreign.mkdir()
    refused("is not the directory of a run or study", runs / "run", foreign)
    (foreign / "config.yaml").write_text("seed: 1", encoding="utf-8")
    refused(r"lacks a config\.yaml that is a file, or all else of a run", foreign)
    (runs / "run" / "config.yaml").unlink()
    (runs / "run" / "config.yaml").mkdir()
    refused(r"lacks a config\.yaml that is a file", runs / "run")
    (tmp_path / "dữ-liệu").mkdir()
    (tmp_path / "dữ-liệu" / "data.json").write_text('{"a": 1}', encoding="utf-8")
    refused(r"data\.json: ", tmp_path / "dữ-liệu")
    refused("weights outside of a run", runs / "run" / "adapter")
    refused("is not the directory of a run or study", runs, tmp_path, Path("/"))


def test_a_folder_that_holds_files_of_the_user_stays_and_they_are_named(runs: Path) -> None:
    for place in ("run", "sweep/r1", "sweep"):
        (runs / place / "của em").mkdir()
        (runs / place / "của em" / "luận văn.txt").write_text("x", encoding="utf-8")
    refused(r"run: holds what is not of a run \(got của em\); move it away first", runs / "fewshot", runs / "run")
    refused(r"sweep: holds what is not of a sweep \(got của em, r1/của em\)", runs / "sweep")
    assert to_remove([runs / "run"], checkpoints=True) == [runs / "run" / "checkpoints"]


def test_what_work_writes_is_no_file_of_the_user(runs: Path) -> None:
    files = "trackers.json report.html .lock-12 .metrics-123.json tensorboard .replaced started_from.json rows.json"
    for name in files.split():
        (runs / "run" / name).touch()
    (runs / "sweep" / "joint-ab12" / "best").mkdir(parents=True)
    (runs / "sweep" / "errors").mkdir()
    everything = [runs / "run", runs / "sweep", runs / "fewshot", runs / "data"]
    assert to_remove(everything, checkpoints=False) == everything


def test_symlinks_are_not_followed(runs: Path, tmp_path: Path) -> None:
    os.symlink(runs / "run", runs / "liên-kết")
    refused("is a symlink", runs / "liên-kết")
    kept = tmp_path / "giữ"
    kept.mkdir()
    (kept / "x").write_text("x", encoding="utf-8")
    os.symlink(kept, runs / "fewshot" / "plots")
    shutil.rmtree(runs / "run" / "checkpoints")
    os.symlink(kept, runs / "run" / "checkpoints")
    assert to_remove([runs / "run"], checkpoints=True) == []
    remove(to_remove([runs / "fewshot", runs / "run"], checkpoints=False))
    assert (kept / "x").exists()


def test_two_dots_after_a_symlink_lead_to_where_the_system_finds_them(runs: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "nơi khác"
    shutil.copytree(runs / "run", elsewhere / "run")
    (elsewhere / "trong").mkdir()
    os.symlink(elsewhere / "trong", runs / "liên-kết")
    assert to_remove([runs / "liên-kết" / ".." / "run"], checkpoints=False) == [elsewhere / "run"]


def test_a_trial_stays_with_its_sweep(runs: Path) -> None:
    refused(r"belongs to the sweep in .*sweep, whose results name it", runs / "sweep" / "r1")
    for name in ("sweep.yaml", "sweep.json"):
        os.rename(runs / "sweep" / name, runs / "sweep" / name.replace("sweep", "folds"))
    refused("belongs to the training by folds", runs / "sweep" / "r1")


@pytest.mark.parametrize("checkpoints", [False, True])
@pytest.mark.parametrize(("at", "asked"), [("run", "run"), ("sweep", "sweep"), ("sweep/r1", "sweep")])
def test_where_another_process_works_nothing_is_removed(at: str, asked: str, checkpoints: bool, runs: Path) -> None:
    (runs / at / LOCK_FILE).write_text(json.dumps(OTHER))
    refused("process 1 on another", runs / asked, checkpoints=checkpoints)


def test_the_checkpoints_of_a_trial_wait_for_its_sweep(runs: Path) -> None:
    (runs / "sweep" / LOCK_FILE).write_text(json.dumps(OTHER))
    refused("process 1 on another", runs / "sweep" / "r1", checkpoints=True)


def test_unfinished_runs_keep_their_checkpoints(runs: Path) -> None:
    (runs / "run" / "metrics.json").unlink()
    refused(r"not finished, and needs its checkpoints to go on; loraft train --resume", runs / "run", checkpoints=True)
    (runs / "sweep" / "r2" / "metrics.json").unlink()
    refused("r2: is not finished", runs / "sweep", checkpoints=True)


def test_an_interruption_leaves_no_half_run_and_the_next_removal_tidies_up(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(removal.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove(to_remove([runs / "run"], checkpoints=False))
    left = names(runs) - {"sweep", "fewshot", "data"}
    assert [name.startswith(".removed-") for name in left] == [True]
    remove(to_remove([runs / "fewshot"], checkpoints=False))
    assert names(runs) == {"sweep", "data"}


def test_a_name_as_long_as_the_system_allows_is_removed(runs: Path) -> None:
    long = runs / ("x" * 255)
    os.rename(runs / "run", long)
    remove(to_remove([long], checkpoints=False))
    assert names(runs) == {"sweep", "fewshot", "data"}


def test_two_removals_at_once_delete_what_the_other_leaves(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def beside(path: Path, aside: Path) -> None:
        os.rename(path, aside)
        (aside.parent / ".removed-1").mkdir()  # the other one has just renamed its own
        monkeypatch.setattr(removal, "delete", both)

    def both(path: Path) -> None:
        shutil.rmtree(path)  # the other one is faster
        delete(path)

    monkeypatch.setattr(removal.os, "replace", beside)
    remove(to_remove([runs / "run"], checkpoints=False))
    assert names(runs) == {"sweep", "fewshot", "data"}


def test_a_process_that_began_meanwhile_keeps_its_run(runs: Path) -> None:
    found = to_remove([runs / "run"], checkpoints=False)
    (runs / "run" / LOCK_FILE).write_text(json.dumps(OTHER))
    with pytest.raises(LoraftError, match="process 1 on another"):
        remove(found)
    assert (runs / "run" / "metrics.json").exists()
