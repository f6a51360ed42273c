"""Backbones whose config.json is damaged, or is that of a model that is no causal language model."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.bad_input import refusal
from helpers.bad_models import edited, evaluated, tiny_model
from transformers import modeling_utils

from loraft.config.schema import ModelConfig, QuantConfig
from loraft.errors import BackboneError
from loraft.models.backbone import load_backbone

CANNOT = r"^error: model\.name: cannot load /.*/mô hình: "
NO_DECODER = r"^error: model\.name: .*mô hình is no causal language model \(got model_type "
TEXTS = {
    "empty": "",
    "a blank": " \n",
    "half an object": '{"model_type": "llama"',
    "a list": "[]",
    "null": "null",
    "a number": "5",
    "a word": '"llama"',
    "an empty object": "{}",
    "YAML": "model_type: llama\n",
    "a comment": '// của tôi\n{"model_type": "llama"}',
    "single quotes": "{'model_type': 'llama'}",
    "binary": "\x00\x01\x02\x03",
    "100,000 open brackets": "[" * 100_000,
    "deep objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "a number of 5,000 digits": '{"model_type": "llama", "vocab_size": ' + "9" * 5000 + "}",
    "a hub's error page": "<!doctype html><html>404</html>",
    "a pointer of Git LFS": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
}
KEYS: dict[str, tuple[dict[str, Any], str]] = {
    "no model type": ({"model_type": None, "architectures": None}, CANNOT),
    "a model type of the future": ({"model_type": "llama9"}, CANNOT + r".*llama9"),
    "a model type in capitals": ({"model_type": "LLAMA"}, CANNOT),
    "a model type that is a list": ({"model_type": ["llama"]}, CANNOT),
    "a model type that is a number": ({"model_type": 5}, CANNOT),
    "BERT": ({"model_type": "bert"}, NO_DECODER + "'bert'"),
    "RoBERTa": ({"model_type": "roberta"}, NO_DECODER),
    "XLM-RoBERTa": ({"model_type": "xlm-roberta"}, NO_DECODER),
    "ELECTRA": ({"model_type": "electra"}, NO_DECODER),
    "DistilBERT": ({"model_type": "distilbert"}, NO_DECODER),
    "T5": ({"model_type": "t5"}, NO_DECODER),
    "BART": ({"model_type": "bart"}, NO_DECODER + "'bart'"),
    "mT5": ({"model_type": "mt5"}, NO_DECODER),
    "Whisper": ({"model_type": "whisper"}, r"^error: model\.name: "),
    "CLIP": ({"model_type": "clip"}, NO_DECODER),
    "ViT": ({"model_type": "vit"}, NO_DECODER),
    "no layers": ({"num_hidden_layers": 0}, r"^error: model\.name: the weights of .* do not fit"),
    "a layer more": ({"num_hidden_layers": 3}, r"the weights of /.*/mô hình do not fit its architecture: 9 missing \("),
    "a layer less": ({"num_hidden_layers": 1}, r"do not fit its architecture: 9 unexpected \("),
    "negative layers": ({"num_hidden_layers": -1}, r"^error: model\.name: "),
    "layers as text": ({"num_hidden_layers": "hai"}, CANNOT),
    "another width": ({"hidden_size": 64}, r"do not fit its architecture: .* of another shape \("),
    "no width": ({"hidden_size": 0}, r"do not fit its architecture: .* of another shape \("),
    "a negative width": ({"hidden_size": -32}, CANNOT),
    "a width that is null": ({"hidden_size": None}, CANNOT),
    "heads that do not divide": ({"num_attention_heads": 5}, CANNOT),
    "no heads": ({"num_attention_heads": 0}, CANNOT),
    "a smaller vocabulary": ({"vocab_size": 100}, r"do not fit its architecture: .* of another shape \("),
    "no vocabulary": ({"vocab_size": 0}, r"^error: model\.name: "),
    "an unknown activation": ({"hidden_act": "nhanh"}, CANNOT),
    "an unknown rotary type": ({"rope_parameters": {"rope_type": "xoắn", "rope_theta": 1e4}}, CANNOT),
    "an unknown dtype": ({"dtype": "float5"}, CANNOT),
    "a quantisation that is a list": ({"quantization_config": [4]}, CANNOT),
    "a padding token beyond the vocabulary": ({"pad_token_id": 10**9}, CANNOT),
    "few positions": ({"max_position_embeddings": 16}, r"^error: .*positions"),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_config_that_is_no_config_is_refused(text: str) -> None:
    (tiny_model() / "config.json").write_text(text, encoding="utf-8")
    refusal(evaluated(), CANNOT)


@pytest.mark.parametrize(("change", "says"), KEYS.values(), ids=KEYS)
def test_a_config_of_another_model_is_refused(change: dict[str, Any], says: str) -> None:
    edited(tiny_model() / "config.json", change)
    refusal(evaluated(), says)


def test_a_config_that_is_a_folder_is_refused() -> None:
    path = tiny_model() / "config.json"
    path.unlink()
    path.mkdir()
    refusal(evaluated(), r"model\.name: /.*/mô hình has no config\.json and no GGUF file; name a folder saved by")


def test_a_config_of_latin_1_is_refused() -> None:
    path: Path = tiny_model() / "config.json"
    path.write_bytes(json.dumps({"model_type": "llama", "tên": "café"}, ensure_ascii=False).encode("cp1258", "replace"))
    refusal(evaluated(), CANNOT)


@pytest.mark.parametrize(
    "change",
    [
        {"_attn_implementation": "kernels-community/evil"},
        {"attn_implementation": "paged|ai/evil@v1:hàm"},
        {"text_config": {"layers": [{"_attn_implementation": {"": "sdpa", "vision": "ai/evil"}}]}},
        {"experts_implementation": ["ai/evil"]},
    ],
    ids=str,
)
def test_a_kernel_of_the_hub_is_never_loaded(change: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(modeling_utils, "lazy_import_flash_attention", lambda name, **_: loaded.append(name))
    edited(tiny_model() / "config.json", change)
    says = (
        r"model\.name: .*mô hình asks for code of the hub.* \(got _?(attn|experts)_implementation \[?'.*evil.*'\]? in"
    )
    refusal(evaluated(), says + r" config\.json\); allowed: eager, sdpa, ")
    with pytest.raises(BackboneError, match="asks for code of the hub"):
        load_backbone(ModelConfig(name="./mô hình"), QuantConfig())
    assert not loaded


def test_an_implementation_of_transformers_own_is_loaded() -> None:
    edited(tiny_model() / "config.json", {"_attn_implementation": "eager", "attn_implementation": None})
    assert load_backbone(ModelConfig(name="./mô hình"), QuantConfig()).config._attn_implementation == "eager"
