"""The low-rank products equal peft's own layers, for one adapter and for several."""

import pytest
import torch
from helpers.tiny import awaken, backbone, tokenizer
from helpers.training import SECTIONS, assert_same, loss_and_gradients, rows, with_adapter

from loraft.config.schema import LoraSection, ModelConfig, QuantConfig
from loraft.engine.collator import pack, pad
from loraft.engine.lora_linear import active, add_low_rank, enabled, grouped, stirred
from loraft.engine.loss import answer_loss_sum, answer_loss_sums
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
    made = add_low_rank(base, x, downs, ups, scales)
    for i in range(len(ranks)):
        own = slice(2 * i, 2 * i + 2)
        torch.testing.assert_close(made[own], base[own] + scales[i] * (x[own] @ downs[i].T @ ups[i].T))


def test_the_gradients_are_those_of_finite_differences() -> None:
    ranks = [1, 2, 9]
    tensors = drawn(ranks)

    def product(x: torch.Tensor, base: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        return add_low_rank(base, x, weights[:3], weights[3:], [1.0, 2.0, 0.5])

    assert torch.autograd.gradcheck(product, tensors)


def test_groups_hold_ranks_of_like_size_and_every_adapter_once() -> None:
    ranks = [1, 2, 4, 8, 16, 32, 64, 128]
    groups = grouped(ranks)
    assert [rank for group in groups for rank in ranks[group]] == ranks
    assert all(max(ranks[group]) <= 4 * min(ranks[group]) for group in groups)
    assert len(groups) == 3
    with pytest.raises(ValueError, match="ascend"):
        grouped([4, 2])


@pytest.mark.parametrize(
    ("architecture", "lora"),
    [("llama", {}), ("qwen3", {"use_rslora": True}), ("gpt_neox", {}), ("gpt2", {}), ("llama", {"use_dora": True})],
)
def test_loss_and_gradients_equal_those_of_peft(architecture: str, lora: dict[str, bool]) -> None:
    model = with_adapter(architecture, **lora)
    loss, gradients = loss_and_gradients(model, pad(rows(), PAD))
    model.eval()  # GPT-2 has dropout of its own
    with enabled(model) as everywhere, active(model):
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
        with active(model):
            rounded = loss()
        assert loss() == plain
    model.train()
    assert loss() == plain
    assert rounded != plain
    assert rounded == pytest.approx(plain, rel=0.1)


def test_stirring_changes_every_b_and_leaves_no_trace() -> None:
    model = add_adapter(backbone(), LoraSection(r=4, target_modules="all-linear"), seed=1)
    ups = [parameter for name, parameter in model.named_parameters() if "lora_B" in name]
    with stirred(model):
        assert all(up.count_nonzero() == up.numel() for up in ups)
    assert not any(up.any() for up in ups)


def test_several_adapters_have_the_losses_that_each_has_alone() -> None:
    model, names = add_adapters(backbone(), SECTIONS, seed=1)
    awaken(model)
    model.eval()
    alone = []
    for name in names:
        model.base_model.set_adapter(name)
        alone.append(float(answer_loss_sum(model, pad(rows(), PAD), torch.float32)))
    assert len({round(loss, 3) for loss in alone}) == len(names)
    with enabled(model, names), active(model):
        for batch in (pad(rows(), PAD), pack(rows())):
            losses_A = answer_loss_sums(model, batch, torch.float32, len(names))
            assert losses_A.tolist() == pytest.approx(alone, rel=1e-5)
