"""Training with the shared prefix takes the steps of padded training; and the duties of the trainer itself."""

import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import CONFIGS, HEADS, LONG_ROPE, SENTENCES, SMALL, random_model, tokenizer
from helpers.training import PAD, assert_same, fit, loss_and_gradients, rows, with_adapter
from peft import PeftModel
from safetensors.torch import load_file
from torch.utils.data import RandomSampler
from transformers import AutoConfig, AutoModelForCausalLM, MistralConfig, MixtralConfig

from loraft.config.schema import LoraSection, ModelConfig, QuantConfig, TrainConfig
from loraft.engine.collator import TrainingRow, pack, pad
from loraft.engine.loss import BatchMethod, answer_loss_sum
from loraft.errors import Note
from loraft.models.adapter import add_adapter
from loraft.models.backbone import load_backbone
from loraft.training import memory
from loraft.training.dataset import TrainingData
from loraft.training.mode_switches import cheap_mode_switches
from loraft.training.samplers import BalancedSampler, LengthSampler
from loraft.training.trainer import LabelTrainer


def trainer_of(
    folder: Path, model: PeftModel | None = None, batch: list[TrainingRow] | None = None, **train: Any
) -> LabelTrainer:
    """A trainer of one step, not started yet."""
    section = TrainConfig(**{"max_steps": 1, "per_device_train_batch_size": 6, "warmup_steps": 0, **train})
    data = TrainingData(batch or rows(), tokenizer(), lambda current: {"macro_f1": 0.5})
    return LabelTrainer.build(model or with_adapter(), data, section, output_dir=str(folder), seed=3)


def weights(model: PeftModel) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


# --- the steps --------------------------------------------------------------------------------------------------------


def test_training_with_the_shared_prefix_takes_the_same_steps(tmp_path: Path) -> None:
    shared, plain = with_adapter(), with_adapter()
    frozen = {n: p.detach().clone() for n, p in shared.named_parameters() if not p.requires_grad}
    losses = fit(tmp_path / "a", shared), fit(tmp_path / "b", plain, shared_prefix="off")
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][-1] < losses[0][0]
    expected = weights(plain)
    for name, weight in weights(shared).items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-4)
    assert all(torch.equal(p, frozen[n]) for n, p in shared.named_parameters() if not p.requires_grad)


def test_gradient_accumulation_and_activation_checkpointing_change_nothing(tmp_path: Path) -> None:
    whole = fit(tmp_path / "a", with_adapter(), per_device_train_batch_size=4)
    parts = fit(
        tmp_path / "b",
        with_adapter(),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        gradient_checkpointing=True,
    )
    assert parts == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize(("room", "rows_at_once"), [(0.9, {2}), (0.0, {1})])
