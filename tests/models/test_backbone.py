"""Backbones: found by name, loaded on a device in a dtype, identified by hashes."""

import warnings
from collections.abc import Callable
from operator import mul
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from helpers.tiny import (
    ALIBI,
    CONFIGS,
    EXPERTS,
    HEADS,
    RECURRENT,
    SMALL,
    WINDOWED,
    awaken,
    backbone,
    random_model,
    special,
    tokenizer,
)
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM

from loraft.bundled import bundled_backbones
from loraft.config.schema import LoraSection, ModelConfig, QuantConfig
from loraft.engine.quantized_linear import dense_weight, is_4bit
from loraft.errors import BackboneError
from loraft.models import backbone as backbone_module
from loraft.models.adapter import add_adapter
from loraft.models.backbone import (
    CHUNK,
    _factors,
    _word_sums,
    cast,
    fingerprint,
    load_backbone,
    load_tokenizer,
    weights_hash,
    without_weights,
)
from loraft.models.causality import check_causal
from loraft.models.device import DTYPES, has_bf16, pick_compute_dtype, pick_device, pick_dtype
from loraft.models.quantization import check_nf4
from loraft.models.source import resolve_name

HIDDEN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
# Architectures whose tokens see later ones, and what they need beside `HIDDEN`.
ENCODERS = [
    "bert", "bert-generation", "big_bird", "camembert", "cpmant", "data2vec-text", "electra", "ernie", "gemma3_text",
    "megatron-bert", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm", "xlm-roberta",
    "xlm-roberta-xl", "xlnet",
]  # fmt: skip
SEES_ALL: dict[str, dict[str, Any]] = {
    "cpmant": {"dim_ff": 48, "dim_head": 8},
    "gemma3_text": {"num_key_value_heads": 2, "head_dim": 8, "use_bidirectional_attention": True},
    "rembert": {"input_embedding_size": 32, "output_embedding_size": 32},
    "roc_bert": {"pronunciation_vocab_size": 16, "shape_vocab_size": 16},
    "xlm": {"emb_dim": 32, "n_layers": 2, "n_heads": 4},
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
}
# Decoders that are hard to run: their own state, changes in place, a class named as a norm.
DECODERS: dict[str, dict[str, Any]] = {
    "bert": {"vocab_size": 8192, **HIDDEN, "is_decoder": True},
    "ctrl": {"vocab_size": 512, "n_embd": 32, "dff": 48, "n_layer": 2, "n_head": 4},
    "roberta-prelayernorm": {"vocab_size": 512, **HIDDEN, "is_decoder": True},
    "rwkv": {"vocab_size": 512, "hidden_size": 32, "num_hidden_layers": 2},
}
XLSTM = {"vocab_size": 512, "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 4, "chunk_size": 16}
SPECIAL = {**WINDOWED, **EXPERTS, **RECURRENT, **ALIBI, **DECODERS}

# --- names ------------------------------------------------------------------------------------------------------------


def test_a_name_is_a_bundled_backbone_then_a_folder_then_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("loraft-vi-tiny", "owner/name", "của em"):
        CONFIGS["llama"].save_pretrained(folder)
    assert resolve_name("loraft-vi-tiny") == str(bundled_backbones()["loraft-vi-tiny"])
    assert resolve_name("owner/name") == "owner/name"  # that folder
    assert resolve_name("của em") == "của em"
    assert resolve_name("owner/other") == "owner/other"  # the hub's


@pytest.mark.parametrize("name", ["./không-có", "a/b/c", "loraft-vi-tny"])
def test_a_backbone_that_is_not_there_is_refused_with_what_is_allowed(name: str) -> None:
    with pytest.raises(BackboneError, match=r"model\.name: .*loraft-vi-tiny"):
        resolve_name(name)


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"has no config\.json"):
        resolve_name(str(tmp_path))


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


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_an_encoder_is_refused(kind: str, tmp_path: Path) -> None:
    # gte-Qwen2's config says is_causal: false, and transformers then lets every token see all others
    own = {"bert": {"vocab_size": 8192, **HIDDEN}, "llama": {**SMALL, **HEADS, "is_causal": False}}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **own[kind]))
    model.save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match=rf"is no causal .*\(got {type(model).__name__}\); choose a decoder"):
        load_backbone(ModelConfig(name=str(tmp_path), dtype="bf16"), QuantConfig())


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_encoders_and_prefix_models_are_refused_however_small_their_weights(dtype: str) -> None:
    for kind in ENCODERS:
        config = AutoConfig.for_model(kind, **{"vocab_size": 512, **HIDDEN, **SEES_ALL.get(kind, {})})
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval().to(DTYPES[dtype])
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(0.1)
        with pytest.raises(BackboneError, match=rf"is no causal .*tokens see later .*got {type(model).__name__}"):
            check_causal("của em", model)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", [*DECODERS, *WINDOWED, *EXPERTS, *RECURRENT, *ALIBI, "gpt2"])
