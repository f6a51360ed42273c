"""`loraft plan`: the tutorial's figures from a config.json alone, verdicts, steps, and the time of a few of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.bad_input import refusal
from helpers.command_line import Says
from helpers.tiny import CONFIGS
from transformers import LlamaConfig

from loraft.config.resolve import resolve
from loraft.delivery import calibration, plan, plan_tables
from loraft.delivery.memory_plan import METHODS, Memory
from loraft.delivery.plan import Fit, Plan
from loraft.engine.loss import BatchMethod

# Source: config.json of meta-llama/Llama-3.2-1B-Instruct
LLAMA_1B = LlamaConfig(
    vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
    num_key_value_heads=8, head_dim=64, tie_word_embeddings=True,
)  # fmt: skip
FEW = ["data.max_train_rows=40", "data.max_eval_rows=8", "data.max_test_rows=8"]


class Cheap:
    """Stands in for the model without weights: memory that is proportional to the tokens."""

    parameters = (851_968, 1_236_666_368)

    def __init__(self, *given: Any) -> None:
        self.config, self.method = given[:2]

    def batch_method(self, rows: Any) -> BatchMethod:
        return BatchMethod.PADDED if self.config.train.shared_prefix == "off" else BatchMethod.FUSED

    def memory(self, rows: Any) -> Memory:
        weights = {"full": 16, "lora": 3, "qlora": 1}[self.method] * 2**30
        return Memory(weights, 0, 0, 2**17 * sum(len(row.input_ids) for row in rows))


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "Planned", Cheap)


def made(tmp_path: Path, *sets: str, **given: Any) -> Plan:
    CONFIGS["llama"].save_pretrained(tmp_path)
    config = resolve(flags={"model.name": str(tmp_path)}, overrides=[*FEW, *sets])
    return plan.plan(config, **given)


def test_the_tutorials_figures_come_from_a_config_json(tmp_path: Path, loraft_says: Says) -> None:
    LLAMA_1B.save_pretrained(tmp_path)
    code, out, _ = loraft_says("plan", "--preset", "tutorial", "--model", str(tmp_path), "--data", "feedback")
    assert code == 0
    assert "trainable params: 851,968 || all params: 1,236,666,368 || trainable%: 0.0689" in out.splitlines()
    assert "4.127 bits a quantised weight (QLoRA)" in out.splitlines()
    assert "training: 5,000 steps" in out  # as train.max_steps says
    assert "the backbone's tokenizer is not here" in out
    assert "time here" not in out  # there are no weights
    (t4,) = (line.split() for line in out.splitlines() if line.startswith(" T4 16 GB"))
    assert t4[3:] == ["13.26", "does", "not", "fit", "512", "512"]  # 0.95 * 14.75 - 0.75 GiB


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2"])
def test_a_config_json_is_enough_where_transformers_makes_up_an_empty_tokenizer(
    architecture: str, tmp_path: Path
) -> None:
    CONFIGS[architecture].save_pretrained(tmp_path)
    found = plan.plan(resolve(flags={"model.name": str(tmp_path)}, overrides=FEW), seconds=0)
    assert "the backbone's tokenizer is not here; tokens are counted by that of loraft-vi-tiny" in found.notes


def test_verdicts_agree_with_peaks() -> None:
    peaks = {"full": 40, "lora": 8, "qlora": 4}
    found = plan._fit(lambda method, dtype, size: Memory(peaks[method], 0, 0, size), 12, 4, dict.fromkeys(METHODS))  # type: ignore[arg-type]
    assert found == Fit(12, {"full": 0, "lora": 4, "qlora": 8}, {"full": False, "lora": True, "qlora": True})
    assert [plan_tables._verdict(found, method) for method in METHODS] == ["does not fit", "4", "8"]
    less = plan._fit(lambda method, dtype, size: Memory(8, 0, 0, size), 10, 4, dict.fromkeys(METHODS))  # type: ignore[arg-type]
    assert plan_tables._verdict(less, "lora") == "2, less than asked"


def test_verdicts_are_monotonic_in_length_and_memory(tmp_path: Path) -> None:
    found = [
        made(tmp_path, f"train.per_device_train_batch_size={batch}", length=length, seconds=0)
        for batch, length in ((2, 200), (4, 200), (4, 400))
    ]
    for method in METHODS:
        peaks = [one.methods[method].peak for one in found]
        assert peaks == sorted(set(peaks))
        for device in plan.CARDS:
            batches = [one.devices[device].batches[method] for one in found]
            assert batches[1] >= batches[2]
    cards = found[0].devices
    assert (
        cards["A100 80 GB"].batches["full"] >= cards["A100 40 GB"].batches["full"] >= cards["T4 16 GB"].batches["full"]
    )
    assert found[2].length == 400


def test_steps_and_tokens_are_those_of_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = ("train.per_device_train_batch_size=4", "train.gradient_accumulation_steps=3", "train.num_train_epochs=1.5")
    found = made(tmp_path, *sets, length=200, seconds=0)
    assert found.steps == 6  # 40 rows are 10 batches and 4 windows, in 1.5 epochs 6
    assert found.padded_tokens == 6 * 12 * 200
    assert found.tokens is not None
    assert found.tokens < found.padded_tokens
    assert found.shared_prefix
    off = made(tmp_path, *sets, "train.shared_prefix=off", length=200, seconds=0)
    assert off.tokens == off.padded_tokens
    assert not off.shared_prefix
    monkeypatch.setattr(Cheap, "batch_method", lambda *given: BatchMethod.PADDED)  # as the architecture needs it
    assert not made(tmp_path, *sets, length=200, seconds=0).shared_prefix


def test_the_time_is_that_of_a_few_real_steps() -> None:
    found = plan.plan(resolve(overrides=FEW), seconds=0.01)
    assert found.calibration is not None
    assert found.calibration.steps == calibration.LEAST_STEPS
    assert found.seconds == found.calibration.seconds_per_step * 9  # 40 rows, batches of 16, 3 epochs
    assert found.calibration.method == "fused layers"


def test_json_holds_the_numbers(tmp_path: Path, loraft_says: Says) -> None:
    CONFIGS["llama"].save_pretrained(tmp_path)
    code, out, _ = loraft_says(
        "plan", "--model", str(tmp_path), "--json", *(word for one in FEW for word in ("--set", one))
    )
    found = json.loads(out)
    assert code == 0
    assert found["methods"]["lora"]["weights"] == 3 * 2**30
    assert found["methods"]["lora"]["peak"] == sum(
        found["methods"]["lora"][part] for part in ("weights", "activations")
    )
    assert found["devices"]["T4 16 GB"]["fits"] == {"full": False, "lora": True, "qlora": True}
    assert found["seconds"] is None


def test_a_figure_is_drawn_and_no_foreign_file_replaced(tmp_path: Path, loraft_says: Says) -> None:
    CONFIGS["llama"].save_pretrained(tmp_path)
    given = ["plan", "--model", str(tmp_path), *(word for one in FEW for word in ("--set", one))]
    file = tmp_path / "hình.png"
    assert loraft_says(*given, "--figure", str(file))[0] == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    refusal([*given, "--figure", str(file)], "^error: --figure: exists", "--force", folder=tmp_path)
    refusal([*given, "--figure", "a.pdf"], r"--figure: is drawn as PNG \(got a.pdf\); name a file that ends in .png")
    assert not Path("a.pdf").exists()


def test_what_cannot_be_planned_is_refused(here: Path) -> None:
    CONFIGS["llama"].save_pretrained(here)
    refusal(["plan", "--model", "khong-co"], "no such backbone")
    refusal(["plan", "--model", str(here), "--data", "./khong-co"], "khong-co", folder=here)
    refusal(["plan", "--length", "20"], r"--length: prompt and answer alone take \d+ tokens \(got 20\)")
    refusal(["plan", "--length", "0"], "--length")
    refusal(["plan", "--length", "5000"], r"--length: .* at most \d+ tokens \(got 5000\); .*prompt.max_length")


def test_a_machine_that_holds_no_batch_still_gets_its_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(plan, "calibrated", full)
    found = plan.plan(resolve(overrides=FEW), seconds=0.01)
    assert found.seconds is None
    assert found.notes[-1] == "the time is not known: this machine's memory does not hold a batch"
