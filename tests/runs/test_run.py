"""Run directories: what marks a run as finished, and what is never lost."""

import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import numpy as np
import pytest

from loraft.errors import RunError
from loraft.runs.environment import environment
from loraft.runs.files import replacing, to_json, utc_now, write_json, write_text
from loraft.runs.run import Run, find_run, newest_finished


def make_run(output, name, finished_at=None):
    run = Run.create(output, name)
    write_text(run.config_path, "seed: 42\n")
    if finished_at is not None:
        run.finish({"accuracy": 0.5})
        os.utime(run.metrics_path, (finished_at, finished_at))
    return run


def test_a_run_is_finished_exactly_when_its_metrics_exist(tmp_path):
    run = make_run(tmp_path, "một")
    assert not run.finished
    with pytest.raises(RunError, match="not finished; loraft train --resume"):
        run.read_metrics()
    run.finish({"accuracy": 0.75})
    assert run.finished
    assert run.read_metrics() == {"accuracy": 0.75}


def test_a_finished_run_is_kept_unless_forced(tmp_path):
    run = make_run(tmp_path, "r16", finished_at=1)
    for flags in ({}, {"resume": True}):
        with pytest.raises(RunError, match="--force"):
            Run.create(tmp_path, "r16", **flags)
    assert run.finished
    assert list(Run.create(tmp_path, "r16", force=True).path.iterdir()) == []


def test_an_unfinished_run_names_both_ways_on(tmp_path):
    run = make_run(tmp_path, "r16")
    with pytest.raises(RunError, match=r"--resume --config .*r16/config.yaml continues it, --force deletes it"):
        Run.create(tmp_path, "r16")
    assert Run.create(tmp_path, "r16", resume=True).config_path.read_text() == "seed: 42\n"
    assert not list(Run.create(tmp_path, "r16", force=True).path.iterdir())
    assert run.path.is_dir()


def test_resume_starts_a_run_that_is_not_there(tmp_path):
    assert Run.create(tmp_path, "mới", resume=True).path.is_dir()


def test_force_and_resume_together_are_refused(tmp_path):
    with pytest.raises(RunError, match="give one of them"):
        Run.create(tmp_path, "r16", force=True, resume=True)


@pytest.mark.parametrize("flags", [{}, {"force": True}, {"resume": True}])
def test_a_folder_that_is_no_run_is_never_touched(tmp_path, flags):
    (tmp_path / "luận văn").mkdir()
    (tmp_path / "luận văn" / "chương 1.txt").write_text("mở đầu")
    with pytest.raises(RunError, match="no run"):
        Run.create(tmp_path, "luận văn", **flags)
    assert (tmp_path / "luận văn" / "chương 1.txt").read_text() == "mở đầu"


@pytest.mark.parametrize("name", ["", ".", "..", "../ngoài", "a/../../b", "/tmp/x", "a//b"])
def test_names_stay_inside_the_output_folder(tmp_path, name):
    with pytest.raises(RunError, match="run name"):
        Run.create(tmp_path, name)


def test_a_half_written_config_does_not_block_its_name(tmp_path):
    (tmp_path / "r16").mkdir()
    (tmp_path / "r16" / ".config-7.yaml").touch()
    assert Run.create(tmp_path, "r16").path.is_dir()


def test_a_file_in_the_way_is_reported(tmp_path):
    (tmp_path / "r16").touch()
    with pytest.raises(RunError, match="in the way"):
        Run.create(tmp_path, "r16")
    with pytest.raises(RunError, match="cannot be made"):
        Run.create(tmp_path / "r16", "r8")


def test_newest_finished_goes_by_the_time_of_finishing(tmp_path):
    make_run(tmp_path, "b", finished_at=2_000)
    make_run(tmp_path, "a", finished_at=3_000)
    make_run(tmp_path, "c")
    assert newest_finished(tmp_path).name == "a"


def test_no_finished_run_says_what_to_do_next(tmp_path):
    with pytest.raises(RunError, match=r"got none\); loraft train makes one"):
        newest_finished(tmp_path / "runs")
    make_run(tmp_path, "c")
    with pytest.raises(RunError, match=r"got 1 unfinished\); loraft train --resume"):
        newest_finished(tmp_path)