def test_a_decoder_is_not_taken_for_an_encoder(kind: str, dtype: str) -> None:
    own = {**CONFIGS, **{name: AutoConfig.for_model(name, **settings) for name, settings in SPECIAL.items()}}
    check_causal("của em", random_model(own[kind]).to(DTYPES[dtype]))


@pytest.mark.parametrize("kind", ["xmod", "prophetnet"])  # one wants a language; the other's head gets several streams
def test_a_backbone_that_cannot_run_is_refused(kind: str) -> None:
    own = {"xmod": {**HIDDEN, "is_decoder": True}, "prophetnet": {"hidden_size": 32, "num_decoder_layers": 1}}
    model = random_model(AutoConfig.for_model(kind, vocab_size=512, **own[kind]))
    with pytest.raises(BackboneError, match=r"^model\.name: của em cannot run 3 tokens .*language"):
        check_causal("của em", model)


def test_a_backbone_that_cannot_run_in_nf4_is_told_of_quant_none(tmp_path: Path) -> None:
    special("mamba").save_pretrained(tmp_path)
    with pytest.raises(
        BackboneError, match=r"cannot run 3 tokens .*; try --quant none, or --set model\.dtype=fp32, or choose"
    ):
        load_backbone(ModelConfig(name=str(tmp_path)), QuantConfig(method="nf4", allow_partial=True))


@pytest.mark.parametrize("method", ["none", "nf4"])
def test_a_backbone_that_fails_on_a_whole_chunk_only_is_refused(method: Any, tmp_path: Path) -> None:
    random_model(AutoConfig.for_model("xlstm", **XLSTM)).save_pretrained(tmp_path)
    ways = {"none": "", "nf4": "--quant none, or "}[method] + "--set model.dtype=fp32, or choose"
    with pytest.raises(BackboneError, match=rf"cannot run 16 tokens .*; try {ways}"):
        load_backbone(ModelConfig(name=str(tmp_path), dtype="bf16"), QuantConfig(method=method))
    load_backbone(ModelConfig(name=str(tmp_path), dtype="fp32"), QuantConfig(method=method))


def test_an_encoder_that_runs_in_fp32_only_is_refused_at_once(tmp_path: Path) -> None:
    config = AutoConfig.for_model("xlnet", vocab_size=512, **SEES_ALL["xlnet"])
    random_model(config).save_pretrained(tmp_path)  # loaded in bf16, a part of it computes in fp32
    with pytest.raises(BackboneError, match="is no causal language model"):
        load_backbone(ModelConfig(name=str(tmp_path), dtype="bf16"), QuantConfig())


