"""One backbone serves many adapters, and is the same to the last bit after each."""

from pathlib import Path

import pytest
import torch
from helpers.tiny import CONFIGS, backbone, encoder, prompts

from loraft.config.schema import Config, LoraSection, ModelConfig, QuantConfig
from loraft.engine import scorer
from loraft.models.adapter import add_adapter, count_trainable, remove_adapter
from loraft.models.backbone import load_backbone, weights_hash, without_weights

TARGETS = {"gpt2": "default"}


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("variant", [{}, {"use_dora": True}])
def test_the_backbone_is_bit_identical_without_the_adapter(architecture: str, variant: dict[str, bool]) -> None:
    base = backbone(architecture)
    before = weights_hash(base)
    scores = scorer.score(base, prompts(), encoder().completions_K)
    section = LoraSection(r=2, target_modules=TARGETS.get(architecture, "all-linear"), **variant)  # type: ignore[arg-type]
    model = add_adapter(base, section, seed=1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_()
    assert weights_hash(base) != before
    assert remove_adapter(model) is base
    assert weights_hash(base) == before
    assert (scorer.score(base, prompts(), encoder().completions_K) == scores).all()
    assert not any(parameter.requires_grad for parameter in base.parameters())
    assert add_adapter(base, section, seed=1) is not None  # which refuses a backbone that carries one


def test_an_nf4_backbone_is_bit_identical_without_the_adapter() -> None:
    base = load_backbone(ModelConfig(), QuantConfig(method="nf4"))
    before = weights_hash(base)
    remove_adapter(add_adapter(base, LoraSection(r=2), seed=1))
    assert weights_hash(base) == before


def test_one_changed_bit_changes_the_hash() -> None:
    base = backbone()
    before = weights_hash(base)
    weight = base.model.layers[1].mlp.down_proj.weight
    weight.data[3, 5] = torch.nextafter(weight.data[3, 5], torch.tensor(torch.inf))
    assert weights_hash(base) != before


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("init", ["default", "pissa"])
def test_parameters_are_counted_without_weights(tmp_path: Path, architecture: str, init: str) -> None:
    CONFIGS[architecture].save_pretrained(tmp_path)
    lora = Config(lora={"r": 3, "target_modules": "default", "init_lora_weights": init}).lora  # type: ignore[arg-type]
    model = add_adapter(backbone(architecture), lora.model_copy(update={"init_lora_weights": "default"}), seed=1)
    shapes = without_weights(ModelConfig(name=str(tmp_path)))
    assert all(parameter.is_meta for parameter in shapes.parameters())
    for _ in range(2):  # the first count leaves nothing behind
        assert count_trainable(shapes, lora) == model.get_nb_trainable_parameters()[0]
