"""`train` given again over a finished run that was damaged, and copies of the bundled adapter that were changed."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.bad_input import refusal
from helpers.finished_runs import finished_run

from loraft.bundled import bundled_adapters
from loraft.config.resolve import load_config
from loraft.data.dataset import training_splits
from loraft.errors import RunError
from loraft.evaluation.classifier import load
from loraft.runs.records import write_record
from loraft.runs.run import Run

HALF = b'{"labels": ["a'
FILES: dict[str, str] = {
    "metrics.json": r"metrics\.json: is not JSON",
    "rows.json": r"rows\.json: is not JSON",
    "environment.json": r"environment\.json: is not JSON",
    "config.yaml": r"config\.yaml: ",
    "adapter/loraft.json": r"loraft\.json: is not JSON",
    "adapter/adapter_config.json": r"got adapter_config\.json: changed",
    "adapter/adapter_model.safetensors": r"got adapter_model\.safetensors: changed",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run, to be copied."""
    run = finished_run(tmp_path_factory.mktemp("trained"))
    splits = training_splits(load_config(run.config_path))
    write_record(run.rows_path, {name: split.fingerprint for name, split in splits.items()})
    run.predictions_path.touch()
    return run


@pytest.fixture
def again(trained: Run, work: Path) -> list[str]:
    """The command that finds a copy of the run."""
    shutil.copytree(trained.path, work / "runs" / "một")
    return ["train", "--config", "runs/một/config.yaml"]


@pytest.mark.parametrize(("file", "says"), FILES.items(), ids=FILES)
def test_a_damaged_run_is_no_result(file: str, says: str, again: list[str]) -> None:
    Path("runs/một", file).write_bytes(HALF)
    refusal(again, says)


@pytest.mark.parametrize("name", ["rows.json", "predictions.jsonl", "adapter/loraft.json"])
def test_nor_is_one_with_a_missing_file(name: str, again: list[str]) -> None:
    Path("runs/một", name).unlink()
    refusal(again, "runs/một")


def shortened(file: Path) -> None:
    os.truncate(file, 100)


def one_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("change", [shortened, one_byte, Path.unlink], ids=["cut off", "a byte", "missing"])
@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_changed_copy_of_the_bundled_adapter_is_refused(file: str, change: Callable[[Path], None]) -> None:
    shutil.copytree(bundled_adapters()["demo"], "runs/demo")
    change(Path("runs/demo", file))
    refusal(
        ["predict", "--run", "demo", "thầy dạy hay"], rf"runs/demo.*(has no )?{file}(: changed|: is not JSON|; train)"
    )


@pytest.mark.parametrize("command", [["runs", "show", "demo"], ["report", "demo"], ["runs", "remove", "demo", "--yes"]])
def test_the_bundled_adapter_is_no_run_with_results(command: list[str]) -> None:
    refusal(command, r"demo: is a bundled adapter, not a run .*; loraft predict --run demo labels sentences with it")


@pytest.mark.parametrize("name", ["ạ" * 300, "a\0", "không có"], ids=["long", "NUL", "missing"])
def test_load_refuses_a_name_of_no_run(name: str) -> None:
    with pytest.raises(RunError, match=r"^('ạ+\.\.\.'|'a\\x00'|không có): no such run; loraft train makes runs$"):
        load(name)
