"""What `lora.target_modules` and its neighbours name in a backbone, and errors for what it does not have."""

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.tiny import backbone, special
from peft import LoraConfig, get_peft_model

from loraft.config.schema import LoraSection
from loraft.errors import BackboneError
from loraft.models import adapter_targets
from loraft.models.adapter import add_adapter, count_trainable, parameter_counts
from loraft.models.adapter_targets import check_targets, matches


@pytest.mark.parametrize("targets", [["proj"], ["q_proj", "layers.1.mlp.up_proj"], r".*\.1\..*(q|up)_proj", "q_proj"])
def test_names_match_as_in_peft(targets: str | list[str]) -> None:
    names = [name for name, _ in backbone().named_modules() if name]
    expected = [name for name in names if matches(targets, name)]
    if targets in (["proj"], "q_proj"):
        assert expected == []
        with pytest.raises(ValueError, match="not found in the base model"):
            get_peft_model(backbone(), LoraConfig(target_modules=targets))
        return
    found = get_peft_model(backbone(), LoraConfig(target_modules=targets)).base_model.targeted_module_names
    assert found == expected != []


KINDS = "embed_tokens, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head"


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"target_modules": ["q_proj", "q_prj"]}, rf"target_modules: no such module \(got 'q_prj'\); .* has {KINDS}"),
        ({"target_modules": "q_proj"}, rf"matches no module's whole name \(got 'q_proj'\).*model\..*{KINDS}.*brackets"),
        ({"target_modules": "al-linear"}, r"matches no module's whole name \(got 'al-linear'\)"),
        ({"target_modules": r".*mlp.*"}, r"model\.layers\.0\.mlp has no matrix that peft adapts \(got '\.\*mlp\.\*'\)"),
        ({"target_modules": ["input_layernorm"]}, r"input_layernorm has no matrix that peft adapts"),
        ({"target_modules": []}, r"target_modules: names no module \(got \[\]\)"),
        ({"target_modules": ["lm_head"], "modules_to_save": ["lm_head"]}, r"no such module \(got 'lm_head'\)"),
        ({"target_modules": ["lm_head"]}, r"lm_head is the output layer, .*got \['lm_head'\]\); .*modules_to_save="),
        ({"target_modules": ["q_proj", "lm_head"]}, r"target_modules: lm_head is the output layer, which takes no"),
        ({"target_modules": r".*(q_proj|head)"}, r"target_modules: lm_head is the output layer, which takes no"),
        ({"modules_to_save": ["head"]}, r"modules_to_save: no such module \(got 'head'\); .*input_layernorm.*lm_head"),
        ({"modules_to_save": ["norm"]}, r"model\.layers\.0\..*norm ends in it too \(got 'norm'\); .*: model\.norm"),
        ({"target_parameters": ["experts.up"]}, r"no such parameter \(got 'experts.up'\); stacked experts: none"),
    ],
    ids=str,
)
def test_a_name_that_the_backbone_does_not_have_is_an_error_of_its_own(lora: dict[str, Any], message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        add_adapter(backbone(), LoraSection(**lora), seed=1)


def test_a_regular_expression_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter_targets, "SECONDS", 0.5)
    with pytest.raises(BackboneError, match=r"takes too long \(got '\(\[a-z\._0-9\]\+\)\+!'\); write no repetition"):
        check_targets(backbone(), LoraSection(target_modules=r"([a-z._0-9]+)+!"))


@pytest.mark.parametrize("architecture", ["llama4_text", "falcon"])
def test_all_linear_leaves_out_routers_that_return_more_than_one_tensor(architecture: str) -> None:
    base = special(architecture)
    special_names = ["router"] if architecture == "llama4_text" else []  # falcon's own class of linear layers is plain
    model = add_adapter(base, LoraSection(r=1), seed=1)
    left_out = {name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear)}
    left_out = {name.rpartition(".")[2] for name in left_out if "lora" not in name and "base_layer" not in name}
    assert left_out == {*special_names, "lm_head"}
    assert model(torch.tensor([[5, 6]])).logits.shape == (1, 2, 8192)
    assert count_trainable(special(architecture), LoraSection(r=1)) == parameter_counts(model)[0]
    if special_names:
        with pytest.raises(
            BackboneError, match=r"0\.feed_forward\.router has no matrix that peft adapts \(got 'router'"
        ):
            add_adapter(special(architecture), LoraSection(target_modules=["router"]), seed=1)


def test_fused_experts_get_the_rank_of_both_parts_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        model = add_adapter(special("mixtral"), LoraSection(r=2), seed=1)
    (a,) = (p for n, p in model.named_parameters() if "layers.0.mlp.experts.base_layer.lora_A" in n)
    assert a.shape == (4 * 2 * 2, 32)  # 4 experts, 2 parts of rank 2


def test_what_is_stored_in_4_bits_is_not_trained_whole() -> None:
    base = backbone()
    base.model.layers[0].mlp.up_proj.weight.quant_state = SimpleNamespace()  # as bitsandbytes marks it
    with pytest.raises(BackboneError, match=r"stored in 4 bits .*\(got 'mlp'\)"):
        check_targets(base, LoraSection(modules_to_save=["mlp"]))
    check_targets(base, LoraSection(modules_to_save=["lm_head"]))