@pytest.mark.parametrize("method", ["none", "nf4"])
def test_rwkv_computes_the_same_in_training_and_evaluation_and_stays_as_it_was_stored(
    method: Any, tmp_path: Path
) -> None:
    settings = {"hidden_size": 64, "num_hidden_layers": 4, "rescale_every": 2}  # layers are rescaled from the third on
    random_model(AutoConfig.for_model("rwkv", vocab_size=512, **settings)).save_pretrained(tmp_path)
    base = load_backbone(ModelConfig(name=str(tmp_path), dtype="fp32"), QuantConfig(method=method))
    before = weights_hash(base)
    ids = torch.arange(24)[None]
    plain = base(ids, use_cache=False).logits
    whole = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    whole.config.rescale_every = 0
    if method == "nf4":
        check_nf4(base, double_quant=True)
    for name, layer in base.named_modules():
        if is_4bit(layer):
            whole.get_submodule(name).weight.data = dense_weight(layer, torch.float32)
    torch.testing.assert_close(plain, whole(ids, use_cache=False).logits)
    assert weights_hash(base) == before
    model = add_adapter(base, LoraSection(r=2), seed=1)
    awaken(model)
    evaluated = model(ids, use_cache=False).logits
    model.train()
    trained = model(ids, use_cache=False).logits
    torch.testing.assert_close(trained, evaluated)
    trained.logsumexp(-1).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters() if p.requires_grad)


def test_the_bundled_folder_loads_with_transformers_alone() -> None:
    folder = bundled_backbones()["loraft-vi-tiny"]
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.dtype == torch.bfloat16


# --- what is loaded ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("native", [True, False])
def test_the_dtype_auto_is_bf16_where_the_device_multiplies_it(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr("loraft.models.device.has_bf16", lambda device: native)
    found = {dtype: load_backbone(ModelConfig(dtype=dtype), QuantConfig()).dtype for dtype in ("auto", "bf16", "fp32")}
    assert found == {
        "auto": torch.bfloat16 if native else torch.float32,
        "bf16": torch.bfloat16,
        "fp32": torch.float32,
    }


@pytest.mark.parametrize(
    ("dtype", "compute_dtype", "expected"),
    [("auto", "bf16", torch.bfloat16), ("auto", "fp32", torch.float32), ("fp32", "bf16", torch.float32)],
)
def test_with_nf4_auto_gives_what_is_not_quantised_the_dtype_of_the_products(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any, compute_dtype: Any, expected: torch.dtype
) -> None:
    monkeypatch.setattr("loraft.models.device.has_bf16", lambda device: False)
    backbone().save_pretrained(tmp_path)
    quant = QuantConfig(method="nf4", compute_dtype=compute_dtype)
    model = load_backbone(ModelConfig(name=str(tmp_path), dtype=dtype), quant)
    assert model.lm_head.weight.dtype == model.model.norm.weight.dtype == expected


def test_a_card_without_bf16_computes_in_fp16_and_the_cpu_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loraft.models.device.has_bf16", lambda device: False)
    card, cpu, nf4 = torch.device("cuda"), torch.device("cpu"), QuantConfig(method="nf4")
    half, whole = torch.float16, torch.float32
    found = [pick_dtype(ModelConfig(), quant, device) for quant in (QuantConfig(), nf4) for device in (card, cpu)]
    assert found == [half, whole, half, torch.bfloat16]
    assert [pick_compute_dtype(ModelConfig(), nf4, device) for device in (card, cpu)] == [half, torch.bfloat16]
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", whole), ("fp16", half)):  # what was given stays
        assert pick_dtype(ModelConfig(dtype=name), nf4, card) == dtype
        assert pick_compute_dtype(ModelConfig(dtype="fp32"), QuantConfig(compute_dtype=name), card) == dtype
        assert pick_compute_dtype(ModelConfig(dtype=name), nf4, cpu) == dtype  # so that fused layers can be used


def test_casting_leaves_buffers_and_makes_four_bit_layers_dequantise_to_the_dtype() -> None:
    model = load_backbone(ModelConfig(dtype="bf16"), QuantConfig(method="nf4"))
    codes, head = model.model.layers[0].mlp.up_proj.weight.clone(), model.lm_head.weight.clone()
    cast(model, torch.float32, torch.float32)
    layer = model.model.layers[0].mlp.up_proj
    assert torch.equal(layer.weight, codes)
    found = (layer.weight.quant_state.dtype, layer.compute_dtype, model.dtype, model.config.dtype)
    assert found == (torch.float32,) * 4
    assert torch.equal(model.lm_head.weight, head.float())
    assert model.lm_head.weight is model.model.embed_tokens.weight or not model.config.tie_word_embeddings
    cast(model, torch.float16, torch.float32)
    assert model.model.norm.weight.dtype == torch.float16
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_a_loaded_backbone_is_frozen_and_in_evaluation_mode() -> None:
    model = load_backbone(ModelConfig(), QuantConfig())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(module.training for module in model.modules())


def test_a_tokenizer_without_a_pad_token_pads_with_its_end_of_sequence(tmp_path: Path) -> None:
    tokenizer().save_pretrained(tmp_path)
    CONFIGS["llama"].save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"pad_token"', '"unused"'), encoding="utf-8")
    found = load_tokenizer(ModelConfig(name=str(tmp_path)))
    assert found.pad_token_id == found.eos_token_id != tokenizer().pad_token_id
    assert load_tokenizer(ModelConfig()).pad_token_id == tokenizer().pad_token_id


@pytest.mark.parametrize("architecture", ["qwen3", "gemma2"])
def test_a_tokenizer_that_transformers_made_up_is_refused(architecture: str, tmp_path: Path) -> None:
    CONFIGS[architecture].save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="has no tokenizer"):
        load_tokenizer(ModelConfig(name=str(tmp_path)))


