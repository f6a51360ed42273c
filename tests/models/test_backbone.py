"""Both backbones, the adapter's shape and place, and what is refused."""

from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from helpers.tiny import backbone, encoder, prompts
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig

from loraft.bundled import bundled_backbones
from loraft.config.schema import LoraSection, ModelConfig, QuantConfig
from loraft.engine.scorer import score
from loraft.errors import BackboneError
from loraft.models.adapter import add_adapter, load_adapter, lora_config, parameter_counts
from loraft.models.backbone import fingerprint, load_backbone, load_tokenizer, resolve_name
from loraft.models.quantization import check_nf4

# Source: config.json of meta-llama/Llama-3.2-1B-Instruct
LLAMA_1B = LlamaConfig(
    vocab_size=128256,
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=64,
    tie_word_embeddings=True,
)


def test_the_tutorials_adapter_has_the_tutorials_parameters() -> None:
    with torch.device("meta"):
        model = get_peft_model(
            AutoModelForCausalLM.from_config(LLAMA_1B), lora_config(LoraSection(r=8, target_modules="default"))
        )
    assert parameter_counts(model) == {"trainable": 851_968, "all": 1_236_666_368}


@pytest.mark.parametrize("rank", [1, 16])
def test_trainable_parameters_are_r_times_the_sum_of_both_dimensions(rank: int) -> None:
    base = backbone()
    shapes = [
        tuple(p.shape) for n, p in base.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n
    ]
    model = add_adapter(base, LoraSection(r=rank), seed=1)
    assert parameter_counts(model)["trainable"] == sum(rank * (rows + columns) for rows, columns in shapes)


def test_the_bundled_backbone_loads_in_nf4_with_nested_constants() -> None:
    model = load_backbone(ModelConfig(), QuantConfig(method="nf4"))
    projections = 7 * model.config.num_hidden_layers
    assert check_nf4(model, double_quant=True) == projections
    assert model.lm_head.weight.dtype == torch.bfloat16  # head and embeddings stay whole
    with pytest.raises(BackboneError, match="not stored as asked"):
        check_nf4(model, double_quant=False)
    with pytest.raises(BackboneError, match="quantised no layer"):
        check_nf4(backbone(), double_quant=True)


def test_evaluating_leaves_the_nf4_backbone_bit_identical() -> None:
    model = load_backbone(ModelConfig(), QuantConfig(method="nf4"))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    first = score(model, prompts(), encoder().completions_K)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    check_nf4(model, double_quant=True)
    assert (score(model, prompts(), encoder().completions_K) == first).all()


def test_nf4_weights_are_the_nearest_of_the_levels_block_by_block() -> None:
    whole = load_backbone(ModelConfig(dtype="fp32"), QuantConfig()).model.layers[0].mlp.up_proj.weight
    layer = load_backbone(ModelConfig(), QuantConfig(method="nf4")).model.layers[0].mlp.up_proj
    packed = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    blocks, found = whole.reshape(-1, 64), packed.reshape(-1, 64)
    scales = blocks.abs().amax(1, keepdim=True)
    # The widest gap between two of NF4's levels is 1 - 0.6962 of the block's scale (Dettmers et al. 2023, appendix E);
    # half of it, and a little for the scales, which are stored in 8 bits.
    assert ((found - blocks).abs() <= (0.152 + 0.01) * scales).all()
    assert 0.05 < torch.linalg.norm(found - blocks) / torch.linalg.norm(blocks) < 0.12


def test_parameter_counts_do_not_depend_on_quantisation() -> None:
    counts = [
        parameter_counts(add_adapter(load_backbone(ModelConfig(), quant), LoraSection(r=4), seed=1))
        for quant in (QuantConfig(), QuantConfig(method="nf4"))
    ]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("init", ["default", "gaussian", "orthogonal"])
def test_a_fresh_adapter_changes_no_score(init: str) -> None:
    expected = score(backbone(), prompts(), encoder().completions_K)
    model = add_adapter(backbone(), LoraSection(r=4, init_lora_weights=init), seed=1)  # type: ignore[arg-type]
    if init == "orthogonal":  # its product is not zero; only its size is bounded, so just the shape is checked
        assert score(model, prompts(), encoder().completions_K).shape == expected.shape
    else:
        assert abs(score(model, prompts(), encoder().completions_K) - expected).max() < 1e-6


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_inits_that_move_weights_into_the_adapter_keep_the_answers(init: str) -> None:
    expected = score(backbone(), prompts(), encoder().completions_K)
    model = add_adapter(backbone(), LoraSection(r=4, init_lora_weights=init), seed=1)  # type: ignore[arg-type]
    assert abs(score(model, prompts(), encoder().completions_K) - expected).max() < 1e-3


