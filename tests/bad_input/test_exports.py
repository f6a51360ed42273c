"""`loraft export` with a run, a folder or flags that it must refuse, before a backbone is loaded."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.bad_input import refusal

LOADER = "loraft.delivery.export.load"


def foreign(folder: Path) -> None:
    folder.mkdir()
    (folder / "luận văn.docx").write_text("của em", encoding="utf-8")


def merged(folder: Path) -> None:
    folder.mkdir()
    (folder / "loraft.json").write_text(json.dumps({"merged": {"backbone": "b"}}), encoding="utf-8")


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("there", [foreign, merged])
def test_nothing_but_an_earlier_export_is_replaced(run: Path, there: Callable[[Path], None], force: list[str]) -> None:
    there(Path("out"))
    refusal(["export", "--to", "gguf", "--output", "out", *force], r"--output: the folder holds other files \(got out")


def test_an_earlier_export_is_replaced_with_force_only(run: Path) -> None:
    Path("out").mkdir()
    Path("out/loraft.json").write_text(json.dumps({"merged": {"to": "gguf"}, "files": {}}), encoding="utf-8")
    refusal(["export", "--to", "gguf", "--output", "out"], r"is there already \(got out\); --force replaces it")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--to", "tflite"], r"--to: unknown \(got 'tflite'\); allowed: classifier, onnx, gguf"),
        (["--to", "gguf", "--dtype", "q4"], r"--dtype: unknown \(got 'q4'\); allowed: bf16, fp16, fp32"),
        (["--to", "onnx", "--dtype", "bf16"], r"--dtype: onnx is written in fp32 \(got bf16\)"),
        (["--to", "classifier", "--int8"], r"--int8: not with a classifier; allowed: --to onnx and --to gguf"),
        (["--to", "gguf", "--int8", "--dtype", "fp16"], "--int8: not with --dtype fp16"),
        (["--to", "gguf", "--min-agreement", "nan"], r"--min-agreement: not from 0 to 1 \(got nan\)"),
        (["--to", "gguf", "--split", "dev"], "dev"),
        (["--to", "gguf", "--set", "prompt.task=topic"], "prompt.task=topic: fixed by the run"),
    ],
)
def test_a_wrong_flag_is_told(run: Path, flags: list[str], says: str) -> None:
    refusal(["export", "--output", "out", *flags], says)


def test_a_run_that_is_not_finished_is_refused(run: Path, work: Path) -> None:
    (work / "runs" / "two").mkdir()
    (work / "runs" / "two" / "config.yaml").write_text((run / "config.yaml").read_text(encoding="utf-8"))
    refusal(["export", "two", "--to", "gguf", "--output", "out"], "two: the run is not finished")