@pytest.mark.parametrize(
    ("machine", "supported", "native"),
    [("x86_64", True, True), ("x86_64", False, False), ("aarch64", True, False)],
)
def test_a_cpu_multiplies_bf16_by_avx512_or_amx_only(
    monkeypatch: pytest.MonkeyPatch, machine: str, supported: bool, native: bool
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    for first, second in ((supported, False), (False, supported)):
        monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda first=first: first)
        monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda second=second: second)
        assert has_bf16(torch.device("cpu")) == native


def test_other_devices_multiply_bf16_if_they_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: including_emulation)
    assert [has_bf16(torch.device(name)) for name in ("cuda", "xpu", "mps")] == [False, True, False]


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Sets which accelerator this machine seems to have."""

    def have(kind: str | None) -> None:
        monkeypatch.setattr("torch.accelerator.is_available", lambda: kind is not None)
        monkeypatch.setattr("torch.accelerator.current_accelerator", lambda: torch.device(str(kind)))
        for name, place in (("cuda", "torch.cuda"), ("mps", "torch.backends.mps"), ("xpu", "torch.xpu")):
            monkeypatch.setattr(f"{place}.is_available", lambda name=name: name == kind)

    return have


def test_auto_takes_the_accelerator_and_else_the_cpu(accelerator: Callable[[str | None], None]) -> None:
    for kind, expected in ((None, "cpu"), ("cuda", "cuda"), ("mps", "mps")):
        accelerator(kind)
        assert pick_device("auto") == torch.device(expected)
        assert pick_device("cpu") == torch.device("cpu")


def test_a_device_that_is_not_there_is_refused(accelerator: Callable[[str | None], None]) -> None:
    accelerator("cuda")
    assert pick_device("cuda") == torch.device("cuda")
    for missing in ("mps", "xpu"):
        with pytest.raises(BackboneError, match=rf"model\.device: {missing} is not available .*use auto or cpu"):
            pick_device(missing)


def test_each_process_takes_the_device_of_its_local_rank(
    accelerator: Callable[[str | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    accelerator("cuda")
    monkeypatch.setattr("loraft.distributed.is_distributed", lambda: True)
    monkeypatch.setattr("loraft.distributed.local_rank", lambda: 3)
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda", 3)
    assert pick_device("cpu") == torch.device("cpu")


def test_without_weights_the_shapes_are_those_of_the_loaded_backbone() -> None:
    shapes, loaded = without_weights(ModelConfig()), load_backbone(ModelConfig(), QuantConfig())
    assert all(parameter.is_meta for parameter in shapes.parameters())
    assert {name: parameter.shape for name, parameter in shapes.named_parameters()} == {
        name: parameter.shape for name, parameter in loaded.named_parameters()
    }


# --- hashes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["t5", "bert"])
def test_without_weights_what_is_no_causal_model_is_refused(kind: str, tmp_path: Path) -> None:
    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match=f"is no causal language model .*'{kind}'"):
        without_weights(ModelConfig(name=str(tmp_path)))


def test_fingerprints_tell_backbones_apart() -> None:
    assert fingerprint(backbone()) == fingerprint(backbone())
    assert fingerprint(backbone(seed=0)) != fingerprint(backbone(seed=1))
    with_adapter = add_adapter(backbone(), LoraSection(r=4), seed=1)
    assert fingerprint(with_adapter) == fingerprint(backbone())
    sibling = backbone()
    sibling.model.layers[1].mlp.up_proj.weight.data *= 1.01
    assert fingerprint(sibling) != fingerprint(backbone())
    assert fingerprint(backbone().bfloat16().float()) != fingerprint(backbone())
    empty = backbone()
    for parameter in empty.parameters():
        parameter.data.zero_()
    assert fingerprint(empty.half()) != fingerprint(empty.bfloat16())  # the same bytes
    whole, packed = (load_backbone(ModelConfig(), quant) for quant in (QuantConfig(), QuantConfig(method="nf4")))
    assert fingerprint(whole) != fingerprint(packed)


def test_one_changed_bit_changes_the_hash() -> None:
    base = backbone()
    before = weights_hash(base)
    weight = base.model.layers[1].mlp.down_proj.weight
    weight.data[3, 5] = torch.nextafter(weight.data[3, 5], torch.tensor(torch.inf))
    assert weights_hash(base) != before


def test_a_backbone_that_peft_has_not_let_go_has_another_hash() -> None:
    base = backbone()
    before = weights_hash(base)
    base.peft_config = {}  # `add_adapter` would refuse it
    assert weights_hash(base) != before


def test_a_changed_buffer_changes_the_hash() -> None:
    base = backbone()
    before = weights_hash(base)
    base.model.rotary_emb.inv_freq[2] *= 2  # a buffer that is not in the state dict
    assert weights_hash(base) != before


class Weights(torch.nn.Module):
    """Two weights of one shape and dtype with random bits; NaN are among the numbers that they stand for."""

    device = torch.device("cpu")

    def __init__(self, dtype: torch.dtype, count: int = CHUNK + 4322) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        for name in ("a", "b"):
            bits = torch.randint(256, (count * dtype.itemsize,), dtype=torch.uint8, generator=generator)
            self.register_buffer(name, bits.view(dtype))

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.get_buffer(name).view(torch.uint8)  # as bytes


def flip(bits: torch.Tensor, *places: int) -> None:
    for place in places:
        bits[place // 8] ^= 1 << place % 8


def swap(x: torch.Tensor, i: int, j: int) -> None:
    x[i], x[j] = x[j].clone(), x[i].clone()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.bool])
def test_every_kind_of_change_changes_the_hash(dtype: torch.dtype) -> None:
    before, last = weights_hash(Weights(dtype)), (CHUNK + 4322) * 8 - 1
    assert weights_hash(Weights(dtype)) == before
    top = range(31, last, 32)  # of every 32-bit word: products with an even factor, or of 64-bit words, would lose it
    changes: list[Callable[[Any], Any]] = [
        *(lambda w, place=place: flip(w["a"], place) for place in (0, 7, 31, 63, 100_003, last - 7, last)),
        lambda w: flip(w["b"], last),
        lambda w: flip(w["a"], 31, 63),
        lambda w: flip(w["a"], *top[:1000]),
        lambda w: swap(w.a.view(w["a"].dtype), 0, 1),
        lambda w: swap(w["a"], 5, 5 + 4 * CHUNK % (CHUNK + 4000)),
        lambda w: setattr(w, "a", w.a.flip(0)),
        lambda w: setattr(w, "a", w.a.roll(1)),
        lambda w: vars(w).update(_buffers={"a": w.b, "b": w.a}),
        lambda w: vars(w).update(_buffers={"a": w.a, "c": w.b}),
        lambda w: setattr(w, "a", w.a.view(2, -1)),
        lambda w: setattr(w, "a", w.a.view(torch.int8 if dtype.itemsize == 1 else torch.int16)),
    ]
    for number, change in enumerate(changes):
        changed = Weights(dtype)
        change(changed)
        assert weights_hash(changed) != before, number


def test_an_element_that_changes_places_with_the_same_one_of_another_chunk_changes_the_hash() -> None:
    one, other = (Weights(torch.float32, 3 * CHUNK) for _ in range(2))
    swap(other.a, 5, 5 + CHUNK)
    assert weights_hash(one) != weights_hash(other)


def test_the_hash_is_of_the_published_family() -> None:
    words = torch.randint(-(2**31), 2**31 - 1, (2 * CHUNK + 3,), dtype=torch.int32)
    factors, numbers = _factors(torch.device("cpu")).tolist(), words.tolist()
    assert all(factor % 2 for factor in factors)
    # Lemire & Kaser 2014: the sum of factor times word, modulo 2^64
    chunks = [numbers[start : start + CHUNK] for start in range(0, len(numbers), CHUNK)]
    expected = [sum(map(mul, chunk, factors)) % 2**64 for chunk in chunks]
    for together in (1, 64):  # as on a CPU, and as on an accelerator
        with patch.object(backbone_module, "CHUNKS_AT_ONCE", together):
            found = torch.cat(_word_sums(words.view(torch.bfloat16)))
            assert [number % 2**64 for number in found.tolist()] == expected


def test_views_and_tensors_of_odd_sizes_are_hashed_as_they_read() -> None:
    whole = torch.arange(4096, dtype=torch.int16).view(torch.bfloat16)
    for part in (whole[1:4001], whole[2:4001], whole.view(64, 64).t(), whole[:0], whole[7]):
        sums = [torch.cat(made) if made else None for made in (_word_sums(part), _word_sums(part.clone()))]
        assert (sums[0] is None) == (part.numel() == 0)
        assert sums[0] is None or torch.equal(sums[0], torch.as_tensor(sums[1]))


def test_quantised_weights_are_hashed_with_all_their_constants() -> None:
    base = load_backbone(ModelConfig(), QuantConfig(method="nf4"))
    before = weights_hash(base)
    state = base.model.layers[1].mlp.up_proj.weight.quant_state
    for tensor in (
        base.model.layers[1].mlp.up_proj.weight, state.absmax, state.code, state.offset, state.state2.absmax,
    ):  # fmt: skip
        flip(tensor.detach().view(-1).view(torch.uint8), 5)
        assert weights_hash(base) != before
        flip(tensor.detach().view(-1).view(torch.uint8), 5)
    assert weights_hash(base) == before
    state.blocksize *= 2
    assert weights_hash(base) != before


class Watch(TorchDispatchMode):
    """Notes what is read from a device one number at a time, and the most words that were made at once."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.most = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.read += func is torch.ops.aten._local_scalar_dense.default
        if isinstance(out, torch.Tensor) and out.dtype == torch.int64:
            self.most = max(self.most, out.numel())
        return out


def test_hashing_copies_no_tensor_and_waits_for_the_device_once() -> None:
    base = load_backbone(ModelConfig(), QuantConfig(method="nf4"))
    weights_hash(base)  # makes the factors
    with Watch() as watch:
        weights_hash(base)
    assert watch.read == 0
    assert 0 < watch.most <= CHUNK < base.get_input_embeddings().weight.numel() / 4


@pytest.mark.gpu
def test_on_a_gpu_the_hash_is_the_same_and_waits_once() -> None:
    on_cpu = backbone().bfloat16()
    before = weights_hash(on_cpu)
    on_gpu = on_cpu.to("cuda")
    weights_hash(on_gpu)  # makes the factors
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            assert weights_hash(on_gpu) == before
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert sum("synchronizing" in str(warning.message) for warning in warned) == 1
