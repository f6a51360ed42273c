"""Shared-prefix training equals padded training: loss, every gradient, every step; and the trainer's own duties."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import CONFIGS, SENTENCES, backbone, encoder
from helpers.training import PAD, assert_same, fit, loss_and_gradients, rows, with_adapter
from peft import PeftModel

from loraft.config.schema import LoraSection, TrainConfig
from loraft.engine import collator
from loraft.engine.collator import IGNORE, TrainingRow, first_rows, pack, pad, rows_of, unpack
from loraft.engine.layout import bucket_size
from loraft.engine.loss import answer_loss_sum, packed_suffixes
from loraft.engine.prefix_attention import supports
from loraft.models.adapter import add_adapter
from loraft.training.arguments import sft_config
from loraft.training.samplers import BalancedSampler
from loraft.training.trainer import LabelTrainer, cheap_mode_switches


@pytest.mark.parametrize("architecture", CONFIGS)
def test_loss_and_all_gradients_equal_the_padded_batch(architecture: str) -> None:
    assert_same(with_adapter(architecture), rows())


@pytest.mark.parametrize("lora", [{"use_dora": True}, {"use_rslora": True}, {"init_lora_weights": "gaussian"}])
def test_adapter_variants_agree_too(lora: dict[str, Any]) -> None:
    assert_same(with_adapter(**lora), rows())


def test_the_common_architectures_take_the_fast_attention() -> None:
    assert [name for name in CONFIGS if supports(backbone(name))] == ["llama", "qwen2", "qwen3", "gpt_neox"]


def test_one_row_equal_rows_and_class_weights_agree() -> None:
    model = with_adapter()
    assert_same(model, rows()[:1])
    assert_same(model, rows()[:1] * 4)
    assert_same(model, rows("balanced"))


def test_padded_loss_is_the_textbook_cross_entropy() -> None:
    model, batch = with_adapter(), rows()
    expected = 0.0
    for row in batch:
        ids = torch.tensor([row.input_ids])
        labels = ids.clone()
        labels[:, : row.answer_start] = IGNORE
        expected += float(model(input_ids=ids, labels=labels).loss) * (len(row.input_ids) - row.answer_start)
    assert float(answer_loss_sum(model, pad(batch, PAD), torch.float32)) == pytest.approx(expected, rel=1e-5)


def test_masked_labels_are_exactly_the_completion() -> None:
    for row, inputs in ((row, pad([row], PAD)) for row in rows()):
        supervised = inputs["labels"][0][inputs["labels"][0] != IGNORE].tolist()
        assert supervised == encoder().completion(row.label)
        assert inputs["labels"][0, row.answer_start - 1] == IGNORE


def test_the_prefix_stops_before_the_token_that_predicts_the_answer() -> None:
    for batch in (rows(), rows()[:1] * 3):
        inputs = pack(batch)
        prefix = int((inputs["segments"] == 0).sum())
        assert prefix <= min(row.answer_start for row in batch) - 1
        assert prefix > 60  # the instruction is shared


def test_a_packed_batch_is_filled_up_to_a_size_that_comes_back() -> None:
    filled = 0
    for batch in (rows(), rows()[:1], rows()[:1] * 4, rows()[1:4], rows()[2:]):
        inputs = pack(batch)
        tokens, own = inputs["input_ids"].shape[1], int((inputs["segments"] == 0).sum())
        own += sum(len(row.input_ids) - own for row in batch)
        assert tokens == bucket_size(own) >= own
        assert inputs["suffix_index"].shape[1] % 8 == 0
        assert len(inputs["position_ids"][0]) == len(inputs["segments"]) == len(inputs["labels"][0]) == tokens
        assert int(inputs["position_ids"].max()) < max(len(row.input_ids) for row in batch)
        assert rows_of(inputs) == [replace(row, label=0) for row in batch]
        filled += tokens - own
    assert filled > 0


def test_attention_is_one_square_where_that_is_little_more_work() -> None:
    def grid_of(batch: list[TrainingRow]) -> tuple[int, ...]:
        inputs = pack(batch)
        positions = (inputs["labels"][0] != IGNORE).nonzero().squeeze(1) - 1
        suffix_BS, see_BSS, kept_BQ, _ = packed_suffixes(inputs, positions)
        assert see_BSS.shape == (*suffix_BS.shape, suffix_BS.shape[1])
        assert int((kept_BQ >= 0).sum()) == len(positions)
        return tuple(suffix_BS.shape)

    assert grid_of(rows()) == (1, pack(rows())["input_ids"].shape[1])
    assert grid_of(rows() * 10) == (60, pack(rows() * 10)["suffix_index"].shape[1])


def test_rows_of_a_batch_are_compared_by_the_attention_that_all_of_it_takes() -> None:
    for batch, square in ((rows(), True), (rows() * 10, False)):
        few = first_rows(pack(batch), 4)
        positions = (few["labels"][0] != IGNORE).nonzero().squeeze(1) - 1
        assert collator.uses_whole_row_attention(pack(batch)) == square
        assert collator.uses_whole_row_attention(pack(batch[:4]))
        assert len(packed_suffixes(few, positions)[0]) == (1 if square else 4)


def test_packing_and_unpacking_is_padding() -> None:
    expected = pad(rows("balanced"), PAD)
    for key, value in unpack(pack(rows("balanced")), PAD).items():
        torch.testing.assert_close(value, expected[key])


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


def test_balanced_class_weights_have_mean_one_and_give_each_label_the_same_total() -> None:
    batch = rows("balanced")
    assert sum(row.weight for row in batch) == pytest.approx(len(batch))
    totals = [sum(row.weight for row in batch if row.label == label) for label in range(3)]
    assert totals == pytest.approx([2, 2, 2])


def weights(model: PeftModel) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def test_training_with_the_shared_prefix_takes_the_same_steps(tmp_path: Path) -> None:
    shared, plain = with_adapter(), with_adapter()
    losses = fit(tmp_path / "a", shared), fit(tmp_path / "b", plain, shared_prefix="off")
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][-1] < losses[0][0]
    expected = weights(plain)
    for name, weight in weights(shared).items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-4)


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


def test_the_backbone_is_bit_identical_after_training(tmp_path: Path) -> None:
    model = with_adapter()
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    before = weights(model)
    fit(tmp_path, model)
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if not p.requires_grad)
    assert any(not torch.equal(p, before[n]) for n, p in model.named_parameters() if p.requires_grad)


@pytest.mark.parametrize("sampling", ["natural", "balanced"])
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, sampling: str) -> None:
    whole = with_adapter()
    fit(tmp_path / "a", whole, eval_steps=2, sampling=sampling)
    checkpoints = sorted((tmp_path / "a").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for later in checkpoints[1:]:
        later.rename(tmp_path / later.name)
    resumed = with_adapter()
    fit(tmp_path / "a", resumed, eval_steps=2, resume=True, sampling=sampling)
    assert checkpoints[0].name != "checkpoint-6"
    expected = weights(whole)
    for name, weight in weights(resumed).items():
        torch.testing.assert_close(weight, expected[name])


def test_early_stopping_counts_evaluations_without_a_better_macro_f1(tmp_path: Path) -> None:
    losses = fit(tmp_path, with_adapter(), max_steps=20, eval_steps=2, early_stopping_patience=2)
    assert len(losses) == 8  # best at step 4, then two evaluations without a better one


def test_balanced_sampling_draws_every_label_as_often() -> None:
    batch = rows(texts=[f"{SENTENCES[0]} {i}" for i in range(100)], labels=[0] * 90 + [1] * 5 + [2] * 5)
    drawn = [batch[i % 100].label for i in BalancedSampler([row.label for row in batch * 20], seed=3)]
    assert len(drawn) == 2000
    for label in range(3):  # 4.7 standard deviations of a binomial with p = 1/3
        assert abs(drawn.count(label) / 2000 - 1 / 3) < 0.05


def test_a_wrong_low_rank_product_is_seen_on_the_first_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loraft.engine.lora_linear.add_low_rank", lambda base, x, downs, ups, scales: base)
    model = add_adapter(backbone(), LoraSection(r=4, target_modules="all-linear"), seed=1)  # its B is zero
    with pytest.warns(UserWarning, match="goes on with padded batches"):
        fit(tmp_path, model, max_steps=1)


def test_a_wrong_gradient_of_fused_layers_is_seen_on_the_first_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loraft.engine.fused_layer.rms_norm_backward", lambda grad, *rest: grad)
    with pytest.warns(UserWarning, match="do not agree with autograd"):
        broken = fit(tmp_path / "a", with_adapter())
    monkeypatch.setattr("loraft.engine.fused_layer.supports", lambda model: False)
    assert broken == pytest.approx(fit(tmp_path / "b", with_adapter()), rel=1e-5)


def test_all_modules_train_from_the_first_step_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[set[bool]] = []
    compute = LabelTrainer.compute_loss

    def seen(self: LabelTrainer, model: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        modes.append({module.training for module in model.modules()})
        return compute(self, model, *args, **kwargs)

    monkeypatch.setattr(LabelTrainer, "compute_loss", seen)
    fit(tmp_path, with_adapter(), shared_prefix="off")
    assert modes == [{True}] * 6


def test_a_wrong_shared_prefix_is_seen_on_the_first_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = pack

    def wrong(batch: list[TrainingRow]) -> dict[str, torch.Tensor]:
        inputs = original(batch)
        inputs["position_ids"] = inputs["position_ids"].flip(1)
        return inputs

    for module in ("engine.collator", "training.trainer"):
        monkeypatch.setattr(f"loraft.{module}.pack", wrong)
    with pytest.warns(UserWarning, match="goes on with padded batches"):
        broken = fit(tmp_path / "a", with_adapter())
    assert broken == pytest.approx(fit(tmp_path / "b", with_adapter(), shared_prefix="off"), rel=1e-5)


def test_upstream_defaults_that_would_surprise_are_set() -> None:
    args = sft_config(TrainConfig(), output_dir="x", seed=1, on_cpu=True)
    assert args.gradient_checkpointing is False
    assert args.bf16 is False
    assert args.learning_rate == TrainConfig().learning_rate
    assert args.report_to == []
