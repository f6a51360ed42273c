"""Adapters made elsewhere whose adapter_config.json is damaged, or that ask for what there is not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.bad_input import refusal
from helpers.tiny import backbone
from safetensors.torch import save_file

from loraft.errors import BackboneError
from loraft.models import adapter_targets
from loraft.models.adapter import apply_adapter, load_adapter

GOOD: dict[str, Any] = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "loraft-vi-tiny", "r": 2, "lora_alpha": 4,
    "lora_dropout": 0.0, "bias": "none", "target_modules": ["q_proj"], "inference_mode": True,
}  # fmt: skip
TEXTS = {
    "empty": "",
    "half an object": '{"peft_type": "LORA"',
    "a list": "[]",
    "null": "null",
    "a number": "5",
    "an empty object": "{}",
    "binary": "\x00\x01",
    "a word": "LORA",
    "deep": "[" * 100_000,
    "a number of 5,000 digits": '{"peft_type": "LORA", "r": ' + "9" * 5000 + "}",
}
KEYS: dict[str, tuple[dict[str, Any], str]] = {
    "no kind": ({"peft_type": None}, r"a/adapter_config\.json: names no peft_type"),
    "a kind that is a list": ({"peft_type": ["LORA"]}, r"a/adapter_config\.json: names no peft_type"),
    "an unknown kind": ({"peft_type": "LẠ"}, r"a: peft_type cannot be used here \(got LẠ\); allowed: LORA"),
    "prefix tuning": ({"peft_type": "PREFIX_TUNING"}, r"a: peft_type cannot be used here \(got PREFIX_TUNING\)"),
    "another task": ({"task_type": "SEQ_CLS"}, r"a: task_type cannot be used here \(got SEQ_CLS\); allowed: CAUSAL_LM"),
    "a task that is a number": ({"task_type": 5}, r"a: task_type cannot be used here \(got 5\)"),
    "no backbone": ({"base_model_name_or_path": None}, r"a: adapter_config\.json names no backbone .*; use --model"),
    "an empty backbone": ({"base_model_name_or_path": ""}, r"a: adapter_config\.json names no backbone"),
    "a backbone that is not there": ({"base_model_name_or_path": "./không có"}, r"no such backbone|is not there"),
    "a backbone that is a number": ({"base_model_name_or_path": 5}, r"^error: .*(model\.name|base_model_name_or_path)"),
    "a backbone that is a list": ({"base_model_name_or_path": ["a"]}, r"^error: .*(model\.name|base_model_name_or_path)"),
    "a revision that is a number": ({"revision": {"a": 1}}, r"^error: .*revision"),
    "tokens that invoke it": ({"alora_invocation_tokens": [1]}, r"a: alora_invocation_tokens is set, a kind of LoRA"),
    "arrows": ({"arrow_config": {"top_k": 1}}, r"a: arrow_config is set, a kind of LoRA"),
    "layers twice": ({"layer_replication": [[0, 2]]}, r"a: layer_replication is set"),
    "an unknown setting": ({"cài_đặt": 1}, r"a: this version of peft does not know cài_đặt; install the one that made it|does not know cài_đặt"),
    "thirty unknown settings": ({f"k{i}": 1 for i in range(30)}, r"does not know k0, .* and 20 more; install"),
    "no rank": ({"r": 0}, r"^error: a: r in adapter_config\.json is no rank \(got 0\); allowed: 1 to 1,048,576"),
    "a negative rank": ({"r": -2}, r"^error: a: r in .* is no rank \(got -2\)"),
    "a rank of a billion": ({"r": 10**9}, r"^error: a: r in .* is no rank \(got 1000000000\)"),
    "another rank": ({"r": 3}, r"^error: a: the adapter does not fit the backbone"),
    "a rank as text": ({"r": "x"}, r"^error: a: r in .* is no rank \(got 'x'\)"),
    "a rank that is null": ({"r": None}, r"^error: a: r in .* is no rank \(got None\)"),
    "a rank that is a list": ({"r": [2]}, r"^error: a: r in .* is no rank \(got \[2\]\)"),
    "alpha that is NaN": ({"lora_alpha": float("nan")}, r"^error: a(/adapter_config\.json)?: .*(lora_alpha|is no number)"),
    "alpha that is infinite": ({"lora_alpha": float("inf")}, r"^error: a(/adapter_config\.json)?: .*(lora_alpha|is no number)"),
    "alpha as text": ({"lora_alpha": "x"}, r"^error: a: "),
    "alpha that is null": ({"lora_alpha": None}, r"^error: a: "),
    "target modules that are not there": ({"target_modules": ["không_có"]}, r"^error: a: the adapter does not fit the backbone"),
    "no target modules": ({"target_modules": []}, r"^error: a: the adapter "),
    "target modules that are a number": ({"target_modules": 5}, r"^error: a: target_modules in .* are no names \(got 5\)"),
    "a pattern that is none": ({"target_modules": "("}, r"^error: a: the adapter "),
    "layers that are not there": ({"layers_to_transform": [99]}, r"^error: a: the adapter "),
    "a pattern of layers alone": ({"layers_pattern": "layers", "layers_to_transform": None}, r"^error: a: the adapter |layers_pattern"),
    "an unknown bias": ({"bias": "một nửa"}, r"^error: a: "),
    "modules to save that are not there": ({"modules_to_save": ["không_có"]}, r"^error: a: the adapter "),
    "ranks by a pattern that is none": ({"rank_pattern": {"(": 2}}, r"^error: a: the adapter "),
    "alpha that does nothing": ({"lora_alpha": 0}, r"^error: a: lora_alpha in .* is no number above 0 \(got 0\)"),
    "alpha that is true": ({"lora_alpha": True}, r"^error: a: lora_alpha in .* \(got True\)"),
    "a rank that is true": ({"r": True}, r"^error: a: r in .* is no rank \(got True\)"),
    "dropout as text": ({"lora_dropout": "x"}, r"^error: a: "),
}  # fmt: skip


def adapter(text: str) -> None:
    Path("a").mkdir()
    Path("a/adapter_config.json").write_text(text, encoding="utf-8")
    tensors = {}
    for layer in range(2):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_"
        tensors |= {f"{name}A.weight": torch.zeros(2, 5), f"{name}B.weight": torch.zeros(5, 2)}
    save_file(tensors, "a/adapter_model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_config_that_is_no_config_is_refused(text: str) -> None:
    adapter(text)
    refusal(["predict", "--adapter", "a", "thầy dạy hay"], r"^error: a/adapter_config\.json: ")


@pytest.mark.usefixtures("bundled_tokenizer")
@pytest.mark.parametrize(("change", "says"), KEYS.values(), ids=KEYS)
def test_a_config_that_does_not_fit_is_refused(change: dict[str, Any], says: str) -> None:
    adapter(json.dumps({**GOOD, **change}, ensure_ascii=False))
    refusal(["predict", "--adapter", "a", "thầy dạy hay"], says)


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "pickled", "config folder"])
def test_a_folder_without_an_adapter_is_refused(kind: str) -> None:
    if kind == "file":
        Path("a").write_text("hay", encoding="utf-8")
    elif kind != "missing":
        Path("a").mkdir()
    if kind == "pickled":
        Path("a/adapter_config.json").write_text(json.dumps(GOOD), encoding="utf-8")
        Path("a/adapter_model.bin").touch()
    if kind == "config folder":
        Path("a/adapter_config.json").mkdir()
    refusal(["eval", "--adapter", "a"], r"^error: a: (no such folder|has no adapter_)")


@pytest.mark.usefixtures("bundled_tokenizer")
@pytest.mark.parametrize("key", ["megatron_config", "megatron_core"])
def test_a_package_that_peft_would_import_is_refused_before_it_runs(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("megatron").mkdir()
    Path("megatron/__init__.py").write_text("open('đã chạy', 'w')", encoding="utf-8")
    Path("megatron/evil.py").touch()
    monkeypatch.syspath_prepend(str(Path.cwd()))
    settings = {"megatron_config": {"a": 1}, "megatron_core": "megatron.evil"}
    adapter(json.dumps({**GOOD, **({"megatron_core": "megatron.evil"} if key == "megatron_core" else settings)}))
    refusal(
        ["predict", "--adapter", "a", "thầy dạy hay"], rf"^error: a: {key} in .* makes peft import a package \(got "
    )
    assert not Path("đã chạy").exists()


@pytest.mark.parametrize("change", [{"target_modules": r"([a-z._0-9]+)+!"}, {"rank_pattern": {r"([a-z._0-9]+)+!": 2}}])
def test_a_regular_expression_that_never_ends_is_refused(
    change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter_targets, "SECONDS", 0.1)
    adapter(json.dumps({**GOOD, **change}))
    says = rf"^a/adapter_config\.json: {next(iter(change))}: the regular expression takes too long \(got "
    for load in (apply_adapter, load_adapter) if "target_modules" in change else (apply_adapter,):
        with pytest.raises(BackboneError, match=says):
            load(backbone(), Path("a"))
