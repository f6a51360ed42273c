"""Adapters: their shape and weights, what is refused, and that the backbone is the same to the last bit after each."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.plain_scoring import score_plainly
from helpers.tiny import CONFIGS, HEADS, SMALL, awaken, backbone, encoder, prompts
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig, PreTrainedModel

from loraft.config.schema import Config, LoraSection, ModelConfig, QuantConfig
from loraft.engine.scorer import score
from loraft.errors import BackboneError
from loraft.models.adapter import (
    add_adapter,
    add_adapters,
    apply_adapter,
    count_trainable,
    load_adapter,
    lora_config,
    parameter_counts,
    remove_adapter,
    weights_of,
)
from loraft.models.backbone import load_backbone, weights_hash, without_weights

TARGETS = {"gpt2": "default"}
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
pytestmark = [
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),  # peft, of GPT-2: it mends it
    pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys:RuntimeWarning"),  # peft, of experts
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings:UserWarning"),  # here a copy is meant
]

# --- shape and weights ------------------------------------------------------------------------------------------------


def test_the_tutorials_adapter_has_the_tutorials_parameters() -> None:
    with torch.device("meta"):
        model = get_peft_model(
            AutoModelForCausalLM.from_config(LLAMA_1B), lora_config(LoraSection(r=8, target_modules="default"))
        )
    assert parameter_counts(model) == (851_968, 1_236_666_368)


@pytest.mark.parametrize("rank", [1, 16])
def test_trainable_parameters_are_r_times_the_sum_of_both_dimensions(rank: int) -> None:
    base = backbone()
    shapes = [
        tuple(p.shape) for n, p in base.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n
    ]
    model = add_adapter(base, LoraSection(r=rank), seed=1)
    assert parameter_counts(model)[0] == sum(rank * (rows + columns) for rows, columns in shapes)


def test_parameter_counts_do_not_depend_on_quantisation() -> None:
    counts = [
        parameter_counts(add_adapter(load_backbone(ModelConfig(), quant), LoraSection(r=4), seed=1))
        for quant in (QuantConfig(), QuantConfig(method="nf4"))
    ]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("init", ["default", "pissa"])
def test_parameters_are_counted_without_weights(tmp_path: Path, architecture: str, init: str) -> None:
    CONFIGS[architecture].save_pretrained(tmp_path)
    lora = Config(lora={"r": 3, "target_modules": "default", "init_lora_weights": init}).lora  # type: ignore[arg-type]
    model = add_adapter(backbone(architecture), lora.model_copy(update={"init_lora_weights": "default"}), seed=1)
    shapes = without_weights(ModelConfig(name=str(tmp_path)))
    assert all(parameter.is_meta for parameter in shapes.parameters())
    names = [name for name, _ in shapes.named_modules()]
    assert count_trainable(shapes, lora) == model.get_nb_trainable_parameters()[0]
    assert [name for name, _ in shapes.named_modules()] == names
    assert not hasattr(shapes, "peft_config")


@pytest.mark.parametrize("init", ["default", "gaussian", "orthogonal"])
def test_an_empty_adapter_takes_the_weights_of_another(tmp_path: Path, init: str) -> None:
    section = LoraSection(r=4, target_modules="all-linear", init_lora_weights=init)
    model = add_adapter(backbone(), section, seed=1)
    awaken(model)
    model.save_pretrained(str(tmp_path))
    other = add_adapter(backbone(), section, seed=2, empty=True)
    assert all(weight.is_meta for weight in weights_of(other, "default"))
    other.load_adapter(str(tmp_path), "default", is_trainable=True, low_cpu_mem_usage=True)
    found = dict(other.named_parameters())
    assert {name: weight.dtype for name, weight in found.items()} == {n: w.dtype for n, w in model.named_parameters()}
    assert all(torch.equal(found[name], weight) for name, weight in model.named_parameters())


@pytest.mark.parametrize("targets", ["all-linear", "default", ["v_proj", "embed_tokens"], ["gate_proj"]])
def test_saving_asks_no_hub_and_writes_what_peft_writes(
    tmp_path: Path, targets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "peft.utils.save_and_load.check_file_exists_on_hf_hub", lambda *given: pytest.fail("the hub was asked")
    )
    base = backbone()
    base.name_or_path = base.config.name_or_path = "không/có"
    model = add_adapter(base, LoraSection(r=2, target_modules=targets), seed=1)
    told = pytest.warns(UserWarning, match="embedding layers found") if "embed_tokens" in targets else nullcontext()
    with told:
        model.save_pretrained(str(tmp_path))
    monkeypatch.undo()
    expected = get_peft_model_state_dict(model, save_embedding_layers="embed_tokens" in targets)
    found = load_file(tmp_path / "adapter_model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_counting_on_a_loaded_backbone_changes_no_weight() -> None:
    base = backbone()
    before = weights_hash(base)
    assert count_trainable(base, LoraSection(r=2, init_lora_weights="pissa")) > 0
    assert weights_hash(base) == before


def test_every_setting_reaches_peft() -> None:
    section = LoraSection(r=6, lora_alpha=9, lora_dropout=0.25, target_modules=["q_proj"], use_rslora=True,
                          use_dora=True, init_lora_weights="olora")  # fmt: skip
    found = lora_config(section)
    assert (found.r, found.lora_alpha, found.lora_dropout, found.target_modules) == (6, 9, 0.25, {"q_proj"})
    assert (found.use_rslora, found.use_dora, found.init_lora_weights) == (True, True, "olora")
    assert (found.task_type, found.bias) == ("CAUSAL_LM", "none")
    plain = lora_config(LoraSection(alpha_per_rank=2, r=6, target_modules="default"))
    assert (plain.lora_alpha, plain.target_modules, plain.use_rslora) == (12, None, False)
    assert (plain.use_dora, plain.init_lora_weights) == (False, True)


def test_adapter_weights_follow_the_seed_and_are_fp32() -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        model = add_adapter(backbone().bfloat16(), LoraSection(r=4), seed=seed)
        return [p for p in model.parameters() if p.requires_grad]

    first, same, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert {weight.dtype for weight in first} == {torch.float32}


def test_several_adapters_are_each_initialised_as_alone_and_all_active() -> None:
    sections = [LoraSection(r=r) for r in (2, 4)]
    model, names = add_adapters(backbone().bfloat16(), sections, seed=5)
    assert model.active_adapters == names
    for section, name in zip(sections, names, strict=True):
        alone = add_adapter(backbone().bfloat16(), section, seed=5)
        found, expected = weights_of(model, name), [p for p in alone.parameters() if p.requires_grad]
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert all(weight.requires_grad and weight.dtype == torch.float32 for weight in found)


# --- what an adapter does to the scores -------------------------------------------------------------------------------


@pytest.mark.parametrize("init", ["default", "gaussian", "orthogonal"])
def test_a_fresh_adapter_changes_no_score(init: str) -> None:
    expected = score(backbone(), prompts(), encoder().completions_K)
    model = add_adapter(backbone(), LoraSection(r=4, init_lora_weights=init), seed=1)  # type: ignore[arg-type]
    ups = [parameter for name, parameter in model.named_parameters() if "lora_B" in name]
    assert ups
    # In an orthogonal adapter B is not 0; B A is, as the rows of one lie in a space orthogonal to those of the other.
    assert all(bool(up.any()) == (init == "orthogonal") for up in ups)
    # 1e-5: what is left of B A in fp32, through two layers, and the sum of log-probabilities of about 10.
    difference = abs(score(model, prompts(), encoder().completions_K) - expected).max()
    assert difference <= (1e-5 if init == "orthogonal" else 0)


def test_a_fresh_orthogonal_adapter_changes_the_scores_of_a_bf16_backbone() -> None:
    # peft rounds A and B to the backbone's bf16, whose 8 bits leave B A at about 2 ** -8 of |B| |A|.
    expected = score(backbone().bfloat16(), prompts(), encoder().completions_K)
    base = backbone().bfloat16()
    before = weights_hash(base)
    with pytest.warns(UserWarning, match=r"orthogonal .* rounded .*; with model\.dtype=fp32"):
        model = add_adapter(base, LoraSection(r=4, init_lora_weights="orthogonal"), seed=1)
    assert 0.01 < abs(score(model, prompts(), encoder().completions_K) - expected).max() < 1
    for down, up in zip(
        [p for n, p in model.named_parameters() if "lora_A" in n],
        [p for n, p in model.named_parameters() if "lora_B" in n],
        strict=True,
    ):
        assert 0 < (up @ down).norm() / (up.norm() * down.norm()) < 2**-8
    assert weights_hash(remove_adapter(model)) == before


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_inits_that_move_weights_into_the_adapter_keep_the_answers(init: str) -> None:
    expected = score(backbone(), prompts(), encoder().completions_K)
    model = add_adapter(backbone(), LoraSection(r=4, init_lora_weights=init), seed=1)  # type: ignore[arg-type]
    assert abs(score(model, prompts(), encoder().completions_K) - expected).max() < 1e-3
    moved = model.get_base_model().model.layers[0].mlp.up_proj.base_layer.weight
    assert not torch.equal(moved, backbone().model.layers[0].mlp.up_proj.weight)


@pytest.mark.parametrize(
    "lora",
    [{}, {"use_dora": True}, {"use_rslora": True}, {"init_lora_weights": "pissa"}, {"init_lora_weights": "olora"}],
    ids=str,
)
def test_a_saved_adapter_loads_in_plain_peft_with_the_same_scores(tmp_path: Path, lora: dict[str, Any]) -> None:
    model = add_adapter(backbone(), LoraSection(r=4, **lora), seed=1)
    awaken(model)
    model.save_pretrained(str(tmp_path))
    expected = score(model.eval(), prompts(), encoder().completions_K)
    ours = load_adapter(backbone(), tmp_path)
    plain = PeftModel.from_pretrained(backbone(), str(tmp_path)).eval()
    assert abs(expected - score(backbone(), prompts(), encoder().completions_K)).max() > 1e-3
    for loaded in (ours, plain):
        assert (score(loaded, prompts(), encoder().completions_K) == expected).all()
    assert (score(apply_adapter(backbone(), tmp_path), prompts(), encoder().completions_K) == expected).all()
    assert not ours.training
    assert not any(parameter.requires_grad for parameter in ours.parameters())


def test_a_loaded_adapter_is_fp32_on_a_bf16_backbone(tmp_path: Path) -> None:
    add_adapter(backbone(), LoraSection(r=2), seed=1).save_pretrained(str(tmp_path))
    loaded = load_adapter(backbone().bfloat16(), tmp_path)
    assert {p.dtype for n, p in loaded.named_parameters() if "lora_" in n} == {torch.float32}


# --- the backbone under it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("variant", [{}, {"use_dora": True}])
def test_the_backbone_is_bit_identical_without_the_adapter(architecture: str, variant: dict[str, bool]) -> None:
    base = backbone(architecture)
    before = weights_hash(base)
    scores = score(base, prompts(), encoder().completions_K)
    section = LoraSection(r=2, target_modules=TARGETS.get(architecture, "all-linear"), **variant)  # type: ignore[arg-type]
    model = add_adapter(base, section, seed=1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_()
    assert weights_hash(base) != before
    base.train()
    assert remove_adapter(model) is base
    assert weights_hash(base) == before
    assert (score(base, prompts(), encoder().completions_K) == scores).all()
    assert not any(parameter.requires_grad for parameter in base.parameters())
    assert not any(module.training for module in base.modules())
    assert add_adapter(base, section, seed=1) is not None  # which refuses a backbone that carries one


def test_an_nf4_backbone_is_bit_identical_without_the_adapter() -> None:
    base = load_backbone(ModelConfig(), QuantConfig(method="nf4"))
    before = weights_hash(base)
    remove_adapter(add_adapter(base, LoraSection(r=2), seed=1))
    assert weights_hash(base) == before


# --- modules trained whole, and experts -------------------------------------------------------------------------------

KINDS_OF_BACKBONES = {
    "untied": CONFIGS["llama"],
    "tied": LlamaConfig(**SMALL, **HEADS, tie_word_embeddings=True),
    "experts": MixtralConfig(**SMALL, **HEADS, num_local_experts=4),
}
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def of_kind(kind: str) -> PreTrainedModel:
    """A frozen backbone whose answers differ from row to row."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(KINDS_OF_BACKBONES[kind])
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.15)
    return model.requires_grad_(False).eval()


