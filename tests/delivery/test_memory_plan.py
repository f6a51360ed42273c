"""Memory is counted from a config alone: it is what torch allocates, and grows with batch and length."""

import sys
from pathlib import Path

import pytest
import torch
from helpers.tiny import CONFIGS, EXPERTS
from transformers import LlamaConfig, MixtralConfig

from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.delivery.live_bytes import LiveBytes
from loraft.delivery.memory_plan import METHODS, Memory, Planned, bits_per_weight, largest_batch, longest
from loraft.engine.collator import TrainingRow
from loraft.errors import BackboneError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CPU = torch.device("cpu")
MIB = 2**20


def rows(count: int, length: int, prefix: int = 20) -> list[TrainingRow]:
    """Rows that share a prompt; the answer has three tokens."""
    return [TrainingRow([5] * prefix + [6 + i] * (length - prefix), length - 3, 0, 1.0) for i in range(count)]


def tiny(folder: Path, *sets: str, architecture: str = "llama") -> Config:
    CONFIGS[architecture].save_pretrained(folder)
    return resolve(flags={"model.name": str(folder)}, overrides=["lora.r=4", *sets])


def planned(config: Config, method: str = "lora") -> Planned:
    return Planned(config, method, torch.float32, CPU)


# --- counting ---------------------------------------------------------------------------------------------------------


def test_what_lives_is_counted_and_what_is_gone_is_not() -> None:
    weight = torch.empty(1024, 1024, device="meta", requires_grad=True)
    with LiveBytes([weight]) as live:
        x = torch.zeros(1024, 1024)  # on the meta device here
        assert x.is_meta
        assert live.now == 4 * MIB
        y = (x @ weight).relu()
        assert live.now == 8 * MIB  # the product is gone
        assert live.peak == 12 * MIB
        y.sum().backward()
        del x, y
        assert live.now == 4 * MIB  # the gradient
    assert live.peak >= 12 * MIB


def test_no_signal_is_lost_when_a_tensor_goes() -> None:
    calls = []
    with LiveBytes([]) as live:
        x = torch.zeros(1024, 1024)
        sys.setprofile(lambda frame, event, arg: calls.append(event))
        del x
        sys.setprofile(None)
        assert live.now == 0
    assert "call" not in calls  # no Python code runs, in which a signal's exception would be dropped


def test_whole_numbers_are_computed_for_shapes_depend_on_them() -> None:
    scores = torch.empty(6, 10, device="meta")
    with LiveBytes([scores]):
        assert scores[torch.tensor([1, 0, 1, 0, 0, 1], dtype=torch.bool)].shape == (3, 10)
        assert torch.arange(5, device="meta").tolist() == [0, 1, 2, 3, 4]


def test_a_4_bit_weight_is_dequantised_while_an_operation_reads_it() -> None:
    weight = torch.empty(1024, 1024, device="meta")
    with LiveBytes([weight], {weight.untyped_storage()._cdata: 2 * MIB}) as live:
        x = torch.zeros(8, 1024)
        y = x @ weight
        assert live.now == x.nbytes + y.nbytes
        assert live.peak == live.now + 2 * MIB


# --- parts ------------------------------------------------------------------------------------------------------------


def test_bits_of_a_quantised_weight_follow_from_the_block_sizes() -> None:
    # Dettmers et al. 2023, section 3: 32 bits a block of 64, or 8 bits and 32 bits for 256 blocks
    assert bits_per_weight(double_quant=False) == 4 + 32 / 64
    assert bits_per_weight(double_quant=True) == 4 + 8 / 64 + 32 / (64 * 256)


def test_weights_gradients_and_optimizer_are_those_of_the_shapes(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    memories = {method: planned(config, method).memory(rows(2, 40)) for method in METHODS}
    trainable, total = planned(config).parameters
    frozen = total - trainable
    full, lora, qlora = (memories[method] for method in METHODS)
    assert full.weights == full.gradients == full.optimizer // 2 == 4 * frozen
    assert lora.weights == 4 * total
    assert lora.gradients == qlora.gradients == lora.optimizer // 2 == 4 * trainable
    linear = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)  # q, o; k, v; gate, up, down of two layers
    assert qlora.weights == 4 * (total - linear) + int(linear * bits_per_weight(double_quant=True) / 8)
    assert lora.peak == lora.weights + lora.gradients + lora.optimizer + lora.activations


@pytest.mark.parametrize(("optim", "bytes_"), [("adamw_torch", 8), ("adamw_8bit", 2), ("sgd", 0)])
def test_the_optimizer_is_the_configs(tmp_path: Path, optim: str, bytes_: int) -> None:
    made = planned(tiny(tmp_path, f"train.optim={optim}"))
    assert made.optimizer == bytes_ * made.parameters[0]


