"""`loraft predict --engine ray`: on a cluster of two nodes with what goes wrong; and what is refused without one."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow
import pyarrow.parquet
import pytest
from helpers.command_line import Says
from helpers.ray_machines import two_machines
from safetensors.torch import load_file, save_file

import loraft
from loraft.bundled import bundled_adapters, bundled_data
from loraft.delivery.shards import JOURNAL

SMALL = "--shard-rows"
integration = pytest.mark.integration


def sentences(count: int) -> list[str]:
    """Different sentences, with diacritics."""
    lines = (bundled_data()["feedback"] / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return [f"{json.loads(lines[n % 50])['sentence']} câu {n}" for n in range(count)]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster of two nodes with a CPU each, whose processes are children of this one."""
    pytest.importorskip("ray")
    with two_machines() as found:
        yield found


@pytest.fixture
def on_ray(address: str, here: Path, loraft_says: Says) -> Callable[..., tuple[int, str, str]]:
    """`loraft predict` on the cluster, with the demo run."""
    return lambda *given: loraft_says(
        "predict", "--run", "demo", "--engine", "ray", "--address", address, "--output-file", "out", *given
    )


def shards(folder: Path, suffix: str) -> list[Path]:
    """The files of the predictions, in order; nothing else is there but the journal."""
    found = sorted(folder.iterdir())
    assert found.pop(0).name == JOURNAL
    assert {one.suffix for one in found} == {suffix}
    return found


def json_rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for one in shards(folder, ".jsonl") for line in one.read_text("utf-8").splitlines()]


def journal(folder: Path) -> list[dict[str, Any]]:
    path = folder / JOURNAL
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [one for one in (json.loads(line) for line in lines if line.endswith("\n")) if "name" in one]


