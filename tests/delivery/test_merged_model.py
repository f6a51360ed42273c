"""An adapter in its backbone's weights gives what it gave beside them, for every kind of adapter and architecture."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.finished_runs import finished_run
from helpers.tiny import ALIBI, CONFIGS, RECURRENT, SENTENCES, awaken, backbone, prompts, random_model, special
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from loraft.config.schema import LoraSection
from loraft.delivery.merged_model import merge, merged_model
from loraft.engine import scorer
from loraft.errors import BackboneError
from loraft.models.adapter import load_adapter, lora_config
from loraft.models.load import load_run
from loraft.runs.bundle import config_of
from loraft.runs.run import Run

KINDS: dict[str, dict[str, Any]] = {
    "DoRA": {"use_dora": True},
    "rsLoRA": {"use_rslora": True, "r": 8},
    "on embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "DoRA on the head": {"target_modules": ["lm_head", "q_proj"], "use_dora": True},
    "on embeddings and head": {"target_modules": ["embed_tokens", "lm_head"]},
    "a copy of the head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "a copy of the embeddings": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "some tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [1, 5]},
    "PiSSA, which changes the backbone": {"init_lora_weights": "pissa"},
}


def saved_adapter(base: PreTrainedModel, folder: Path, config: LoraConfig) -> None:
    """Writes an adapter that changes the answers; `base` stays without one."""
    model = get_peft_model(copy.deepcopy(base), config)
    awaken(model)
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if any(part in name for part in ("magnitude", "modules_to_save", "lora_embedding", "tokens_delta")):
            parameter.data += 0.1 * torch.rand_like(parameter)
    model.save_pretrained(str(folder), save_embedding_layers=False)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.as_tensor(
            model(input_ids=torch.tensor([row[:24] for row in prompts()[:2]]), use_cache=False).logits
        )


def check_answers(base: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Merges the adapter in `folder`, loads the result as a user does, and compares it with backbone and adapter."""
    before, adapted = logits(base), logits(load_adapter(copy.deepcopy(base), folder))
    assert (before - adapted).abs().max() > 1e-2
    own = dict(copy.deepcopy(base).named_parameters(remove_duplicate=False))
    merged, errors = merge(base, folder, torch.float32)
    new = [(one, own[name]) for name, one in merged.named_parameters() if not torch.equal(one, own[name])]
    update = torch.stack([(one - before).norm() for one, before in new]).norm()
    for name, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}.items():
        rounding = torch.stack([(one.to(dtype) - one).norm() for one, _ in new]).norm()
        assert errors[name] == pytest.approx(float(rounding / update), rel=1e-4)
    merged.save_pretrained(folder / "merged")
    found, info = AutoModelForCausalLM.from_pretrained(folder / "merged", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    torch.testing.assert_close(logits(found.eval()), adapted, atol=1e-4, rtol=1e-4)
    return found


COMMON = ["llama", "gemma2", "gpt_neox", "gpt2", "mixtral"]
MORE = ("mistral", "qwen2", "qwen3", "qwen3_moe", "olmoe", *RECURRENT, *ALIBI)
OTHERS = [pytest.param(name, marks=pytest.mark.integration) for name in MORE]


@pytest.mark.parametrize("architecture", [*COMMON, *OTHERS])
def test_every_architecture_answers_as_with_its_adapter(architecture: str, tmp_path: Path) -> None:
    base = backbone(architecture) if architecture in CONFIGS else special(architecture)
    config = lora_config(LoraSection(r=4, target_modules="all-linear"), base)
    if architecture == "mamba":  # which multiplies by the weight of dt_proj itself, past every adapter
        config.target_modules = ["in_proj", "x_proj"]
    saved_adapter(base, tmp_path, config)
    check_answers(base, tmp_path)


@pytest.mark.parametrize("tied", [True, pytest.param(False, marks=pytest.mark.integration)])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_adapter_gives_the_same(kind: str, tied: bool, tmp_path: Path) -> None:
    base = random_model(LlamaConfig(**{**CONFIGS["llama"].to_dict(), "tie_word_embeddings": tied}))
    saved_adapter(
        base, tmp_path, LoraConfig(**{"task_type": "CAUSAL_LM", "r": 4, "target_modules": "all-linear", **KINDS[kind]})
    )
    config = check_answers(base, tmp_path).config
    with safe_open(tmp_path / "merged" / "model.safetensors", "pt") as file:
        assert config.tie_word_embeddings == ("lm_head.weight" not in file.keys())  # noqa: SIM118  # vLLM trusts it


def scores(run: Run, model: torch.nn.Module, encoder: object) -> np.ndarray:
    prompts = [prompt.ids for prompt in encoder.encode(SENTENCES)]  # type: ignore[attr-defined]
    return scorer.score(model, prompts, encoder.completions_K, unscored=encoder.unscored)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(["quant.method=nf4", "quant.compute_dtype=fp32"], marks=pytest.mark.integration),
        ["quant.method=nf4", "quant.compute_dtype=fp32", "lora.use_dora=true", "lora.modules_to_save=[lm_head]"],
    ],
    ids=["plain", "DoRA and a copied head"],
)
def test_over_nf4_the_merged_model_scores_as_the_adapter_does(tmp_path: Path, overrides: list[str]) -> None:
    run = finished_run(tmp_path, *overrides)
    config = config_of(run)
    encoder, model = merged_model(run, config)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    _, adapted = load_run(run, config)
    with adapted.disable_adapter():  # type: ignore[operator]
        bare = scores(run, adapted, encoder)
    expected = scores(run, adapted, encoder)
    assert np.abs(bare - expected).max() > 0.01  # the adapter matters
    np.testing.assert_allclose(scores(run, model, encoder), expected, atol=1e-4)
    model.save_pretrained(tmp_path / "merged")
    again = type(model).from_pretrained(tmp_path / "merged").eval()
    np.testing.assert_allclose(scores(run, again, encoder), expected, atol=1e-4)


def test_the_original_weights_are_another_base_than_the_dequantised_ones(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "quant.method=nf4", "lora.target_modules=[q_proj]")
    config = config_of(run)
    _, dequantised = merged_model(run, config)
    _, original = merged_model(run, config, base="original", dtype="bf16")
    backbone = type(original).from_pretrained(tmp_path / "backbone")
    name = "model.layers.0.mlp.up_proj"  # without adapter
    weight = backbone.get_submodule(name).weight
    assert torch.equal(original.get_submodule(name).weight, weight.bfloat16())
    assert not torch.equal(dequantised.get_submodule(name).weight, weight)


def test_a_dtype_that_cannot_hold_the_weights_is_refused(tmp_path: Path) -> None:
    base = backbone()
    saved_adapter(base, tmp_path, lora_config(LoraSection(r=1), base))
    base.get_input_embeddings().weight.data[0, 0] = 70000.0
    with pytest.raises(BackboneError, match=r"--dtype: .*\(got fp16, where model.embed_tokens.weight has infinities\)"):
        merge(base, tmp_path, torch.float16)
