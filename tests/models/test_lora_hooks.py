"""A plain adapter gives peft's scores to the last bit without peft; everything else is left to peft."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import backbone, encoder, prompts
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from loraft.config.schema import LoraSection, ModelConfig, QuantConfig
from loraft.engine.scorer import score
from loraft.errors import BackboneError
from loraft.models.adapter import add_adapter, apply_adapter, load_adapter
from loraft.models.backbone import load_backbone
from loraft.models.lora_hooks import attach


def scores(model: PreTrainedModel) -> Any:
    return score(model.eval(), prompts(), encoder().completions_K)


def saved(model: PeftModel, folder: Path) -> Path:
    """The adapter's folder, its B no longer zero."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(str(folder))
    return folder


def bundled(**section: Any) -> PreTrainedModel:
    return load_backbone(ModelConfig(**{k: v for k, v in section.items() if k == "dtype"}),
                         QuantConfig(method=section.get("quant", "none")))  # fmt: skip


@pytest.mark.parametrize("lora", [{}, {"use_rslora": True}, {"init_lora_weights": "gaussian"}], ids=str)
@pytest.mark.parametrize("load", [
    lambda: backbone("llama"), lambda: backbone("llama").bfloat16(), lambda: backbone("gpt_neox"),
    lambda: bundled(dtype="bf16"), lambda: bundled(quant="nf4"), lambda: bundled(quant="nf4", dtype="fp32"),
], ids=["llama", "llama-bf16", "gpt_neox-biases", "bundled-bf16", "bundled-nf4", "bundled-nf4-fp32"])  # fmt: skip
def test_scores_are_those_of_peft_to_the_last_bit(
    tmp_path: Path, load: Callable[[], PreTrainedModel], lora: dict[str, Any]
) -> None:
    folder = saved(add_adapter(load(), LoraSection(r=4, **lora), seed=1), tmp_path)
    model = load()
    without = scores(model)
    assert attach(model, folder)
    found = scores(model)
    assert (found == scores(load_adapter(load(), folder))).all()
    assert abs(found - without).max() > 1e-3


@pytest.mark.parametrize(
    ("architecture", "lora"),
    [
        ("llama", {"use_dora": True}),
        ("llama", {"init_lora_weights": "pissa"}),
        ("llama", {"init_lora_weights": "olora"}),
        ("llama", {"bias": "lora_only"}),
        ("llama", {"lora_bias": True}),
        ("llama", {"rank_pattern": {"q_proj": 2}}),
        ("llama", {"alpha_pattern": {"q_proj": 2}}),
        ("llama", {"modules_to_save": ["lm_head"]}),
        ("llama", {"target_modules": ["q_proj", "embed_tokens"]}),
        ("gpt2", {}),  # its linear layers are transposed ones
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore")  # peft's remarks on these
def test_an_adapter_that_is_more_than_plain_lora_is_left_to_peft(
    tmp_path: Path, architecture: str, lora: dict[str, Any]
) -> None:
    section = LoraConfig(**{"task_type": "CAUSAL_LM", "r": 4, "target_modules": "all-linear", **lora})
    folder = saved(get_peft_model(backbone(architecture), section), tmp_path)
    model = backbone(architecture)
    without = scores(model)
    assert not attach(model, folder)
    assert (scores(model) == without).all()
    adapted = apply_adapter(model, folder)
    assert isinstance(adapted, PeftModel)
    assert (scores(adapted) == scores(PeftModel.from_pretrained(backbone(architecture), str(folder)))).all()


def test_a_key_that_peft_may_invent_later_is_left_to_peft(tmp_path: Path) -> None:
    folder = saved(add_adapter(backbone(), LoraSection(r=4), seed=1), tmp_path)
    path = folder / "adapter_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for value, plain in ((None, True), (False, True), ({"điều": 1}, False)):
        path.write_text(json.dumps({**content, "use_something_new": value}), encoding="utf-8")
        assert attach(backbone(), folder) == plain


def test_weights_that_are_not_an_a_and_a_b_for_each_layer_are_left_to_peft(tmp_path: Path) -> None:
    path = saved(add_adapter(backbone(), LoraSection(r=4), seed=1), tmp_path) / "adapter_model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if "lora_B" in name)
    without = {key: value for key, value in weights.items() if key != name}
    for changed in (without, {**without, name.replace("lora_B", "lora_C"): weights[name]}):
        save_file(changed, path)
        assert not attach(backbone(), tmp_path)
    path.rename(tmp_path / "adapter_model.bin")  # as peft stored it once
    assert not attach(backbone(), tmp_path)


def test_an_adapter_of_another_backbone_is_left_to_peft(tmp_path: Path) -> None:
    folder = saved(add_adapter(backbone("gpt_neox"), LoraSection(r=4), seed=1), tmp_path)
    assert not attach(backbone("llama"), folder)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize("load", [load_adapter, apply_adapter])
@pytest.mark.parametrize("content", [b"{\x00", b"{}", b"[]", b""])
def test_a_damaged_adapter_is_one_clear_error(
    tmp_path: Path, name: str, load: Callable[..., Any], content: bytes
) -> None:
    folder = saved(add_adapter(backbone(), LoraSection(r=1), seed=1), tmp_path)
    (folder / name).write_bytes(content)
    with pytest.raises(
        BackboneError,
        match=r"(cannot be read|is not JSON|names no peft_type|does not fit).+; .*(train|copy the folder) again",
    ):
        load(backbone(), folder)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(BackboneError, match="name a finished run"):
        load(backbone(), folder)