def write_jsonl(path: Path, texts: list[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    rows = [json.dumps({"mã": n, "sentence": text}, ensure_ascii=False) for n, text in enumerate(texts)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


@integration
def test_all_rows_are_labelled_as_here_and_in_order(here: Path, on_ray: Callable[..., Any]) -> None:
    texts = sentences(50)
    texts[17] = " "
    for name, begin, end in (("a", 0, 30), ("b", 30, 50)):
        table = pyarrow.table({"mã": range(begin, end), "sentence": texts[begin:end]})
        pyarrow.parquet.write_table(table, here / f"{name}.parquet")
    code, out, err = on_ray("--input", "*.parquet", SMALL, "8", "--min-confidence", "0.7", "--sets", "0.9")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == "1 row could not be read"
    assert "50 rows in out\n" in err
    assert f"{here / 'a.parquet'} row 18: no text\n" in err
    assert "7 parts of 2 files, 2 workers\n" in err
    assert err.count("note: sets: ") <= 1
    assert not re.search(r"Traceback|INFO|raylet|core_worker|Deprecat", err)
    files = shards(here / "out", ".parquet")
    assert [one.name for one in files[:2]] == ["part-000000-000000.parquet", "part-000000-000001.parquet"]
    rows = pyarrow.concat_tables([pyarrow.parquet.read_table(one) for one in files]).to_pylist()
    assert [row["mã"] for row in rows] == list(range(50))
    expected = list(loraft.predict(texts, run="demo", min_confidence=0.7, sets=0.9))
    assert {one.label for one in expected} >= {None, "positive", "negative"}
    for row, one in zip(rows, expected, strict=True):
        assert (row["sentence"], row["label"]) == (texts[row["mã"]], one.label)
        assert row["set"] == (None if one.set is None else list(one.set))
        probs = {label: row[f"prob_{label}"] for label in ("negative", "neutral", "positive")}
        assert probs == (pytest.approx(one.probs, abs=1e-5) if one.probs else dict.fromkeys(probs))

    again = ("--input", "*.parquet", SMALL, "8", "--min-confidence", "0.7", "--sets", "0.9")
    code, _, err = on_ray(*again, "--resume")
    assert (code, "out is finished already" in err) == (0, True)
    code, _, err = on_ray(*again)
    assert (code, "--output-file: holds predictions (got" in err) == (2, True)
    code, _, err = on_ray(*again, "--force", "--workers", "3")
    assert (code, "the cluster has no room" in err, shards(here / "out", ".parquet")) == (2, True, files)
    code, _, err = on_ray("--input", "*.parquet", SMALL, "8", "--resume")
    assert code == 1
    assert {"  min_confidence: 0.7 then, None now", "  --sets: 0.9 then, None now"} <= {
        line.removeprefix("  ") for line in err.splitlines()
    }


@integration
def test_a_killed_command_goes_on_with_every_row_once(here: Path, on_ray: Callable[..., Any], address: str) -> None:
    texts = sentences(240)
    write_jsonl(here / "data" / "một.jsonl", texts)
    given = ["--input", "data", SMALL, "10"]
    command = [sys.executable, "-m", "loraft", "predict", "--run", "demo", "--engine", "ray", "--address", address]
    process = subprocess.Popen([*command, "--output-file", "out", *given], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: len(journal(here / "out")) >= 2, lambda: process.poll() is None)
        assert loraft_is_refused(on_ray(*given, "--resume"), "works there; wait for it")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = journal(here / "out")
    assert 2 <= len(done) < 24
    kept = here / "out" / done[0]["name"]
    before = kept.stat().st_mtime_ns
    with (here / "out" / JOURNAL).open("ab") as file:
        file.write(b'{"name": "part-000')  # killed while it wrote
    (here / "out" / "part-000000-000023.jsonl").write_text("{}\n", encoding="utf-8")  # written, and not in the journal
    assert loraft_is_refused(on_ray(*given), "an interrupted prediction left")
    code, _, err = on_ray(*given, "--resume", "--workers", "1")
    assert (code, "240 rows in out\n" in err) == (0, True), err
    assert kept.stat().st_mtime_ns == before
    assert [(row["mã"], row["sentence"]) for row in json_rows(here / "out")] == list(enumerate(texts))


@integration
def test_a_killed_worker_is_replaced_and_every_row_is_there_once(
    here: Path, on_ray: Callable[..., Any], recwarn: pytest.WarningsRecorder
) -> None:
    texts = sentences(300)
    (here / "a.csv").write_text("\n".join(["sentence", *(f'"{text}"' for text in texts)]), encoding="utf-8")
    killed: list[int] = []
    ended = threading.Event()

    def at_work() -> bool:
        return not ended.is_set()

    def kill() -> None:
        wait_for(lambda: len(journal(here / "out")) >= 2, at_work)
        every = psutil.Process().children(recursive=True)
        (worker,) = (one for one in every if "MapWorker" in one.name() + cmd(one))

        def in_a_part() -> bool:
            worker.suspend()
            if [*(here / "out").glob(".*.tries")]:
                return True
            worker.resume()
            return False

        wait_for(in_a_part, at_work)
        killed.append(worker.pid)
        worker.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        code, out, err = on_ray("--input", "a.csv", SMALL, "10", "--output-format", "jsonl", "--workers", "1")
    finally:
        ended.set()
    thread.join()
    assert (code, len(killed), "300 rows in out\n" in err) == (0, 1, True), err
    assert [row["sentence"] for row in json_rows(here / "out")] == texts
    assert not re.search(r"Traceback|INFO|raylet|core_worker|Deprecat", out + err), out + err
    told = [str(one.message) for one in recwarn]
    assert f"{here / 'a.csv'}: a worker died; its part was begun again" in told


@integration
def test_a_damaged_file_costs_its_own_rows_only(here: Path, on_ray: Callable[..., Any]) -> None:
    for name in ("a", "c"):
        write_jsonl(here / "in" / f"{name}.jsonl", sentences(4))
    (here / "in" / "b.jsonl").write_bytes(b"\x89PNG\n")
    given = ["--input", "in/*.jsonl", "--output-format", "csv", "--set", "output.texts=false", "--workers", "1"]
    code, _, err = on_ray(*given)
    assert code == 1
    assert f"{here}/in/b.jsonl: is no text" in err
    assert "8 rows in out\n1 of 3 files could not be read; the same command with --resume goes on" in err
    assert "Traceback" not in err
    write_jsonl(here / "in" / "b.jsonl", sentences(3))
    code, _, err = on_ray(*given, "--resume")
    assert (code, "11 rows in out\n" in err) == (0, True), err
    rows = [row for one in shards(here / "out", ".csv") for row in csv.DictReader(one.open(encoding="utf-8"))]
    assert [row["row"] for row in rows] == [*"1234", *"123", *"1234"]
    assert "sentence" not in rows[0]


@integration
def test_a_worker_that_cannot_load_the_adapter_is_one_message(here: Path, address: str, loraft_says: Says) -> None:
    shutil.copytree(bundled_adapters()["demo"], here / "hỏng")
    (weights,) = (here / "hỏng").rglob("adapter_model.safetensors")
    one, *others = load_file(weights).items()
    save_file({**dict(others), one[0]: one[1][:, :1].contiguous()}, weights)
    write_jsonl(here / "a.jsonl", sentences(4))
    command = ["predict", "--run", "hỏng", "--engine", "ray", "--address", address, "--output-file", "out"]
    code, _, err = loraft_says(*command, "--input", "a.jsonl", SMALL, "1", "--workers", "1")
    assert code == 1
    assert re.fullmatch(r"error: a worker: .*hỏng.* \(on \S+\)", err.splitlines()[-1]), err
    assert "Traceback" not in err
    code, _, err = loraft_says(*command, "--input", "a.jsonl", "--workers", "3", "--resume")
    assert (code, "--workers: the cluster has no room (got 3 of 1 CPU; it has 2 CPUs" in err) == (2, True)


def wait_for(condition: Callable[[], bool], at_work: Callable[[], bool]) -> None:
    """Returns when it holds, as it must while the command is at work."""
    while not condition():
        assert at_work(), "the command ended too early"
        time.sleep(0.05)


def cmd(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def loraft_is_refused(answer: tuple[int, str, str], message: str) -> bool:
    code, out, err = answer
    return (code, out, "Traceback" in err, message in err) == (1, "", False, True)


# --- without a cluster ------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[list[str], str]] = {
    "another engine": (["--engine", "spark"], r"--engine: unknown \(got 'spark'\); allowed: local, ray"),
    "a pattern": (["--input", "*.csv"], r"--input: no such file \(got '\*\.csv'\); .*a pattern .* needs --engine ray"),
    "workers without ray": (["--workers", "2", "câu"], r"--workers: only with --engine ray \(got --engine local\)"),
    "no GPUs without ray": (["--gpus-per-worker", "0", "câu"], r"--gpus-per-worker: only with --engine ray"),
    "no worker": (["--engine", "ray", "--workers", "0"], r"--workers"),
    "no rows of a shard": (["--engine", "ray", "--shard-rows", "0"], r"--shard-rows"),
    "sentences": (["--engine", "ray", "câu"], r"sentences: not with --engine ray; use --engine local"),
    "JSON": (["--engine", "ray", "--json", "--input", "a.csv"], r"--json: not with --engine ray"),
    "an estimated prior": (
        ["--engine", "ray", "--prior", "estimate", "--input", "a.csv", "--output-file", "out"],
        r"--prior estimate: not with --engine ray; use --engine local",
    ),
    "one GPU and a half": (
        ["--engine", "ray", "--input", "a.csv", "--output-file", "out", "--gpus-per-worker", "1.5"],
        r"--gpus-per-worker: is no share of a GPU, and no whole number \(got 1\.5\)",
    ),
    "GPUs that are no number": (
        ["--engine", "ray", "--input", "a.csv", "--output-file", "out", "--gpus-per-worker", "nan"],
        r"--gpus-per-worker",
    ),
    "a long name": (["--engine", "ray", "--input", "ệ" * 999, "--output-file", "out"], r"--input: no such file"),
    "a long folder": (["--engine", "ray", "--input", "a.csv", "--output-file", "ệ" * 999], r"--output-file: cannot be"),
    "a long pattern": (["--engine", "ray", "--input", "*" * 999, "--output-file", "out"], r"--input: "),
    "no output": (["--engine", "ray", "--input", "a.csv"], r"--engine ray: reads files and writes a folder"),
    "no input": (["--engine", "ray", "--output-file", "out"], r"--engine ray: reads files and writes a folder"),
    "no file": (["--engine", "ray", "--input", "b.csv", "--output-file", "out"], r"--input: no such file \(got"),
    "no match": (["--engine", "ray", "--input", "*.tsv", "--output-file", "out"], r"--input: nothing matches"),
    "an empty folder": (["--engine", "ray", "--input", "leer", "--output-file", "out"], r"--input: no files to read"),
    "two formats": (
        ["--engine", "ray", "--input", "a.*", "--output-file", "out"],
        r"--input: files of several formats \(got \.csv, \.jsonl\); predict one after the other",
    ),
    "a file of results": (["--engine", "ray", "--input", "a.csv", "--output-file", "o.csv"], r"ray writes a folder"),
    "a file there": (["--engine", "ray", "--input", "a.csv", "--output-file", "đó"], r"--output-file: is a file"),
    "other files there": (
        ["--engine", "ray", "--input", "a.csv", "--output-file", "khác", "--force"],
        r"--output-file: the folder holds other files \(got .*part-000000-000000\.csv\); name another folder",
    ),
    "the folder of the input": (
        ["--engine", "ray", "--input", "vào", "--output-file", "vào"],
        r"--input: only files of the output, or whose names begin with _ or \.",
    ),
    "another format of results": (
        ["--engine", "ray", "--input", "a.csv", "--output-file", "out", "--output-format", "xlsx"],
        r"--output-format: unknown \(got 'xlsx'\); allowed: csv, jsonl, parquet",
    ),
    "whole texts": (
        ["--engine", "ray", "--input", "a.csv", "--output-file", "out", "--format", "text"],
        r"--format: not with --engine ray \(got 'text'\); use --engine local",
    ),
    "a damaged journal": (
        ["--engine", "ray", "--input", "a.csv", "--output-file", "hỏng"],
        r"hỏng/_predictions\.jsonl: a damaged journal \(.*\); delete the folder, and predict again",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("given", "says"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_refused(given: list[str], says: str, here: Path, loraft_says: Says) -> None:
    for name in ("a.csv", "vào/a.csv", "khác/part-000000-000000.csv", "đó"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text("sentence\nthầy dạy hay\n", encoding="utf-8")
    write_jsonl(here / "a.jsonl", ["thầy dạy hay"])
    (here / "leer").mkdir()
    (here / "hỏng").mkdir()
    (here / "hỏng" / JOURNAL).write_text("[1]\n", encoding="utf-8")
    code, out, err = loraft_says("predict", "--run", "demo", *given)
    assert (code in (1, 2), out) == (True, ""), err
    assert re.search(says, err), err
    assert "Traceback" not in err
    assert not os.path.exists("out")


def test_a_damaged_adapter_costs_no_finished_predictions(here: Path, loraft_says: Says) -> None:
    pytest.importorskip("ray")
    shutil.copytree(bundled_adapters()["demo"], here / "hỏng")
    (weights,) = (here / "hỏng").rglob("adapter_model.safetensors")
    weights.write_bytes(b"none")
    write_jsonl(here / "a.jsonl", ["thầy dạy hay"])
    (here / "out").mkdir()
    (here / "out" / JOURNAL).write_text('{"origin": {}}\n{"complete": 0}\n', encoding="utf-8")
    given = ["--engine", "ray", "--input", "a.jsonl", "--output-file", "out", "--force"]
    code, _, err = loraft_says("predict", "--run", "hỏng", *given)
    assert (code, "hỏng: the adapter cannot be read (" in err, "Traceback" in err) == (1, True, False), err
    assert '"complete"' in (here / "out" / JOURNAL).read_text(encoding="utf-8")


def test_ray_that_is_missing_is_one_message(here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    write_jsonl(here / "a.jsonl", ["thầy dạy hay"])
    given = ["predict", "--run", "demo", "--engine", "ray", "--input", "a.jsonl", "--output-file", "out"]
    code, _, err = loraft_says(*given)
    assert (code, "pip install 'loraft[ray]'" in err, os.path.exists("out")) == (1, True, False)
