"""What a command may write over: its own output, a FIFO, a device; never a folder, a run's file or a foreign one."""

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.bad_input import refusal
from helpers.folders import make_fewshot

from loraft.cli.app import main
from loraft.config.resolve import resolve
from loraft.config.yaml_io import dump_config
from loraft.display import page
from loraft.errors import ConfigError, RunError
from loraft.evaluation.output_file import PredictedInput, check_output, write_predictions
from loraft.evaluation.partial_file import PartialFile
from loraft.evaluation.predict import Prediction
from loraft.runs.environment import environment
from loraft.runs.records import write_record
from loraft.studies import report

ROWS = [PredictedInput({"câu": "thầy tốt"}, Prediction(1, "thầy tốt", "khen", {"khen": 0.75, "chê": 0.25}))]


def wrote_page(path: Path, study: Path) -> None:
    report.write_page(study, path)


def wrote_predictions(path: Path, study: Path) -> None:
    check_output(path, None)
    write_predictions(path, lambda: ROWS, None, labels=["khen", "chê"])


def wrote_task(path: Path, study: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["task", "new", "--data", "feedback", "--output", str(path)])
    assert not stop.value.code


WRITERS: dict[str, Callable[[Path, Path], None]] = {
    "a.html": wrote_page, "a.csv": wrote_predictions, "a.parquet": wrote_predictions, "a.yaml": wrote_task,
}  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_fewshot(tmp_path_factory.mktemp("một") / "quét")


@pytest.mark.parametrize("name", WRITERS)
def test_a_fifo_is_written_to_and_stays_one(name: str, study: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / name).read_bytes()))
    reader.start()
    WRITERS[name](tmp_path / name, study)
    reader.join(timeout=10)
    assert stat.S_ISFIFO((tmp_path / name).lstat().st_mode)
    assert len(read[0]) > 20
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", WRITERS)
def test_a_symlink_stays_one_and_its_file_is_replaced(name: str, study: Path, tmp_path: Path) -> None:
    (tmp_path / "xa").mkdir()
    (tmp_path / name).symlink_to(Path("xa") / name)
    for _ in range(1 if name == "a.yaml" else 2):  # through a dangling link, then over the own earlier output
        WRITERS[name](tmp_path / name, study)
    assert os.readlink(tmp_path / name) == f"xa/{name}"
    assert (tmp_path / "xa" / name).stat().st_size > 20
    assert os.listdir(tmp_path / "xa") == [name]


@pytest.mark.parametrize("name", WRITERS)
def test_a_device_stays_a_device(name: str, study: Path, tmp_path: Path) -> None:
    try:  # the same device as /dev/null, in a folder where nothing else would be lost
        os.mknod(tmp_path / name, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        (tmp_path / name).write_bytes(b"x")
    except OSError:
        pytest.skip("only root makes device nodes")
    WRITERS[name](tmp_path / name, study)
    assert stat.S_ISCHR((tmp_path / name).lstat().st_mode)


def test_a_full_device_is_a_message(study: Path, tmp_path: Path) -> None:
    (tmp_path / "a.html").symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"^--to: cannot be written \(got .*: No space left on device\); name another"):
        report.write_page(study, tmp_path / "a.html")
    (tmp_path / "vòng.html").symlink_to("vòng.html")
    with pytest.raises(ConfigError, match=r"--to: cannot be written .*symbolic links"):
        report.write_page(study, tmp_path / "vòng.html")


def test_a_foreign_file_is_replaced_only_with_force(study: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text("sentence,label\nthầy tốt,khen\n", encoding="utf-8")
    (tmp_path / "data.jsonl").write_text('{"label": "khen", "sentence": "hay"}\n', encoding="utf-8")
    (tmp_path / "data.parquet").write_text("không phải", encoding="utf-8")
    (tmp_path / "trống.html").touch()
    report.write_page(study, tmp_path / "trống.html")  # an empty file, as mktemp makes it, holds nothing to lose
    report.write_page(study, tmp_path / "trống.html")
    arguments = ["report", str(study), "--to"]
    refusal([*arguments, str(data)], r"--to: exists, .*data\.csv\); --force replaces it", folder=tmp_path)
    refusal([*arguments, str(tmp_path)], r"--to: is a folder", folder=tmp_path)
    for name in ("data.csv", "data.jsonl", "data.parquet"):
        with pytest.raises(ConfigError, match="--output-file: exists, and is not an earlier output"):
            check_output(tmp_path / name, None)
        check_output(tmp_path / name, None, force=True)
    report.write_page(study, data, force=True)
    assert page.MARK in data.read_bytes()


@pytest.mark.parametrize("name", ["fewshot.yaml", "fewshot.json", "environment.json"])
def test_a_file_of_a_run_is_never_replaced(name: str, study: Path, tmp_path: Path) -> None:
    write_record(study / "environment.json", environment())
    (study / "fewshot.yaml").write_text(dump_config(resolve()), encoding="utf-8")
    (tmp_path / "link").symlink_to(study / name)
    for path in (study / name, tmp_path / "link"):
        refusal(["report", str(study), "--to", str(path), "--force"], "--to: is a file of a run or study", folder=study)
    (study / "report.html").write_text("of an earlier version, without the mark", encoding="utf-8")
    report.write_page(study, study / "report.html")


def test_the_page_alone_is_the_result_on_a_stream(study: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for target in ("/dev/null", "/dev/stdout"):
        with pytest.raises(SystemExit):
            main(["report", str(study), "--to", target])
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert str(study) not in capfd.readouterr().out.splitlines()


@pytest.mark.parametrize("name", ["out.html", "deleted"])
def test_stdout_is_written_to_where_it_is_also_as_a_file(name: str, study: Path, tmp_path: Path) -> None:
    path, link = tmp_path / name, tmp_path / "nối.html"
    link.symlink_to("/dev/stdout")
    before = os.dup(1)
    with path.open("w+b") as file:
        os.dup2(file.fileno(), 1)
        try:
            os.write(1, "trước ".encode())
            if name == "deleted":
                path.unlink()
            for target in (Path("/dev/stdout"), Path("/proc/self/fd/1"), link):
                report.write_page(study, target)
            os.write(1, b" sau")
        finally:
            os.dup2(before, 1)
            os.close(before)
        file.seek(0)
        text = file.read().decode()
    assert text.startswith("trước <!")
    assert text.endswith(" sau")
    assert text.count(page.MARK.decode()) == 3
    assert sorted(os.listdir(tmp_path)) == sorted(["nối.html", *(["out.html"] if name == "out.html" else [])])


def test_a_stream_without_a_suffix_gets_csv(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for target in ("/dev/null", "/dev/full", "/dev/stdout"):
        check_output(Path(target), None)
    before = set(os.listdir("/dev"))
    with PartialFile(Path("/dev/null"), {"input": "a"}, resume=False) as partial:
        assert partial.path.parent.name.startswith("loraft-")
    assert not partial.path.parent.exists()
    assert set(os.listdir("/dev")) == before
    wrote_predictions(Path("/dev/stdout"), tmp_path)
    assert capfd.readouterr().out == "câu,label,confidence,prob_khen,prob_chê\nthầy tốt,khen,0.75,0.75,0.25\n"
    with pytest.raises(RunError, match=r"--output-file: cannot be written \(got /dev/full: No space left"):
        wrote_predictions(Path("/dev/full"), tmp_path)
    with pytest.raises(ConfigError, match=r"unknown format \(got no suffix\)"):
        check_output(tmp_path / "a", None)