def stirred(model: PeftModel) -> PeftModel:
    """The model with other adapter weights."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    return model.eval()


@pytest.mark.parametrize(
    ("kind", "lora"),
    [
        ("untied", {"modules_to_save": ["lm_head", "mlp"]}),
        ("tied", {"modules_to_save": ["lm_head"]}),
        ("tied", {"modules_to_save": ["embed_tokens"]}),
        ("experts", {}),  # peft's all-linear means the experts and the router, too
        ("experts", {"target_modules": ["q_proj"], "target_parameters": EXPERTS}),
    ],
    ids=str,
)
def test_the_backbone_is_bare_again_after_copies_and_experts(kind: str, lora: dict[str, Any]) -> None:
    base = of_kind(kind)
    before, scores = weights_hash(base), score(base, prompts(), encoder().completions_K)
    section = LoraSection(r=2, **lora)
    model = add_adapter(base, section, seed=1)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert abs(score(model.eval(), prompts(), encoder().completions_K) - scores).max() < 1e-5
    changed = score(stirred(model), prompts(), encoder().completions_K)
    assert abs(changed - scores).max() > 1e-2
    # A full pass by peft's own layers, without cache and tree.
    assert abs(changed - score_plainly(model, prompts(), encoder().completions_K)).max() < 1e-5
    assert weights_hash(remove_adapter(model)) == before
    assert not any(parameter.requires_grad for parameter in base.parameters())
    assert (base.lm_head.weight is base.model.embed_tokens.weight) == (kind == "tied")
    assert count_trainable(base, section) == sum(parameter.numel() for parameter in trained)
    assert weights_hash(base) == before


def test_copies_on_a_bf16_backbone_are_fp32(tmp_path: Path) -> None:
    section = LoraSection(r=2, modules_to_save=["lm_head", "embed_tokens"])
    model = stirred(add_adapter(of_kind("tied").bfloat16(), section, seed=1))
    model.save_pretrained(str(tmp_path))
    loaded = load_adapter(of_kind("tied").bfloat16(), tmp_path)
    copies = [{n: p for n, p in m.named_parameters() if ".modules_to_save." in n} for m in (model, loaded)]
    assert len(copies[0]) == 2
    assert all(torch.equal(p, copies[1][n]) and p.dtype == torch.float32 for n, p in copies[0].items())
    expected = score(model, prompts(), encoder().completions_K)
    assert (score(loaded, prompts(), encoder().completions_K) == expected).all()


# --- adapters made elsewhere ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "lora"),
    [
        ("untied", {"target_modules": r".*layers\.1\..*_proj"}),
        ("untied", {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"up_proj": 9}, "use_rslora": True}),
        ("untied", {"use_dora": True, "exclude_modules": ["q_proj"]}),
        ("untied", {"bias": "all", "modules_to_save": ["input_layernorm"]}),
        ("tied", {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
        ("tied", {"target_modules": ["q_proj", "embed_tokens"]}),
        ("experts", {}),
        ("experts", {"target_modules": ["q_proj"], "target_parameters": EXPERTS}),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore")  # peft's remarks on these
def test_any_lora_that_peft_wrote_scores_as_in_peft(tmp_path: Path, kind: str, lora: dict[str, Any]) -> None:
    section = LoraConfig(**{"task_type": "CAUSAL_LM", "r": 4, "target_modules": "all-linear", **lora})
    stirred(get_peft_model(of_kind(kind), section)).save_pretrained(str(tmp_path))
    plain = PeftModel.from_pretrained(of_kind(kind), str(tmp_path)).eval()
    expected = score_plainly(plain, prompts()[:3], encoder().completions_K)
    assert abs(expected - score_plainly(of_kind(kind), prompts()[:3], encoder().completions_K)).max() > 1e-2
    found = score(apply_adapter(of_kind(kind), tmp_path), prompts()[:3], encoder().completions_K)
    assert abs(found - expected).max() < 1e-5


@pytest.mark.parametrize("lora", [{}, {"bias": "all"}, {"modules_to_save": ["lm_head"]}], ids=str)
@pytest.mark.filterwarnings("ignore")  # peft's remarks on these
def test_weights_that_are_missing_or_fit_nowhere_are_named(tmp_path: Path, lora: dict[str, Any]) -> None:
    architecture = "qwen2" if "bias" in lora else "llama"
    section = LoraConfig(**{"task_type": "CAUSAL_LM", "r": 4, "target_modules": "all-linear", **lora})
    get_peft_model(backbone(architecture), section).save_pretrained(str(tmp_path))
    path = tmp_path / "adapter_model.safetensors"
    weights = load_file(path)
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    own = {"bias": f"{layer}.base_layer.bias", "modules_to_save": "base_model.model.lm_head.weight"}
    gone = own.get(next(iter(lora))) if lora else None
    changes: list[tuple[dict[str, Any], str]] = [
        # Both weights of a layer: what is left would be a plain adapter of fewer layers.
        ({k: v for k, v in weights.items() if not k.startswith(f"{layer}.lora_")}, rf"misses .*{layer}\.lora_A"),
        (
            {**weights, f"{layer}.lora_C.weight": weights[f"{layer}.lora_A.weight"].clone()},
            r"no place for .*q_proj\.lora_C",
        ),
        (
            {**weights, f"{layer}.lora_A.weight": torch.zeros(3, 32)},
            rf"shapes {layer}\.lora_A\.weight 3x32 instead of 4x32",
        ),
        ({k: v for k, v in weights.items() if k != gone}, rf"misses {gone}"),
    ]
    for changed, message in changes if gone else changes[:3]:
        save_file(changed, path)
        with pytest.raises(BackboneError, match=message):
            apply_adapter(backbone(architecture), tmp_path)


def test_settings_of_a_later_peft_are_refused(tmp_path: Path) -> None:
    add_adapter(backbone(), LoraSection(r=2), seed=1).save_pretrained(str(tmp_path))
    path = tmp_path / "adapter_config.json"
    path.write_text(path.read_text(encoding="utf-8").replace("{", '{"use_điều_mới": true,', 1), encoding="utf-8")
    with pytest.raises(BackboneError, match=r"does not know use_điều_mới; install .*\(got 0\."):
        apply_adapter(backbone(), tmp_path)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_an_adapter_over_an_adapter_is_refused() -> None:
    model = add_adapter(backbone(), LoraSection(r=4), seed=1)
    for stacked in (model, model.get_base_model()):
        with pytest.raises(BackboneError, match="has an adapter already"):
            add_adapter(stacked, LoraSection(r=8), seed=1)


@pytest.mark.parametrize("init", ["pissa", "olora", "orthogonal"])
def test_an_init_that_reads_whole_weights_is_refused_with_nf4(init: str) -> None:
    base = backbone()
    base.is_loaded_in_4bit = True  # as transformers marks it
    section = LoraSection(r=4, init_lora_weights=init)  # type: ignore[arg-type]
    with pytest.raises(BackboneError, match=f"{init} does not work on weights that are quantised"):
        add_adapter(base, section, seed=1)
    assert not hasattr(base, "peft_config")


@pytest.mark.parametrize("init", ["default", "gaussian"])
def test_the_other_inits_work_with_nf4(init: str) -> None:
    base = load_backbone(ModelConfig(), QuantConfig(method="nf4"))
    assert base.is_loaded_in_4bit
    assert add_adapter(base, LoraSection(r=4, init_lora_weights=init), seed=1)  # type: ignore[arg-type]


def test_what_peft_refuses_is_refused_with_the_keys() -> None:
    linear = LoraSection(target_modules=["q_proj"], target_parameters=["q_proj.weight"])
    with pytest.raises(BackboneError, match=r"peft cannot build the adapter \(.*q_proj.*check lora\.target_modules"):
        add_adapter(backbone(), linear, seed=1)