def test_adapter_weights_follow_the_seed_and_are_fp32() -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        model = add_adapter(backbone(), LoraSection(r=4), seed=seed)
        return [p for p in model.parameters() if p.requires_grad]

    first, same, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert {weight.dtype for weight in first} == {torch.float32}


def test_an_adapter_over_an_adapter_is_refused() -> None:
    model = add_adapter(backbone(), LoraSection(r=4), seed=1)
    for stacked in (model, model.get_base_model()):
        with pytest.raises(BackboneError, match="carries an adapter already"):
            add_adapter(stacked, LoraSection(r=8), seed=1)


def test_an_init_that_reads_whole_weights_is_refused_with_nf4() -> None:
    base = load_backbone(ModelConfig(), QuantConfig(method="nf4"))
    with pytest.raises(BackboneError, match="pissa"):
        add_adapter(base, LoraSection(init_lora_weights="pissa"), seed=1)


def test_unknown_target_modules_are_refused_with_the_key() -> None:
    with pytest.raises(BackboneError, match=r"lora\.target_modules"):
        add_adapter(backbone(), LoraSection(target_modules=["không_có"]), seed=1)


@pytest.mark.parametrize(
    "lora",
    [{}, {"use_dora": True}, {"use_rslora": True}, {"init_lora_weights": "pissa"}, {"init_lora_weights": "olora"}],
    ids=str,
)
def test_a_saved_adapter_loads_in_plain_peft_with_the_same_scores(tmp_path: Path, lora: dict[str, Any]) -> None:
    model = add_adapter(backbone(), LoraSection(r=4, **lora), seed=1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(str(tmp_path))
    expected = score(model.eval(), prompts(), encoder().completions_K)
    ours = load_adapter(backbone(), tmp_path)
    plain = PeftModel.from_pretrained(backbone(), str(tmp_path)).eval()
    assert abs(expected - score(backbone(), prompts(), encoder().completions_K)).max() > 1e-3
    for loaded in (ours, plain):
        assert (score(loaded, prompts(), encoder().completions_K) == expected).all()


def test_fingerprints_tell_backbones_apart() -> None:
    assert fingerprint(backbone()) == fingerprint(backbone())
    assert fingerprint(backbone(seed=0)) != fingerprint(backbone(seed=1))
    with_adapter = add_adapter(backbone(), LoraSection(r=4), seed=1)
    assert fingerprint(with_adapter) == fingerprint(backbone())
    sibling = backbone()
    sibling.model.layers[1].mlp.up_proj.weight.data *= 1.01
    assert fingerprint(sibling) != fingerprint(backbone())
    whole, packed = (load_backbone(ModelConfig(), quant) for quant in (QuantConfig(), QuantConfig(method="nf4")))
    assert fingerprint(whole) != fingerprint(packed)


@pytest.mark.parametrize("name", ["./không-có", "a/b/c", "loraft-vi-tny"])
def test_a_backbone_that_is_not_there_is_refused_with_what_is_allowed(name: str) -> None:
    with pytest.raises(BackboneError, match=r"model\.name: .*loraft-vi-tiny"):
        resolve_name(name)


def test_an_unreachable_hub_name_is_one_clear_error() -> None:
    with pytest.raises(BackboneError, match=r"model\.name: cannot load ai/khong-co"):
        load_tokenizer(ModelConfig(name="ai/khong-co"))
    with pytest.raises(BackboneError, match=r"model\.name: cannot load ai/khong-co"):
        load_backbone(ModelConfig(name="ai/khong-co"), QuantConfig())


def test_an_adapter_folder_is_no_backbone(tmp_path: Path) -> None:
    add_adapter(backbone(), LoraSection(r=1), seed=1).save_pretrained(str(tmp_path))
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BackboneError, match="is an adapter"):
        load_backbone(ModelConfig(name=str(tmp_path)), QuantConfig())


def test_the_bundled_folder_loads_with_transformers_alone() -> None:
    folder = bundled_backbones()["loraft-vi-tiny"]
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.dtype == torch.bfloat16
