"""Two processes of a launcher take the steps that one process takes with batches twice as large; one of them writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from loraft import distributed

SETTINGS = [
    "train.max_steps=4", "train.eval_steps=2", "train.logging_steps=1", "data.max_train_rows=64", "lora.lora_dropout=0",
    "data.max_eval_rows=8", "data.max_test_rows=8", "eval.bootstrap_samples=100", "model.dtype=fp32",
]  # fmt: skip


def trained(output: Path, launcher: list[str], batch: int) -> tuple[Path, subprocess.CompletedProcess[str]]:
    settings = [*SETTINGS, f"output={output}", "name=run", f"train.per_device_train_batch_size={batch}"]
    command = [sys.executable, *launcher, "-m", "loraft", "train"]
    command += [part for setting in settings for part in ("--set", setting)]
    environment = {**os.environ, "TMPDIR": str(output.parent), "OMP_NUM_THREADS": "1"}
    made = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False)
    assert made.returncode == 0, made.stderr
    return output / "run", made


@pytest.fixture
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.usefixtures("no_launcher")
def test_a_process_without_a_launcher_is_the_only_one_and_the_main_one() -> None:
    assert not distributed.is_distributed()
    assert distributed.is_main_process()
    assert distributed.local_rank() == 0


@pytest.mark.usefixtures("no_launcher")
@pytest.mark.parametrize(
    ("world_size", "rank", "several", "main"),
    [("1", "0", False, True), ("2", "0", True, True), ("2", "1", True, False), ("16", "8", True, False)],
)
def test_of_several_processes_the_first_is_the_main_one(
    monkeypatch: pytest.MonkeyPatch, world_size: str, rank: str, several: bool, main: bool
) -> None:
    monkeypatch.setenv("WORLD_SIZE", world_size)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert (distributed.is_distributed(), distributed.is_main_process()) == (several, main)
    assert distributed.local_rank() == 3


@pytest.mark.usefixtures("no_launcher")
def test_a_variable_of_another_program_makes_no_second_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "8")
    assert distributed.is_main_process()


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    one, _ = trained(tmp_path / "one", [], 8)
    two, said = trained(tmp_path / "two", launcher, 4)
    losses = [
        [row["loss"] for row in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if "loss" in row]
        for run in (one, two)
    ]
    assert len(losses[0]) == 4
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    weights = [load_file(run / "adapter" / "adapter_model.safetensors") for run in (one, two)]
    for name, weight in weights[0].items():
        assert torch.linalg.norm(weights[1][name] - weight) <= 1e-2 * torch.linalg.norm(weight), name
    metrics = [json.loads((run / "metrics.json").read_text(encoding="utf-8")) for run in (one, two)]
    assert metrics[1]["after"]["macro_f1"] == pytest.approx(metrics[0]["after"]["macro_f1"])
    assert metrics[1]["train"]["shared_prefix"] is True
    assert said.stdout.count("after: adapter") == 1
    assert said.stderr.count("next: loraft predict") == 1
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == [".rows", "run"]
