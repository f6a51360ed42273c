"""FSDP: two processes that each hold a share of the backbone take the steps of one process that holds it whole."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.bad_input import refusal
from safetensors.torch import load_file

import loraft
from loraft import distributed

CONFIGS = Path(__file__).parents[1] / "configs" / "accelerate"
SETTINGS = [
    "train.max_steps=4", "train.eval_steps=2", "train.logging_steps=1", "data.max_train_rows=64", "train.keep=last",
    "data.max_eval_rows=8", "data.max_test_rows=8", "eval.bootstrap_samples=100", "eval.baselines=off",
]  # fmt: skip


def trained(run: Path, launcher: list[str], *settings: str, resume: bool = False) -> Path:
    command = [sys.executable, *launcher, "-m", "loraft", "train", *(["--resume"] if resume else [])]
    command += [part for one in (*SETTINGS, f"output={run.parent}", f"name={run.name}", *settings)
                for part in ("--set", one)]  # fmt: skip
    environment = {**os.environ, "TMPDIR": str(run.parent), "OMP_NUM_THREADS": "1"}
    made = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False)
    assert made.returncode == 0, made.stderr
    return run


def launch(config: str) -> list[str]:
    return ["-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / config), "--main_process_port", "0"]


def losses(run: Path) -> dict[int, float]:
    """By step; of a step that was taken twice, the later one."""
    rows = map(json.loads, (run / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def assert_equal_runs(one: Path, two: Path, *, loss: float, weights: float) -> None:
    assert len(losses(one)) == 4
    assert losses(two) == pytest.approx(losses(one), rel=loss)
    expected, found = (load_file(run / "adapter" / "adapter_model.safetensors") for run in (one, two))
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.linalg.norm(found[name] - weight) <= weights * torch.linalg.norm(weight), name
    of_one, of_two = (json.loads((run / "metrics.json").read_text(encoding="utf-8")) for run in (one, two))
    assert of_two["before"]["macro_f1"] == pytest.approx(of_one["before"]["macro_f1"])
    assert of_two["after"]["macro_f1"] == pytest.approx(of_one["after"]["macro_f1"])
    assert of_two["backbone_fingerprint"] == of_one["backbone_fingerprint"]


@pytest.mark.integration
def test_two_processes_with_half_a_backbone_each_train_as_one_and_resume(tmp_path: Path) -> None:
    given = ["model.dtype=fp32", "lora.lora_dropout=0"]
    one = trained(tmp_path / "một", [], *given, "train.per_device_train_batch_size=8")
    given += ["train.per_device_train_batch_size=4"]
    two = trained(tmp_path / "hai", launch("fsdp2.yaml"), *given)
    assert_equal_runs(one, two, loss=1e-4, weights=1e-2)

    whole = load_file(two / "adapter" / "adapter_model.safetensors")
    for path in (two / "adapter", two / "checkpoints" / "checkpoint-4"):
        shutil.rmtree(path)
    (two / "metrics.json").unlink()
    trained(two, launch("fsdp2.yaml"), *given, resume=True)
    again = load_file(two / "adapter" / "adapter_model.safetensors")
    assert all(torch.equal(again[name], weight) for name, weight in whole.items())
    found = loraft.load(two).predict(["thầy dạy rất nhiệt tình"])
    assert found[0].label in ("negative", "neutral", "positive")


@pytest.mark.integration
def test_two_processes_with_half_an_nf4_backbone_each_train_as_one(tmp_path: Path) -> None:
    given = ["model.dtype=fp32", "quant.method=nf4"]
    one = trained(tmp_path / "một", [], *given, "train.per_device_train_batch_size=8")
    two = trained(tmp_path / "hai", launch("fsdp_qlora.yaml"), *given, "train.per_device_train_batch_size=4")
    assert_equal_runs(one, two, loss=1e-4, weights=1e-2)


@pytest.mark.parametrize(
    ("processes", "value", "sharded"), [("2", "true", True), ("2", "false", False), ("1", "true", False)]
)
def test_a_backbone_is_in_shards_where_the_launcher_says_so(
    processes: str, value: str, sharded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", processes)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", value)
    assert distributed.is_sharded() is sharded


@pytest.mark.parametrize(
    ("variables", "settings", "message"),
    [
        ({"FSDP_VERSION": "1"}, [], r"accelerate: fsdp_version has to be 2 \(got 1\); see configs/accelerate"),
        ({}, ["lora.use_dora=true"], r"FSDP: .*\(got lora.use_dora=true\); leave it out, or train without FSDP"),
        (
            {"FSDP_OFFLOAD_PARAMS": "true"},
            ["lora.init_lora_weights=pissa"],
            r"FSDP: .*\(got fsdp_offload_params=true, lora.init_lora_weights=pissa\); leave it out",
        ),
    ],
)
def test_what_needs_a_whole_backbone_is_refused_before_anything_loads(
    variables: dict[str, str], settings: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    launched = {"WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    for name, value in (launched | variables).items():
        monkeypatch.setenv(name, value)
    refusal(["train", *(part for one in settings for part in ("--set", one))], message)
    assert list(tmp_path.iterdir()) == []
