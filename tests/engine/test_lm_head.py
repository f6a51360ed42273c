"""Scores come out of fp32 logits whatever the backbone's dtype, and a model is left as it was."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import HEADS, RECURRENT, SMALL, backbone, random_model
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, LlamaConfig, PreTrainedModel

from loraft.engine import fused_layer, lm_head
from loraft.engine.lm_head import exact_logits, read_logits, split_product
from loraft.engine.scorer import score

IDS = torch.arange(200, 224).view(2, 12)
# A soft cap, two scales, a head with a bias after a LayerNorm, and a norm inside a decoder: the model's settings, its
# final norm, and what it does to logits.
ENDS: dict[str, tuple[dict[str, Any], str, Any]] = {
    "llama": ({**SMALL, **HEADS}, "model.norm", None),
    "gemma2": (
        {**SMALL, **HEADS, "head_dim": 8, "final_logit_softcapping": 5.0}, "model.norm",
        lambda x: 5.0 * torch.tanh(x / 5.0),
    ),
    "granite": ({**SMALL, **HEADS, "logits_scaling": 4.0}, "model.norm", lambda x: x / 4.0),
    "cohere": ({**SMALL, **HEADS, "logit_scale": 0.5}, "model.norm", lambda x: x * 0.5),
    "phi": ({**SMALL, **HEADS}, "model.final_layernorm", None),
    "opt": (
        {
            "vocab_size": 8192, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
            "word_embed_proj_dim": 32,
        },
        "model.decoder.final_layer_norm", None,
    ),
    "mamba": (RECURRENT["mamba"], "backbone.norm_f", None),
}  # fmt: skip


def expected_logits(model: PreTrainedModel, norm: str, after: Any = None) -> torch.Tensor:
    """The bf16 states before the final norm; then norm, head and what follows of an fp32 copy of the model."""
    seen: list[torch.Tensor] = []
    hook = model.get_submodule(norm).register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model(IDS)
    hook.remove()
    precise = copy.deepcopy(model).float()
    logits: torch.Tensor = precise.get_output_embeddings()(precise.get_submodule(norm)(seen[0].float()))
    return after(logits) if after else logits


@pytest.mark.parametrize("name", ENDS)
@torch.no_grad()
def test_norm_head_and_what_follows_are_computed_in_fp32(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, norm, after = ENDS[name]
    model = random_model(AutoConfig.for_model(name, **settings)).to(torch.bfloat16)
    expected, before = expected_logits(model, norm, after), model(IDS).logits
    kept_BQ = torch.tensor([[3, 11], [0, 5]])
    for chunk in (lm_head.CHUNK, 1000 * 32):  # the second does not divide the vocabulary
        monkeypatch.setattr(lm_head, "CHUNK", chunk)
        with exact_logits(model):
            found = model(IDS).logits
        with exact_logits(model, kept_BQ):
            few = model(IDS).logits
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(few, torch.stack([expected[0, [3, 11]], expected[1, [0, 5]]]), rtol=1e-5, atol=1e-5)
    assert (before.float() - expected).abs().max() > 1e-3
    assert torch.equal(model(IDS).logits, before)
    assert not any(vars(module).get("forward") or module._forward_hooks for module in model.modules())


@torch.no_grad()
def test_an_fp32_backbone_is_left_as_it_is() -> None:
    model = backbone()
    before = model(IDS).logits
    with exact_logits(model):
        assert torch.equal(model(IDS).logits, before)


@torch.no_grad()
def test_an_adapter_on_the_head_computes_in_fp32_too() -> None:
    config = LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = get_peft_model(backbone().to(torch.bfloat16), config).eval()
    expected = expected_logits(adapted.get_base_model(), "model.norm")
    with exact_logits(adapted):
        torch.testing.assert_close(adapted(IDS).logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_what_is_read_some_rows_at_a_time_is_read_off_exact_logits(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = backbone().to(dtype), []
    expected = model(IDS).logits if dtype == torch.float32 else expected_logits(model, "model.norm")
    monkeypatch.setattr(lm_head, "LOGITS", 3 * 4 * 8192 + 1)  # 3 rows of 4 cells

    def read(logits_BQV: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(logits_BQV.shape))
        return logits_BQV[:, :, 7]

    with read_logits(model, 4, read):
        found = model(IDS).logits
    assert seen == [(3, 4, 8192)] * 2  # 24 cells are 6 rows
    torch.testing.assert_close(found, expected[:, :, 7].reshape(6, 4), rtol=1e-5, atol=1e-5)
    assert "forward" not in vars(model.lm_head)


@torch.no_grad()
def test_three_bf16_products_are_as_exact_as_one_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x_NH = torch.randn(7, 256) * torch.logspace(-3, 2, 256)
    weight_VH = torch.randn(40, 256).bfloat16()
    monkeypatch.setattr(lm_head, "LOGITS", 3 * 40)
    right = x_NH.double() @ weight_VH.double().t()
    size = right.abs().max()
    assert (split_product(x_NH, weight_VH) - right).abs().max() < 1e-6 * size
    assert (x_NH.bfloat16().double() @ weight_VH.double().t() - right).abs().max() > 1e-4 * size  # one product is not


def test_a_quantised_head_or_one_of_another_class_is_left_to_itself() -> None:
    class Own(torch.nn.Linear):
        pass

    model = backbone().to(torch.bfloat16)
    own = Own(32, 8192, bias=False, dtype=torch.bfloat16)
    own.weight = model.lm_head.weight
    with torch.no_grad():
        before = model(IDS).logits
        model.lm_head = own
        with exact_logits(model):
            assert torch.equal(model(IDS).logits, before)


@pytest.mark.parametrize("fused", [True, False])
def test_labels_that_tie_in_bf16_are_told_apart(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def scores(dtype: Any) -> np.ndarray:
        torch.manual_seed(0)
        model = random_model(LlamaConfig(**SMALL, **HEADS)).to(torch.bfloat16).to(dtype)
        model.lm_head.weight.data[5:9] = model.lm_head.weight.data[4]
        for token in range(5, 9):  # by one part in 128, in one of the 32 inputs
            model.lm_head.weight.data[token, token] *= 1 + 2**-7
        rows = [[*range(100, 112), n] for n in range(20)]
        return score(model, rows, [[token, 4] for token in range(5, 9)])

    if not fused:
        monkeypatch.setattr(fused_layer, "supports", lambda model: False)
    found, expected = scores(torch.bfloat16), scores(torch.float32)
    assert all(len(set(row)) == 4 for row in found.tolist())
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.9
    monkeypatch.setattr(lm_head, "_low_precision_linears", lambda head: [])
    assert min(len(set(row)) for row in scores(torch.bfloat16).tolist()) < 4
