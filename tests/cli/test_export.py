"""`loraft export` on the command line: what it hands over and what it prints."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import Says

from loraft.delivery import export as exporting
from loraft.delivery.merge import Comparison

MADE = exporting.Export(
    "onnx", "fp32", True, "loraft-vi-tiny", None, "feedback", 300, 2, Comparison(0.99, 3, 0.25, 0.0625), None
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []

    def export(*given: Any, **named: Any) -> exporting.Export:
        calls.append((*given, named["split"], named["min_agreement"], named["force"]))
        return MADE

    monkeypatch.setattr(exporting, "export", export)
    return calls


def test_flags_reach_the_export(run_dir: Path, asked: list[Any], loraft_says: Says) -> None:
    code, out, _ = loraft_says(
        "export", "one", "--to", "onnx", "--int8", "--output", "ra", "--split", "test", "--min-agreement", "0.9",
        "--force", "--json",
    )  # fmt: skip
    assert code == 0
    ((path, *rest),) = asked
    assert Path(path).resolve() == run_dir.resolve()
    assert rest == [Path("ra"), exporting.Target("onnx", "fp32", True), "test", 0.9, True]
    expected = {**exporting.as_json(MADE), "folder": "ra"}
    assert json.loads(out) == {key: value for key, value in expected.items() if key != "schema_version"}


def test_people_read_a_table(
    run_dir: Path, asked: list[Any], loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = loraft_says("export", "--to", "onnx", "--output", "ra")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "weights int8" in lines
    assert "longer than prompt.max_length, not compared 2" in lines
    assert "labels as by the run 297 (99.00%)" in lines
    assert lines[-1] == "ra"
    monkeypatch.setattr(exporting, "export", lambda *given, **named: replace(MADE, shortened=0))
    assert "longer" not in loraft_says("export", "--to", "onnx", "--output", "ra")[1]
