"""A worker of `loraft predict --engine ray` by itself: what it answers, without a cluster."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import loraft
from loraft.bundled import bundled_adapters
from loraft.data.parts import parts_of
from loraft.data.records import FileSettings
from loraft.delivery.predict_worker import RETRIES, Task, Worker
from loraft.delivery.shards import JOURNAL, Shard
from loraft.runs.bundle import config_of
from loraft.runs.run import Run

TEXTS = ["thầy giảng rất dễ hiểu", "", "phòng học nóng"]


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """Labels a file of three rows, one of which is empty."""
    rows = [json.dumps({"sentence": text, "mã": f"số {n}"}, ensure_ascii=False) for n, text in enumerate(TEXTS)]
    (tmp_path / "câu.jsonl").write_text("\n".join(rows), encoding="utf-8")
    run = Run.open(bundled_adapters()["demo"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / JOURNAL).touch()
    return Task(
        run.path, None, config_of(run), None, {}, "auto", "sentence", FileSettings(), tmp_path / "out", ".jsonl",
    )  # fmt: skip


def answer(task: Task) -> dict[str, Any]:
    """Of a worker to the second part of the file."""
    path = task.folder.parent / "câu.jsonl"
    shard = Shard.of(parts_of(path, "auto", "sentence", FileSettings(), 1)[-1], 0, task.suffix)
    (found,) = Worker(task)({"shard": [json.dumps(asdict(shard))]})["found"]
    return dict(json.loads(found))


def test_a_part_becomes_a_file_with_the_columns_of_its_rows(task: Task) -> None:
    found = answer(task)
    assert (found["told"], found["reasons"]) == ([], [])
    assert {"name": "part-000000-000002.jsonl", "rows": 1, "bad": 0, "labelled": 1}.items() <= found["finished"].items()
    assert sum(found["finished"]["confidences"]) == sum(found["finished"]["predicted"].values()) == 1
    assert sorted(one.name for one in task.folder.iterdir()) == [JOURNAL, "part-000000-000002.jsonl"]
    row = json.loads((task.folder / "part-000000-000002.jsonl").read_text(encoding="utf-8"))
    *_, expected = loraft.predict([TEXTS[0], TEXTS[2]], run="demo")
    assert (row["mã"], row["label"]) == ("số 2", expected.label)
    assert row["probs"] == pytest.approx(expected.probs, abs=1e-5)


def test_a_part_is_on_the_disk_before_the_journal_can_count_it(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.pread(file, 10_000, 0)))
    answer(task)
    assert synced == [(task.folder / "part-000000-000002.jsonl").read_bytes()]


def test_the_numbers_do_not_depend_on_the_cut(task: Task) -> None:
    path, texts = task.folder.parent / "câu.jsonl", [f"{text} {n}" for n in range(3) for text in (*TEXTS[::2], "hay")]
    path.write_text("\n".join(json.dumps({"sentence": text}) for text in texts), encoding="utf-8")
    found = []
    for most in (1, 9):
        worker = Worker(task)
        for part in parts_of(path, "auto", "sentence", FileSettings(), most):
            shard = Shard.of(part, most, ".jsonl")
            worker({"shard": [json.dumps(asdict(shard))]})
            found += [json.loads(line)["probs"] for line in (task.folder / shard.name).read_text("utf-8").splitlines()]
    for one, whole in zip(found[:9], found[9:], strict=True):
        assert one == pytest.approx(whole, abs=1e-4)


def test_a_part_that_kills_its_workers_is_not_begun_without_end(task: Task) -> None:
    tries = task.folder / ".part-000000-000002.tries"
    tries.write_bytes(b"." * RETRIES)
    found = answer(task)
    assert [text.partition(": ")[2] for _, text in found["told"]] == ["a worker died; its part was begun again"]
    assert not tries.exists()
    tries.write_bytes(b"." * (RETRIES + 1))
    assert "rows from 3 on: the worker died (got 4 times); perhaps memory was too small" in answer(task)["fatal"]


def test_errors_are_told_and_not_raised(task: Task) -> None:
    path = task.folder.parent / "câu.jsonl"
    whole = path.read_bytes()
    shard = Shard.of(parts_of(path, "auto", "sentence", FileSettings(), 3)[0], 0, ".jsonl")
    path.write_bytes(whole[:-60])
    worker = Worker(task)
    (found,) = worker({"shard": [json.dumps(asdict(shard))]})["found"]
    assert "has changed (got 2 rows after row 0, not 3)" in json.loads(found)["failed"]
    (task.folder / JOURNAL).unlink()
    assert "a worker does not see the folder (got" in answer(task)["fatal"]
