"""The folder of an adapter: what it says of its backbone, and which kinds are refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from loraft.errors import BackboneError
from loraft.runs.peft_folder import read_peft_folder


def folder(path: Path, **settings: Any) -> Path:
    content = {"peft_type": "LORA", "task_type": "CAUSAL_LM", **settings}
    (path / "adapter_config.json").write_text(json.dumps(content), encoding="utf-8")
    (path / "adapter_model.safetensors").touch()
    return path


def test_the_backbone_and_its_revision_are_read(tmp_path: Path) -> None:
    found = read_peft_folder(folder(tmp_path, base_model_name_or_path="ai/mô-hình", revision="v2"))
    assert (found.backbone, found.revision) == ("ai/mô-hình", "v2")
    found = read_peft_folder(folder(tmp_path, task_type=None))
    assert (found.backbone, found.revision) == (None, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "PROMPT_TUNING"}, r"peft_type cannot be used here \(got PROMPT_TUNING\); allowed: LORA"),
        ({"peft_type": "IA3"}, r"got IA3"),
        ({"task_type": "SEQ_CLS"}, r"task_type cannot be used here \(got SEQ_CLS\); allowed: CAUSAL_LM"),
        ({"alora_invocation_tokens": [1, 2]}, r"alora_invocation_tokens is set"),
        ({"peft_type": None}, r"names no peft_type"),
    ],
    ids=str,
)
def test_other_kinds_of_adapters_are_refused_by_name(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        read_peft_folder(folder(tmp_path, **settings))


def test_what_is_missing_is_named_and_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="không/có: no such folder"):
        read_peft_folder(Path("không/có"))
    (folder(tmp_path) / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(BackboneError, match=r"has no adapter_model\.safetensors; save it with safetensors"):
        read_peft_folder(tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(BackboneError, match=r"has no adapter_config\.json"):
        read_peft_folder(tmp_path)
