"""The low-rank products equal peft's own layers, for one adapter and for several."""

from typing import Any

import pytest
import torch
from helpers.tiny import awaken, backbone, tokenizer
from helpers.training import SECTIONS, assert_same, loss_and_gradients, rows, with_adapter
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import LoraLayer

from loraft.config.schema import LoraSection, ModelConfig, QuantConfig
from loraft.engine.collator import pack, pad
from loraft.engine.lora_linear import (
    active_in_evaluation,
    adapter_weights,
    enabled,
    lora_backward,
    lora_forward,
    perturbed,
    supports,
)
from loraft.engine.loss import answer_loss_sum, answer_loss_sums
from loraft.engine.low_rank import add_low_rank, rank_groups
from loraft.models.adapter import add_adapter, add_adapters
from loraft.models.backbone import load_backbone

PAD = tokenizer().pad_token_id


def drawn(ranks: list[int], dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    shapes = [(2 * len(ranks), 3, 6), (2 * len(ranks), 3, 5), *((r, 6) for r in ranks), *((5, r) for r in ranks)]
    return tuple(torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)


@pytest.mark.parametrize("ranks", [[3], [1, 4, 16], [2, 2], [1, 8, 64]])
def test_every_adapter_serves_its_own_rows(ranks: list[int]) -> None:
    x, base, *weights = drawn(ranks)
    downs, ups = weights[: len(ranks)], weights[len(ranks) :]
    scales = [0.5 * (i + 1) for i in range(len(ranks))]
    made, _ = add_low_rank(base, x, downs, ups, scales)
    for i in range(len(ranks)):
        own = slice(2 * i, 2 * i + 2)
        torch.testing.assert_close(made[own], base[own] + scales[i] * (x[own] @ downs[i].T @ ups[i].T))


def test_the_gradients_are_those_of_finite_differences() -> None:
    ranks = [1, 2, 9]
    tensors = drawn(ranks)

    def product(x: torch.Tensor, base: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        return add_low_rank(base, x, weights[:3], weights[3:], [1.0, 2.0, 0.5])[0]

    assert torch.autograd.gradcheck(product, tensors)


def test_groups_hold_ranks_of_like_size_and_every_adapter_once() -> None:
    ranks = [1, 2, 4, 8, 16, 32, 64, 128]
    groups = rank_groups(ranks)
    assert [rank for group in groups for rank in ranks[group]] == ranks
    assert all(max(ranks[group]) <= 4 * min(ranks[group]) for group in groups)
    assert len(groups) == 3
    with pytest.raises(ValueError, match="ascend"):
        rank_groups([4, 2])


@pytest.mark.parametrize(
    ("architecture", "lora"),
    [("llama", {}), ("qwen3", {"use_rslora": True}), ("gpt_neox", {}), ("gpt2", {}), ("llama", {"use_dora": True})],
)
def test_loss_and_gradients_equal_those_of_peft(architecture: str, lora: dict[str, bool]) -> None:
    model = with_adapter(architecture, **lora)
    loss, gradients = loss_and_gradients(model, pad(rows(), PAD))
    model.eval()  # GPT-2 has dropout of its own
    with enabled(model) as everywhere, active_in_evaluation(model):
        assert everywhere == (architecture != "gpt2" and not lora.get("use_dora"))
        own_loss, own_gradients = loss_and_gradients(model, pad(rows(), PAD))
        assert_same(model, rows())  # and the shared prefix on top of it
    assert own_loss == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        assert torch.linalg.norm(own_gradients[name] - gradient) <= 1e-5 * torch.linalg.norm(gradient) + 1e-7, name


def test_it_is_used_in_training_mode_alone_and_gone_afterwards() -> None:
    base = load_backbone(ModelConfig(dtype="bf16"), QuantConfig())
    model = add_adapter(base, LoraSection(r=4, target_modules="all-linear"), seed=1)
    torch.nn.init.normal_(next(p for n, p in model.named_parameters() if "lora_B" in n), std=0.05)
    batch = pack(rows())

    def loss() -> float:
        with torch.no_grad():
            return float(answer_loss_sum(model, batch, torch.bfloat16))

    model.eval()
    plain = loss()
    with enabled(model):
        assert loss() == plain
        with active_in_evaluation(model):
            rounded = loss()
        assert loss() == plain
    model.train()
    assert loss() == plain
    assert rounded != plain
    assert rounded == pytest.approx(plain, rel=0.1)


def test_a_layer_falls_back_to_peft_for_what_it_does_not_compute() -> None:
    model, names = add_adapters(backbone(), SECTIONS[:2], seed=1)
    awaken(model)
    batch = pad(rows(), PAD)

    def loss() -> float:
        return answer_loss_sum(model, batch, torch.float32).item()

    both = loss()  # both adapters are active, and peft adds them up
    with model.disable_adapter():
        without = loss()
    model.base_model.set_adapter(names[:1])
    first = loss()
    assert len({round(value, 3) for value in (both, without, first)}) == 3
    with enabled(model), active_in_evaluation(model):
        assert loss() == pytest.approx(first, rel=1e-6)
        with model.disable_adapter():
            assert loss() == without
        model.base_model.set_adapter(names)
        assert loss() == both


def test_dropout_drops_the_inputs_that_peft_drops() -> None:
    model = with_adapter(lora_dropout=0.5).train()

    def loss() -> float:
        torch.manual_seed(6)
        return answer_loss_sum(model, pad(rows(), PAD), torch.float32).item()

    plain = loss()
    with enabled(model):
        assert loss() == pytest.approx(plain, rel=1e-5)
    assert plain != pytest.approx(answer_loss_sum(model.eval(), pad(rows(), PAD), torch.float32).item(), rel=1e-4)


def test_only_plain_lora_layers_are_taken() -> None:
    def taken(model: Any) -> bool:
        with enabled(model) as everywhere:
            assert everywhere == supports(model)
            return everywhere

    assert taken(with_adapter())
    assert not taken(with_adapter(target_modules=["q_proj"], use_dora=True))
    merged = with_adapter(target_modules=["q_proj"])
    merged.merge_adapter()
    assert not taken(merged)
    biased = LoraConfig(target_modules=["query_key_value"], lora_bias=True)
    assert not taken(get_peft_model(backbone("gpt_neox"), biased))
    mixed = with_adapter()
    next(module for module in mixed.modules() if isinstance(module, LoraLayer)).fan_in_fan_out = True
    assert not taken(mixed)
    with enabled(torch.nn.Linear(2, 2)) as everywhere:
        assert not everywhere


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
def test_4bit_layers_must_compute_in_the_type_of_the_model(compute: str) -> None:
    base = load_backbone(ModelConfig(dtype="fp32", device="cpu"), QuantConfig(method="nf4", compute_dtype=compute))
    assert supports(add_adapter(base, LoraSection(r=4), seed=1)) == (compute == "fp32")


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_the_gradients_of_a_layer_are_those_of_autograd(dropout: float) -> None:
    model = with_adapter(lora_dropout=dropout).train()
    layer = next(module for module in model.modules() if isinstance(module, LoraLayer))
    x_NI, grad_NO = torch.randn(5, 32, requires_grad=True), torch.randn(5, 32)
    out_NO, saved = lora_forward(layer, x_NI, None)
    assert (saved[0] is None) == (dropout == 0)
    weights = adapter_weights([layer, torch.nn.Linear(2, 2)], None)
    d_x, *d_weights = torch.autograd.grad(out_NO, [x_NI, *weights], grad_NO)
    given = torch.randn(5, 32)
    with torch.no_grad():
        found, found_weights = lora_backward(layer, grad_NO, x_NI, saved, None, add_to=given.clone())
        none, same_weights = lora_backward(layer, grad_NO, x_NI, saved, None, input_grad=False)
    torch.testing.assert_close(found, given + d_x)
    torch.testing.assert_close(found_weights, d_weights)
    torch.testing.assert_close(same_weights, d_weights)
    assert none is None


def test_perturbing_changes_every_b_and_is_undone_to_the_bit() -> None:
    for model in (add_adapter(backbone(), LoraSection(r=4, target_modules="all-linear"), seed=1), with_adapter()):
        ups = [parameter for name, parameter in model.named_parameters() if "lora_B" in name]
        before = [up.detach().clone() for up in ups]
        with perturbed(model):
            assert all((up - own).count_nonzero() == up.numel() for up, own in zip(ups, before, strict=True))
        assert all(torch.equal(up, own) for up, own in zip(ups, before, strict=True))


def test_several_adapters_have_the_losses_that_each_has_alone() -> None:
    model, names = add_adapters(backbone(), SECTIONS, seed=1)
    awaken(model)
    model.eval()
    alone = []
    for name in names:
        model.base_model.set_adapter(name)
        alone.append(answer_loss_sum(model, pad(rows(), PAD), torch.float32).item())
    assert len({round(loss, 3) for loss in alone}) == len(names)
    with enabled(model, names), active_in_evaluation(model):
        for batch in (pad(rows(), PAD), pack(rows())):
            losses_A = answer_loss_sums(model, batch, torch.float32, len(names))
            assert losses_A.tolist() == pytest.approx(alone, rel=1e-5)
