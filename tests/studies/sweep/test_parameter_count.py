"""Trainable parameters are counted from a backbone's config.json as peft counts them, or not at all."""

import copy
from pathlib import Path

import pytest
from helpers.tiny import CONFIGS, backbone
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from loraft.config.resolve import resolve
from loraft.models.adapter import lora_config
from loraft.studies.sweep.parameter_count import trainable_parameters

LLAMA_1B = (
    '{"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,'
    ' "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64}'
)


@pytest.mark.parametrize(
    ("overrides", "count"),
    [
        # The count that peft prints for the tutorial's adapter, and 704,512 for each unit of rank of all linear layers.
        (("lora.r=8", "lora.target_modules=default"), 851_968),
        (("lora.r=16", "lora.target_modules=all-linear"), 16 * 704_512),
    ],
)
def test_parameters_of_llama_1b_are_those_that_peft_prints(
    tmp_path: Path, overrides: tuple[str, ...], count: int
) -> None:
    (tmp_path / "config.json").write_text(LLAMA_1B, encoding="utf-8")
    assert trainable_parameters(resolve(overrides=[f"model.name={tmp_path}", *overrides])) == count


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize(
    "overrides",
    [("lora.r=3",), ("lora.r=2", "lora.target_modules=default"), ("lora.use_dora=true",),
     ("lora.target_modules=[o_proj,down_proj]",)],
)  # fmt: skip
def test_parameters_are_counted_as_peft_counts_them_or_not_at_all(
    tmp_path: Path, architecture: str, overrides: tuple[str, ...]
) -> None:
    CONFIGS[architecture].save_pretrained(tmp_path)
    config = resolve(overrides=[f"model.name={tmp_path}", *overrides])
    count = trainable_parameters(config)
    if architecture in ("gpt2", "gpt_neox"):
        assert count is None
    else:
        model = get_peft_model(backbone(architecture), lora_config(config.lora))
        assert count == model.get_nb_trainable_parameters()[0]


def test_heads_may_be_wider_than_their_share_of_the_hidden_vector(tmp_path: Path) -> None:
    architecture = copy.deepcopy(CONFIGS["qwen3"])
    architecture.head_dim = 24  # 4 heads over 32 inputs: a share is 8
    architecture.save_pretrained(tmp_path)
    config = resolve(overrides=[f"model.name={tmp_path}", "lora.r=2"])
    model = get_peft_model(AutoModelForCausalLM.from_config(architecture), lora_config(config.lora))
    assert trainable_parameters(config) == model.get_nb_trainable_parameters()[0]


def test_an_unknown_target_or_backbone_is_not_guessed() -> None:
    assert trainable_parameters(resolve(overrides=["lora.target_modules=[lm_head]"])) is None
    assert trainable_parameters(resolve(overrides=["lora.target_modules=.*q_proj"])) is None
    assert trainable_parameters(resolve(overrides=["lora.modules_to_save=[lm_head]"])) is None
    assert trainable_parameters(resolve(overrides=["model.name=meta-llama/Llama-3.2-1B-Instruct"])) is None
