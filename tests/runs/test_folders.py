"""Result directories: what marks them as finished, what is never lost, and what comes back."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from loraft.errors import ConfigError, RunError
from loraft.runs import lock
from loraft.runs.atomic_files import write_text
from loraft.runs.folders import append_line
from loraft.runs.lock import locked
from loraft.runs.run import Run
from loraft.studies.report import document


def make_run(output: Path, name: str, *, finished: bool = False) -> Run:
    run = Run.create(output, name)
    write_text(run.config_path, "seed: 42\n")
    if finished:
        run.finish({"accuracy": 0.5})
    return run


def test_a_run_is_finished_exactly_when_its_metrics_exist(tmp_path: Path) -> None:
    run = make_run(tmp_path, "một")
    assert not run.finished
    with pytest.raises(RunError, match="not finished; loraft train --resume"):
        run.read_results()
    run.finish({"accuracy": 0.75})
    assert run.finished
    assert run.read_results() == {"accuracy": 0.75}


def test_a_finished_run_is_kept_unless_forced(tmp_path: Path) -> None:
    run = make_run(tmp_path, "r16", finished=True)
    for flags in ({}, {"resume": True}):
        with pytest.raises(RunError, match="--force"):
            Run.create(tmp_path, "r16", **flags)
    assert run.finished
    assert os.listdir(Run.create(tmp_path, "r16", force=True).path) == [".replaced"]


def test_an_unfinished_run_names_both_ways_on(tmp_path: Path) -> None:
    run = make_run(tmp_path, "r16")
    with pytest.raises(RunError, match=r"--resume --config .*r16/config.yaml continues it, --force deletes it"):
        Run.create(tmp_path, "r16")
    assert Run.create(tmp_path, "r16", resume=True).config_path.read_text() == "seed: 42\n"
    assert os.listdir(Run.create(tmp_path, "r16", force=True).path) == [".replaced"]
    assert run.path.is_dir()


def test_resume_starts_a_run_that_is_not_there(tmp_path: Path) -> None:
    assert Run.create(tmp_path, "mới", resume=True).path.is_dir()


def test_force_and_resume_together_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path, "r16")
    for name in ("r16", "mới"):
        with pytest.raises(ConfigError, match="give one of them"):
            Run.create(tmp_path, name, force=True, resume=True)
    assert os.listdir(tmp_path) == ["r16"]


def test_whether_earlier_work_is_there_is_told(tmp_path: Path) -> None:
    assert not Run(tmp_path / "r16").check(force=False, resume=False)
    make_run(tmp_path, "r16")
    assert Run(tmp_path / "r16").check(force=True, resume=False)
    assert Run(tmp_path / "r16").check(force=False, resume=True)


@pytest.mark.parametrize("flags", [{}, {"force": True}, {"resume": True}])
def test_a_folder_that_is_no_run_is_never_touched(tmp_path: Path, flags: dict[str, bool]) -> None:
    (tmp_path / "luận văn").mkdir()
    (tmp_path / "luận văn" / "chương 1.txt").write_text("mở đầu")
    (tmp_path / "luận văn" / ".git").mkdir()
    with pytest.raises(RunError, match="files that are not of a run"):
        Run.create(tmp_path, "luận văn", **flags)
    assert (tmp_path / "luận văn" / "chương 1.txt").read_text() == "mở đầu"


@pytest.mark.parametrize("name", ["", ".", "..", "../ngoài", "a/../../b", "/tmp/x", "a//b", "a/", r"a\..\b", r"C:\x"])
def test_names_stay_inside_the_output_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="run name"):
        Run.create(tmp_path, name)


def test_a_half_written_config_does_not_block_its_name(tmp_path: Path) -> None:
    (tmp_path / "r16").mkdir()
    (tmp_path / "r16" / ".config-7.yaml").touch()
    assert Run.create(tmp_path, "r16").path.is_dir()


def test_a_file_in_the_way_is_reported(tmp_path: Path) -> None:
    (tmp_path / "r16").touch()
    with pytest.raises(RunError, match="is a file, not a folder"):
        Run.create(tmp_path, "r16")
    with pytest.raises(RunError, match="cannot be made"):
        Run.create(tmp_path / "r16", "r8")


# --- undoing ----------------------------------------------------------------------------------------------------------


def test_what_force_replaces_is_kept_until_the_new_work_finishes(tmp_path: Path) -> None:
    make_run(tmp_path, "r16", finished=True)
    again = Run.create(tmp_path, "r16", force=True)
    assert sorted(os.listdir(again.path / ".replaced")) == ["config.yaml", "metrics.json"]
    again.finish({"accuracy": 0.9})
    assert os.listdir(again) == ["metrics.json"]
    assert again.read_results() == {"accuracy": 0.9}


def test_force_again_over_unfinished_work_keeps_the_finished_one_before_it(tmp_path: Path) -> None:
    make_run(tmp_path, "r16", finished=True)
    again = Run.create(tmp_path, "r16", force=True)
    write_text(again.config_path, "seed: 1\n")  # and the process is killed here
    write_text(Run.create(tmp_path, "r16", force=True).config_path, "seed: 2\n")
    assert sorted(os.listdir(again)) == [".replaced", "config.yaml"]
    with pytest.raises(
        RunError, match=r"--resume --config .* continues it; the earlier result.*r16/\.replaced: to have"
    ):
        again.read_results()
    Run.create(tmp_path, "r16", force=True).discard()
    assert sorted(os.listdir(again)) == ["config.yaml", "metrics.json"]
    assert again.config_path.read_text() == "seed: 42\n"


def test_force_again_over_unfinished_work_without_a_result_keeps_the_newest(tmp_path: Path) -> None:
    make_run(tmp_path, "r16")
    write_text(Run.create(tmp_path, "r16", force=True).config_path, "seed: 1\n")
    Run.create(tmp_path, "r16", force=True).discard()
    assert Run(tmp_path / "r16").config_path.read_text() == "seed: 1\n"


@pytest.mark.parametrize("moved", range(5))
@pytest.mark.parametrize("undone", [False, True])
def test_force_killed_at_any_file_loses_nothing_of_the_finished_run(
    moved: int, undone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, number = make_run(tmp_path, "đợt 1", finished=True), iter(range(9))
    for name in ("adapter", "checkpoints"):
        write_text(run.path / name / "a", name)
    forced = Run.create(tmp_path, "đợt 1", force=True) if undone else None

    def killed(source: Path, target: Path, replace: Callable[..., None] = os.replace) -> None:
        if next(number) == moved:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        patched.setattr(os, "replace", killed)
        Run.create(tmp_path, "đợt 1", force=True) if forced is None else forced.discard()
    assert run.finished or run.result_is_aside
    Run.create(tmp_path, "đợt 1", force=True).discard()
    assert sorted(os.listdir(run)) == ["adapter", "checkpoints", "config.yaml", "metrics.json"]
    assert run.read_results() == {"accuracy": 0.5}


def test_a_folder_where_a_process_has_just_begun_names_that_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with locked(tmp_path / "góp-ý"):
        monkeypatch.setattr(lock, "_held", set())
        monkeypatch.setattr(lock, "_is_alive", lambda owner, path: True)
        for look in (Run.open, document):
            with pytest.raises(RunError, match=rf"góp-ý: .*; process {os.getpid()} on .* works there; wait for it"):
                look(tmp_path / "góp-ý")


def test_discarding_takes_the_new_folder_away_and_brings_the_replaced_one_back(tmp_path: Path) -> None:
    Run.create(tmp_path, "mới").discard()
    assert os.listdir(tmp_path) == []
    make_run(tmp_path, "r16", finished=True)
    forced = Run.create(tmp_path, "r16", force=True)
    write_text(forced.config_path, "seed: 1\n")
    forced.discard()
    assert Run(tmp_path / "r16").read_results() == {"accuracy": 0.5}
    assert sorted(os.listdir(forced)) == ["config.yaml", "metrics.json"]


def test_nothing_is_discarded_that_was_there_before_or_that_holds_a_checkpoint_or_results(tmp_path: Path) -> None:
    make_run(tmp_path, "r16")
    Run.create(tmp_path, "r16", resume=True).discard()
    Run(tmp_path / "r16").discard()
    trained = Run.create(tmp_path, "r8")
    (trained.checkpoints / "checkpoint-20").mkdir(parents=True)
    trained.discard()
    make_run(tmp_path, "r4", finished=True).discard()
    assert sorted(os.listdir(tmp_path)) == ["r16", "r4", "r8"]


# --- logs -------------------------------------------------------------------------------------------------------------


def test_the_log_survives_a_line_cut_in_the_middle_and_lines_that_hold_no_object(tmp_path: Path) -> None:
    run = make_run(tmp_path, "r16")
    assert run.read_log() == []
    run.append_log({"step": 10, "loss": 1.5})
    with run.log_path.open("ab") as file:
        file.write('[]\nnull\n{"step": 20, "ghi chú": "dở'.encode()[:-1])
    run.append_log({"step": 30, "note": "hết\u2028dòng"})
    assert run.read_log() == [{"step": 10, "loss": 1.5}, {"step": 30, "note": "hết\u2028dòng"}]


def test_a_line_is_added_behind_the_others(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"a": 1}, {"đ": [float("nan")]}]
    for row in rows:
        append_line(tmp_path / "log.jsonl", row)
    assert (tmp_path / "log.jsonl").read_text(encoding="utf-8") == '{"a": 1}\n{"đ": [null]}\n'
