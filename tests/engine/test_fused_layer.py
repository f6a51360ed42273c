"""Fused layers have the loss, gradients and scores of padded batches; which models they support."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.plain_scoring import score_plainly
from helpers.tiny import CONFIGS, HEADS, SENTENCES, SMALL, awaken, backbone, encoder
from helpers.training import EXTRA_PAIRS, SECTIONS, assert_same, fit, loss_and_gradients, rows, with_adapter
from transformers import LlamaConfig, MistralConfig

from loraft.config.schema import LoraSection, ModelConfig, QuantConfig
from loraft.engine import collator, fused_layer, lora_linear
from loraft.engine.collator import pack
from loraft.engine.loss import BatchMethod, answer_loss_sum, answer_loss_sums
from loraft.engine.prefix_cache import MAX_FUSED_CELLS
from loraft.engine.scorer import score
from loraft.models.adapter import add_adapter, add_adapters
from loraft.models.backbone import load_backbone

OTHERS = {
    "biased llama": LlamaConfig(**SMALL, **HEADS, attention_bias=True, mlp_bias=True),
    "mistral without a window": MistralConfig(**SMALL, **HEADS, sliding_window=None),
    "one layer": LlamaConfig(**SMALL | {"num_hidden_layers": 1}, **HEADS),
}


@pytest.fixture(autouse=True)
def _others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, config in OTHERS.items():
        monkeypatch.setitem(CONFIGS, name, config)


@pytest.fixture(params=EXTRA_PAIRS)
def both_attentions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collator, "MAX_EXTRA_PAIRS", EXTRA_PAIRS[request.param])


def uneven(model: Any) -> Any:
    """Norms that are not all one, and biases that are not all zero."""
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.15)
    return model


def test_llama_qwen2_and_mistral_without_a_window_are_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONFIGS, "llama with gelu", LlamaConfig(**SMALL, **HEADS, hidden_act="gelu"))
    assert [name for name in CONFIGS if fused_layer.supports(backbone(name))] == ["llama", "qwen2", *OTHERS]
    hooked = backbone("llama")
    hooked.model.layers[0].forward = hooked.model.layers[0].forward
    assert not fused_layer.supports(hooked)
    dropping = backbone("llama")
    monkeypatch.setattr(dropping.config, "attention_dropout", 0.1)
    assert not fused_layer.supports(dropping)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", *OTHERS])
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"], ["k_proj", "down_proj"]])
def test_loss_and_gradients_are_those_of_the_padded_batch(architecture: str, targets: Any) -> None:
    model = uneven(with_adapter(architecture, target_modules=targets))
    assert fused_layer.supports(model)
    assert lora_linear.supports(model)
    assert_same(model, rows())
    assert_same(model, rows()[:1])


def test_rows_without_a_common_prefix_are_packed_too() -> None:
    apart = rows()
    for number, row in enumerate(apart):
        row.input_ids[0] = 100 + number
    assert_same(with_adapter(), apart)


@pytest.mark.usefixtures("both_attentions")
def test_a_trained_input_gets_its_gradient_through_the_first_layer() -> None:
    model = with_adapter()
    given: list[torch.Tensor] = []

    def keep(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        given.append(output.detach().requires_grad_())
        return given[-1]

    model.get_input_embeddings().register_forward_hook(keep)
    loss_and_gradients(model, pack(rows()))
    with fused_layer.enabled(model):
        loss_and_gradients(model, pack(rows()), method=BatchMethod.FUSED)
    assert given[0].grad is not None
    torch.testing.assert_close(given[1].grad, given[0].grad, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("both_attentions")
def test_joint_adapters_have_the_losses_and_gradients_of_each_alone() -> None:
    model, names = add_adapters(backbone(), SECTIONS, seed=1)
    awaken(model)
    with lora_linear.enabled(model, names), fused_layer.enabled(model, names):
        model.train()
        together = answer_loss_sums(model, pack(rows()), torch.float32, len(names), method=BatchMethod.FUSED)
        together.sum().backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert len(found) == 2 * len(names) * 14  # two layers of seven projections
    model.zero_grad()
    for number, name in enumerate(names):
        model.base_model.set_adapter([name])
        alone = answer_loss_sum(model, pack(rows()), torch.float32)
        alone.backward()
        assert together[number].item() == pytest.approx(alone.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        if name in found:
            assert (found[name] - parameter.grad).norm() <= 1e-5 * parameter.grad.norm() + 1e-7, name


@pytest.mark.usefixtures("both_attentions")
@pytest.mark.parametrize("ranks", [[4], [1, 4, 32]])
def test_the_gradient_with_dropout_is_that_of_finite_differences(ranks: list[int]) -> None:
    sections = [LoraSection(r=r, target_modules="all-linear", lora_dropout=0.3) for r in ranks]
    model, names = add_adapters(uneven(backbone()), sections, seed=1)
    model.train()
    batch, weights = pack(rows()), [p for p in model.parameters() if p.requires_grad]
    torch.manual_seed(3)
    for weight in weights:
        torch.nn.init.normal_(weight, std=0.05)
    direction = [torch.randn_like(weight) for weight in weights]

    def loss(step: float) -> torch.Tensor:
        torch.manual_seed(4)
        with torch.no_grad():
            for weight, along in zip(weights, direction, strict=True):
                weight.add_(step * along)
        with lora_linear.enabled(model, names), fused_layer.enabled(model, names):
            return answer_loss_sums(model, batch, torch.float32, len(names), method=BatchMethod.FUSED).sum()

    gradients = torch.autograd.grad(loss(0.0), weights)
    slope = sum(float((gradient * along).sum()) for gradient, along in zip(gradients, direction, strict=True))
    size = 5e-4
    ahead, behind = loss(size).item(), loss(-2 * size).item()
    assert slope == pytest.approx((ahead - behind) / (2 * size), rel=3e-2)


@pytest.mark.usefixtures("both_attentions")
def test_nf4_has_the_gradients_of_autograd() -> None:
    base = load_backbone(ModelConfig(dtype="fp32", device="cpu"), QuantConfig(method="nf4", compute_dtype="fp32"))
    model = add_adapter(base, LoraSection(r=4, target_modules="all-linear"), seed=1)
    assert fused_layer.supports(model)
    assert lora_linear.supports(model)
    with lora_linear.enabled(model), lora_linear.perturbed(model), lora_linear.active_in_evaluation(model):
        plain, expected = loss_and_gradients(model, pack(rows()))
        with fused_layer.enabled(model):
            loss, gradients = loss_and_gradients(model, pack(rows()), method=BatchMethod.FUSED)
    assert loss == pytest.approx(plain, rel=1e-4)
    for name, gradient in expected.items():
        assert (gradients[name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-7, name


def test_training_on_the_bundled_backbone_is_fused_and_checkpointed_training_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    passed: list[int] = []
    own = fused_layer.FusedLayer.compute
    monkeypatch.setattr(fused_layer.FusedLayer, "compute", lambda *args: passed.append(1) or own(*args))
    model = add_adapter(load_backbone(ModelConfig(device="cpu"), QuantConfig()), LoraSection(r=4), seed=1)
    assert len(fit(tmp_path / "a", model, max_steps=2)) == 2
    assert len(passed) == 4 * model.config.num_hidden_layers  # two checks, and two steps
    assert not [str(w.message) for w in recwarn if "autograd" in str(w.message)]
    passed.clear()
    checkpointed = with_adapter()
    fit(tmp_path / "b", checkpointed, max_steps=2, gradient_checkpointing=True)
    assert all(layer.gradient_checkpointing for layer in checkpointed.get_base_model().model.layers)
    assert not passed


def test_layers_get_their_own_forward_back() -> None:
    model = backbone()
    with pytest.raises(ZeroDivisionError), fused_layer.enabled(model), fused_layer.enabled(model):
        assert len(vars(model.model.layers[0])["forward"].projections) == 7
        raise ZeroDivisionError
    assert not any("forward" in vars(layer) for layer in model.model.layers)


@pytest.mark.parametrize("architecture", ["qwen2", *OTHERS])
@pytest.mark.parametrize("repeats", [1, 60])
def test_scores_are_those_of_plain_forward_passes(architecture: str, repeats: int) -> None:
    model = uneven(backbone(architecture))
    topics = encoder("topic").completions_K
    texts = [" ".join([text] * repeats) for text in SENTENCES[:3]]
    ids = [prompt.ids for prompt in encoder("topic", 4096).encode(texts)]
    if repeats > 1:
        assert max(map(len, ids)) > MAX_FUSED_CELLS
    np.testing.assert_allclose(score(model, ids, topics), score_plainly(model, ids, topics), atol=2e-5)