@pytest.mark.parametrize("method", METHODS)
def test_memory_grows_with_batch_and_length(tmp_path: Path, method: str) -> None:
    made = planned(tiny(tmp_path), method)
    by_batch = [made.memory(rows(batch, 60)).peak for batch in (1, 4, 16)]
    by_length = [made.memory(rows(4, length)).peak for length in (30, 60, 240)]
    assert by_batch == sorted(set(by_batch))
    assert by_length == sorted(set(by_length))


def test_the_settings_of_a_training_are_seen(tmp_path: Path) -> None:
    batch = rows(16, 200, prefix=180)
    plain, padded, again = (
        planned(tiny(tmp_path, *sets)).memory(batch).activations
        for sets in ((), ("train.shared_prefix=off",), ("train.gradient_checkpointing=true",))
    )
    assert again < plain < padded


@pytest.mark.parametrize("method", ["full", "lora"])
def test_rows_of_different_lengths_are_padded_to_the_longest(tmp_path: Path, method: str) -> None:
    made = planned(tiny(tmp_path, "train.shared_prefix=off"), method)
    uneven, even = (made.memory([*rows(1, 60), *rows(1, short)]).activations for short in (40, 60))
    # They need a mask, and logits at the positions at which either row predicts an answer token: six, not three.
    assert even + 3 * 2 * 8192 * 4 < uneven < 2 * even


@pytest.mark.parametrize("architecture", ["qwen3", "gpt_neox", "gemma2"])
def test_no_architecture_is_known_by_name(tmp_path: Path, architecture: str) -> None:
    made = planned(tiny(tmp_path, "lora.target_modules=default", architecture=architecture))
    assert made.memory(rows(4, 60)).activations > 4 * 60 * 32 * 4  # the hidden states at least


@pytest.mark.parametrize("method", ["full", "lora"])
def test_experts_are_counted_in_fp32_too(tmp_path: Path, method: str) -> None:
    MixtralConfig(**EXPERTS["mixtral"]).save_pretrained(tmp_path)
    made = planned(resolve(flags={"model.name": str(tmp_path)}, overrides=["lora.r=4"]), method)
    assert made.memory(rows(4, 60)).activations > 4 * 60 * 32 * 4


def test_an_architecture_that_needs_its_weights_is_named(tmp_path: Path) -> None:
    made = planned(tiny(tmp_path))
    vars(made.model)["forward"] = lambda *given, **named: 1 / 0
    with pytest.raises(BackboneError, match=r"model_type 'llama' cannot be computed .*ZeroDivisionError"):
        made.memory(rows(1, 30))


# --- what fits --------------------------------------------------------------------------------------------------------


def test_the_largest_batch_is_the_last_power_of_two_that_fits() -> None:
    by_rows = {size: Memory(100, 0, 0, 10 * size) for size in (4, 16)}
    assert largest_batch(by_rows, 139) == 0
    assert largest_batch(by_rows, 140) == 4
    assert largest_batch(by_rows, 100 + 10 * 64) == 64
    assert largest_batch(by_rows, 100 + 10 * 64 - 1) == 32
    assert largest_batch({1: Memory(100, 0, 0, 10)} | by_rows, 125) == 2


def test_the_longest_rows_make_the_batch_that_needs_most() -> None:
    given = [*rows(2, 30), *rows(1, 60), *rows(2, 50)]
    assert [len(row.input_ids) for row in longest(given, 3)] == [60, 50, 50]
    assert [len(row.input_ids) for row in longest(given[:2], 3)] == [30, 30, 30]


def test_the_tutorials_adapter_is_counted_as_peft_does(tmp_path: Path) -> None:
    # Source: config.json of meta-llama/Llama-3.2-1B-Instruct
    LlamaConfig(
        vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
        num_key_value_heads=8, head_dim=64, tie_word_embeddings=True,
    ).save_pretrained(tmp_path)  # fmt: skip
    config = resolve(preset="tutorial", flags={"model.name": str(tmp_path)})
    made = Planned(config, "lora", torch.bfloat16, CPU)
    assert made.parameters == (851_968, 1_236_666_368)
    assert made.weights == 2 * (1_236_666_368 - 851_968) + 4 * 851_968


# --- measured -------------------------------------------------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library is told by variables of glibc")
def test_a_trainings_peak_is_as_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import memory

    toy = tmp_path / "toy"
    memory.AutoModelForCausalLM.from_config(memory.BACKBONES["toy"]).save_pretrained(toy)
    setting = memory.Setting(memory.TINY, "none", 8, 256)
    predicted = memory.predicted(setting, tmp_path, "cpu")["predicted_mib"]
    measured = memory.in_a_process(setting, tmp_path, "cpu", **memory.GIVEN_BACK)["measured_mib"]
    assert predicted == pytest.approx(measured, rel=0.15)
