"""What `lora.target_modules` and its neighbours name in a backbone, and errors for what it does not have."""

from types import SimpleNamespace
from typing import Any

import pytest
from helpers.tiny import backbone
from peft import LoraConfig, get_peft_model

from loraft.config.schema import LoraSection
from loraft.errors import BackboneError
from loraft.models.adapter import add_adapter
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
        ({"target_modules": r".*mlp.*"}, r"model\.layers\.0\.mlp has no matrix to adapt \(got '\.\*mlp\.\*'\)"),
        ({"target_modules": ["input_layernorm"]}, r"input_layernorm has no matrix to adapt"),
        ({"target_modules": []}, r"target_modules: names no module \(got \[\]\)"),
        ({"target_modules": ["lm_head"], "modules_to_save": ["lm_head"]}, r"no such module \(got 'lm_head'\)"),
        ({"modules_to_save": ["head"]}, r"modules_to_save: no such module \(got 'head'\); .*input_layernorm.*lm_head"),
        ({"modules_to_save": ["norm"]}, r"model\.layers\.0\..*norm ends in it too \(got 'norm'\); .*: model\.norm"),
        ({"target_parameters": ["experts.up"]}, r"no such parameter \(got 'experts.up'\); stacked experts: none"),
    ],
    ids=str,
)
def test_a_name_that_the_backbone_does_not_have_is_an_error_of_its_own(lora: dict[str, Any], message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        add_adapter(backbone(), LoraSection(**lora), seed=1)


def test_what_is_stored_in_4_bits_is_not_trained_whole() -> None:
    base = backbone()
    base.model.layers[0].mlp.up_proj.weight.quant_state = SimpleNamespace()  # as bitsandbytes marks it
    with pytest.raises(BackboneError, match=r"stored in 4 bits .*\(got 'mlp'\)"):
        check_targets(base, LoraSection(modules_to_save=["mlp"]))
    check_targets(base, LoraSection(modules_to_save=["lm_head"]))