def test_where_memory_is_short_a_step_has_the_same_rows_in_smaller_batches(
    tmp_path: Path, room: float, rows_at_once: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = with_adapter()
    losses = fit(tmp_path / "a", whole, per_device_train_batch_size=4, max_steps=3)
    seen: set[int] = set()
    collate = LabelTrainer._collate
    monkeypatch.setattr(LabelTrainer, "_collate", lambda self, items: seen.add(len(items)) or collate(self, items))
    parts = with_adapter()
    needed = memory._batch_bytes(parts, *memory._lengths(rows("balanced"), 4), 4, packed=True)
    monkeypatch.setattr(memory, "free_bytes", lambda device: room * needed / memory.SHARE)
    with pytest.warns(Note, match="may not fit into the free memory"):
        found = fit(tmp_path / "b", parts, per_device_train_batch_size=4, max_steps=3)
    assert found == pytest.approx(losses, rel=1e-4)
    assert seen == rows_at_once  # of 6 rows: 4 and 2 a step
    assert any(getattr(layer, "gradient_checkpointing", False) for layer in parts.modules()) == (room == 0)
    for name, weight in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("saved", [["lm_head", "embed_tokens"], ["input_layernorm"]])
def test_modules_that_are_trained_whole_have_the_gradients_of_padded_batches(saved: list[str]) -> None:
    model = with_adapter(modules_to_save=saved)
    assert_same(model, rows())
    assert sum(".modules_to_save." in name for name, p in model.named_parameters() if p.grad is not None) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_and_experts_are_trained_in_fp32_and_the_best_ones_are_kept(dtype: torch.dtype, tmp_path: Path) -> None:
    base = AutoModelForCausalLM.from_config(MixtralConfig(**SMALL, **HEADS, num_local_experts=4)).to(dtype)
    experts = ["mlp.experts.down_proj"]
    section = LoraSection(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"], target_parameters=experts)
    model = add_adapter(base.requires_grad_(False), section, seed=1)
    before = weights(model)
    assert {weight.dtype for weight in before.values()} == {torch.float32}
    assert sum("lm_head" in name for name in before) == 1
    assert sum("experts" in name for name in before) == 4  # A and B of two layers
    fit(tmp_path, model, eval_steps=2, shared_prefix="off")  # the best scores are those of step 4 of 6
    kept = load_file(tmp_path / "checkpoint-4" / "adapter_model.safetensors")
    last = load_file(tmp_path / "checkpoint-6" / "adapter_model.safetensors")
    own = weights(model)
    found = {name.replace("modules_to_save.default.", "").replace(".default", ""): own[name] for name in own}
    assert found.keys() == kept.keys()
    assert all(torch.equal(weight, kept[name]) for name, weight in found.items())
    assert not torch.equal(found["base_model.model.lm_head.weight"], last["base_model.model.lm_head.weight"])
    assert not any(torch.equal(own[name], before[name]) for name in own)


@pytest.mark.parametrize(("sampling", "saved"), [("natural", []), ("balanced", []), ("natural", ["lm_head"])])
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, sampling: str, saved: list[str]) -> None:
    whole = with_adapter(modules_to_save=saved)
    fit(tmp_path / "a", whole, eval_steps=2, sampling=sampling)
    checkpoints = sorted((tmp_path / "a").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for later in checkpoints[1:]:
        later.rename(tmp_path / later.name)
    resumed = with_adapter(modules_to_save=saved)
    fit(tmp_path / "a", resumed, eval_steps=2, resume=True, sampling=sampling)
    assert checkpoints[0].name != "checkpoint-6"
    expected = weights(whole)
    for name, weight in weights(resumed).items():
        torch.testing.assert_close(weight, expected[name])


@pytest.mark.parametrize("sampling", ["balanced", "by_length"])
def test_the_same_training_gives_the_same_adapter_bit_for_bit(tmp_path: Path, sampling: str) -> None:
    def trained(name: str) -> bytes:
        model = with_adapter(lora_dropout=0.1)
        fit(tmp_path / name, model, sampling=sampling, max_steps=4)
        torch.rand(7)  # other draws between two trainings change nothing
        model.save_pretrained(str(tmp_path / name))
        return (tmp_path / name / "adapter_model.safetensors").read_bytes()

    assert trained("a") == trained("b")


def test_early_stopping_counts_evaluations_without_a_better_macro_f1(tmp_path: Path) -> None:
    losses = fit(tmp_path, with_adapter(), max_steps=20, eval_steps=2, early_stopping_patience=2)
    assert len(losses) == 8  # best at step 4, then two evaluations without a better one


def test_a_step_goes_no_further_than_the_clipped_gradient(tmp_path: Path) -> None:
    model = with_adapter()
    before = weights(model)
    trainer = trainer_of(tmp_path, model, optim="sgd", learning_rate=0.5, max_grad_norm=0.01, logging_steps=1)
    trainer.train()
    assert next(line["grad_norm"] for line in trainer.state.log_history if "grad_norm" in line) > 0.01
    moved = torch.cat([(weight - before[name]).flatten() for name, weight in weights(model).items()])
    assert float(moved.norm()) == pytest.approx(0.5 * 0.01, rel=1e-3)


def test_all_modules_train_at_each_step_and_none_while_they_are_scored(tmp_path: Path) -> None:
    modes: list[set[bool]] = []

    class Watched(LabelTrainer):
        def compute_loss(self, model: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            modes.append({module.training for module in model.modules()})
            return super().compute_loss(model, *args, **kwargs)

    def judged(model: torch.nn.Module) -> dict[str, float]:
        modes.append({module.training for module in model.modules()})
        return {"macro_f1": 0.5, "loss": 0.25}

    section = TrainConfig(max_steps=3, eval_steps=2, shared_prefix="off")
    data = TrainingData(rows(), tokenizer(), judged)
    trainer = Watched.build(with_adapter(), data, section, output_dir=str(tmp_path), seed=3)
    trainer.train()
    assert modes == [{True}, {True}, {False}, {True}, {False}]
    # Scored and saved every 2 steps, and after the last one.
    scores = [line for line in trainer.state.log_history if "eval_macro_f1" in line]
    assert [(line["step"], line["eval_macro_f1"], line["eval_loss"]) for line in scores] == [
        (2, 0.5, 0.25),
        (3, 0.5, 0.25),
    ]
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-3"}


# --- the loss ---------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_over_the_answer_tokens_of_the_window(tmp_path: Path) -> None:
    model = with_adapter()
    trainer = trainer_of(tmp_path, model, shared_prefix="off")
    inputs = pad(rows("balanced"), PAD)
    total = answer_loss_sum(model, inputs, torch.float32).item()
    answers = len(inputs["weights"])
    assert trainer.compute_loss(model, inputs).item() == pytest.approx(total / answers)
    loss, outputs = trainer.compute_loss(model, inputs, return_outputs=True, num_items_in_batch=4 * answers)
    assert loss.item() == pytest.approx(total / (4 * answers))
    assert outputs is None
    assert trainer.losses_A.tolist() == pytest.approx([total / answers * 1.25])
    assert trainer.tokens_seen == 2 * inputs["input_ids"].numel()


def test_a_batch_that_was_packed_before_the_check_is_unpacked(tmp_path: Path) -> None:
    model = with_adapter()
    trainer = trainer_of(tmp_path, model)
    trainer.method, trainer._checked = BatchMethod.PADDED, True
    expected = trainer.compute_loss(model, pad(rows(), PAD)).item()
    assert trainer.compute_loss(model, pack(rows())).item() == pytest.approx(expected)
    assert trainer.tokens_seen == 2 * pad(rows(), PAD)["input_ids"].numel()


def test_gradients_of_several_processes_are_averaged_over_all_their_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = with_adapter()
    trainer = trainer_of(tmp_path, model, shared_prefix="off")
    inputs = pad(rows(), PAD)
    alone = trainer.compute_loss(model, inputs, num_items_in_batch=100).item()
    monkeypatch.setattr(type(trainer.accelerator), "num_processes", 4)
    assert trainer.compute_loss(model, inputs, num_items_in_batch=100).item() == pytest.approx(4 * alone)


# --- how batches are computed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "lora", "train", "method"),
    [
        ("llama", {}, {}, BatchMethod.FUSED),
        ("llama", {}, {"shared_prefix": "off"}, BatchMethod.PADDED),
        ("llama", {}, {"gradient_checkpointing": True}, BatchMethod.ATTENTION),
        ("llama", {"use_dora": True}, {}, BatchMethod.ATTENTION),
        ("llama", {"modules_to_save": ["lm_head", "embed_tokens"]}, {}, BatchMethod.FUSED),
        ("llama", {"modules_to_save": ["input_layernorm"]}, {}, BatchMethod.ATTENTION),
        ("qwen3", {}, {}, BatchMethod.ATTENTION),
        ("gemma2", {}, {}, BatchMethod.MASK),
    ],
)
def test_the_fastest_method_that_the_architecture_suits_is_chosen(
    architecture: str, lora: dict[str, Any], train: dict[str, Any], method: BatchMethod, tmp_path: Path
) -> None:
    trainer = trainer_of(tmp_path, with_adapter(architecture, **lora), **train)
    assert trainer.method is method
    assert trainer.shared_prefix == (method is not BatchMethod.PADDED)


def collated(trainer: LabelTrainer, count: int) -> dict[str, torch.Tensor]:
    return trainer._collate([{"row": row} for row in range(count)])


def test_rows_are_packed_where_that_saves_tokens(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    packed = collated(trainer, 6)
    assert packed["input_ids"].tolist() == pack(rows())["input_ids"].tolist()
    assert "segments" not in collated(trainer, 1)  # one row has nothing to share
    plain = collated(trainer_of(tmp_path, shared_prefix="off"), 6)
    assert plain["input_ids"].tolist() == pad(rows(), PAD)["input_ids"].tolist()


def test_rows_beyond_a_sliding_window_are_padded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    longest = max(len(row.input_ids) for row in rows())
    for window, packed in ((longest, True), (longest - 1, False), (None, True)):
        small = MistralConfig(**{**CONFIGS["mistral"].to_diff_dict(), "sliding_window": window})
        monkeypatch.setitem(CONFIGS, "mistral", small)
        told = nullcontext() if packed else pytest.warns(Note, match=f"window of {window} tokens; their batches are")
        with told:
            trainer = trainer_of(tmp_path, with_adapter("mistral"))
        assert ("segments" in collated(trainer, 6)) is packed


@pytest.mark.parametrize("architecture", ["lfm2", "qwen3_5_text", "bloom"])
def test_recurrent_and_alibi_backbones_train_on_padded_batches(architecture: str, tmp_path: Path) -> None:
    with pytest.warns(Note, match="(recurrent|takes no position ids).*; their batches are padded"):
        losses = fit(tmp_path / "a", with_adapter(architecture), max_steps=2)
    assert losses == fit(tmp_path / "b", with_adapter(architecture), max_steps=2, shared_prefix="off")


@pytest.mark.parametrize("architecture", ["phi3", "llama"])
def test_each_row_trains_with_the_rotary_frequencies_of_its_own_length(architecture: str, tmp_path: Path) -> None:
    base = random_model(AutoConfig.for_model(architecture, **LONG_ROPE[architecture]))
    model = add_adapter(base, LoraSection(r=2, target_modules="all-linear"), seed=1)
    lengths, ids = (12, 24, 15, 31, 24, 16), range(100, 140)
    batch = [TrainingRow([*ids[:count], 7, 8], count, 0, 1.0 + count) for count in lengths]
    with pytest.warns(Note, match="training: this backbone's rotary frequencies change in rows of more than 16 tokens"):
        trainer = trainer_of(tmp_path, model, batch)
    inputs = trainer._collate([{"row": n} for n in range(len(batch))])
    with torch.no_grad():
        alone = [answer_loss_sum(model, pad([row], PAD), torch.float32) for row in batch]
        assert float(trainer.compute_loss(model, inputs)) == pytest.approx(float(sum(alone)) / 12, rel=1e-5)
    assert trainer.shared_prefix  # rows that fit go on to share the prompt


def test_experts_train_on_packed_batches_without_a_loss_of_the_router(tmp_path: Path) -> None:
    model = with_adapter("mixtral")
    model.config.output_router_logits = True
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module="loraft")
        losses = fit(tmp_path / "a", model, max_steps=2)
    assert not model.config.output_router_logits
    padded = fit(tmp_path / "b", with_adapter("mixtral"), max_steps=2, shared_prefix="off")
    assert losses == pytest.approx(padded, rel=1e-4)  # as for other architectures above


@pytest.mark.parametrize(
    ("sampling", "kind"), [("natural", RandomSampler), ("balanced", BalancedSampler), ("by_length", LengthSampler)]
)
def test_rows_come_in_the_order_of_the_config(sampling: str, kind: type, tmp_path: Path) -> None:
    batch = rows(texts=[*SENTENCES, *SENTENCES], labels=[0] * 12)
    trainer = trainer_of(
        tmp_path, batch=batch, sampling=sampling, per_device_train_batch_size=2, gradient_accumulation_steps=3,
        shared_prefix="off",
    )  # fmt: skip
    sampler = trainer._get_train_sampler(trainer.train_dataset)
    assert type(sampler) is kind
    if isinstance(sampler, LengthSampler):
        assert (sampler.window, sampler.seed) == (6, 3)
        assert sampler.lengths == [len(row.input_ids) for row in batch]
    if isinstance(sampler, BalancedSampler):
        assert (len(sampler), sampler.seed) == (12, 3)


def test_an_adapter_on_a_quantised_backbone_trains_in_fp32(tmp_path: Path) -> None:
    base = load_backbone(ModelConfig(dtype="fp32"), QuantConfig(method="nf4", compute_dtype="fp32"))
    model = add_adapter(base, LoraSection(r=2), seed=1)
    trainer = trainer_of(tmp_path, model)
    assert {weight.dtype for weight in trainer._trained} == {torch.float32}
    assert trainer._dtype == next(base.parameters()).dtype


def test_upstreams_estimate_of_operations_is_not_made(tmp_path: Path) -> None:
    assert trainer_of(tmp_path).floating_point_ops({}) == 0


# --- modes and gradients ----------------------------------------------------------------------------------------------


def test_modes_and_gradients_change_as_without_shortcuts() -> None:
    model = with_adapter(lora_dropout=0.1)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {module.training for module in model.modules()} == {True, False}  # as `add_adapter` leaves it
    with cheap_mode_switches(model, trained):
        for mode in (True, True, False, False, True):
            assert model.train(mode) is model
            assert {module.training for module in model.modules()} == {mode}
        model.eval()
        assert not any(module.training for module in model.modules())
        loss_and_gradients(model, pack(rows()))
        assert all(parameter.grad is not None for parameter in trained)
        model.zero_grad()
        assert all(parameter.grad is None for parameter in trained)
    assert not {"train", "zero_grad"} & set(vars(model))