def test_a_run_is_found_by_name_by_path_and_inside_a_sweep(tmp_path):
    for name in ("r16", "quét/r8"):
        run = make_run(tmp_path / "runs", name)
        assert find_run(name, tmp_path / "runs").path == run.path
        assert find_run(str(run.path), tmp_path / "elsewhere").path == run.path


def test_a_sweep_stands_for_its_best_trial(tmp_path):
    best = make_run(tmp_path, "quét/r8")
    make_run(tmp_path, "quét/r1")
    (tmp_path / "quét" / "sweep.yaml").touch()
    with pytest.raises(RunError, match="quét: the sweep is not finished; the same command goes on"):
        find_run("quét", tmp_path)
    write_json(tmp_path / "quét" / "sweep.json", {"best": {"name": "r8"}})
    assert find_run("quét", tmp_path).path == best.path
    write_json(tmp_path / "quét" / "sweep.json", {"best": None})
    with pytest.raises(RunError, match=r"quét: no trial of the sweep finished; .*sweep\.json holds their errors"):
        find_run("quét", tmp_path)


def test_a_mistyped_run_gets_the_nearest_name(tmp_path):
    make_run(tmp_path, "feedback-nf4-r16")
    with pytest.raises(RunError, match="did you mean feedback-nf4-r16"):
        find_run("feedback-nf4-r61", tmp_path)
    with pytest.raises(RunError, match="runs there: feedback-nf4-r16"):
        find_run("xyz", tmp_path)
    make_run(tmp_path / "quét", "r8")
    with pytest.raises(RunError, match="did you mean quét/r8"):
        find_run("r8", tmp_path)


def test_a_folder_without_config_is_no_run(tmp_path):
    with pytest.raises(RunError, match=r"config\.yaml"):
        Run.open(tmp_path)
    with pytest.raises(RunError, match="no such run"):
        Run.open(tmp_path / "không có")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"nhãn": "tích cực"})
    with pytest.raises(TypeError), replacing(path) as beside:
        beside.write_text(to_json({"nhãn": {1, 2}}))
    assert json.loads(path.read_text(encoding="utf-8")) == {"nhãn": "tích cực"}
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_json_keeps_vietnamese_and_numbers_of_numpy_and_is_strict():
    value = {"câu": "thầy dạy hay", "a": np.float64(0.1), "n": np.int64(3), "m": np.eye(2), "loss": float("nan")}
    text = to_json(value)
    assert "thầy dạy hay" in text
    assert json.loads(text, parse_constant=pytest.fail) == {
        "câu": "thầy dạy hay",
        "a": 0.1,
        "n": 3,
        "m": [[1.0, 0.0], [0.0, 1.0]],
        "loss": None,
    }


def test_json_takes_what_parquet_columns_hold():
    value = {
        "lúc": datetime(2024, 7, 26, 8, 30, tzinfo=UTC),
        "ngày": date(2024, 7, 26),
        "giờ": time(8, 30),
        "dài": timedelta(minutes=1.5),
        "ảnh": b"\x89PNG",
        "giá": Decimal("12.50"),
        "mã": UUID(int=7),
    }
    assert json.loads(to_json([value])) == [
        {
            "lúc": "2024-07-26T08:30:00+00:00",
            "ngày": "2024-07-26",
            "giờ": "08:30:00",
            "dài": 90.0,
            "ảnh": "iVBORw==",
            "giá": "12.50",
            "mã": "00000000-0000-0000-0000-000000000007",
        }
    ]


def test_the_log_survives_a_line_cut_in_the_middle(tmp_path):
    run = make_run(tmp_path, "r16")
    assert run.read_log() == []
    run.append_log({"step": 10, "loss": 1.5})
    with run.log_path.open("ab") as file:
        file.write('{"step": 20, "ghi chú": "dở'.encode()[:-1])
    run.append_log({"step": 30, "note": "hết\u2028dòng"})
    assert run.read_log() == [{"step": 10, "loss": 1.5}, {"step": 30, "note": "hết\u2028dòng"}]


def test_environment_holds_versions_without_importing_the_packages():
    probe = (
        "import sys; from loraft.runs.environment import environment; e = environment();"
        "assert e['packages']['torch'] and e['cpu_count'] and e['time'].endswith('+00:00');"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", probe], check=True)


def test_environment_is_json_and_times_are_utc():
    assert json.loads(to_json(environment()))["python"] == sys.version.split()[0]
    assert utc_now().endswith("+00:00")
