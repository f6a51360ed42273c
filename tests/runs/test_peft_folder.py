"""The folder of an adapter: what it says of its backbone, and which kinds are refused by name."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from loraft.errors import BackboneError, Note, RunError
from loraft.runs.hashes import hashes_of
from loraft.runs.peft_folder import read_peft_folder, refuse_changed


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
    (tmp_path / "config.yaml").touch()
    with pytest.raises(BackboneError, match="adapter: the run's adapter is missing; train again with --force, or copy"):
        read_peft_folder(tmp_path / "adapter")
    (folder(tmp_path) / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(BackboneError, match=r"has no adapter_model\.safetensors; adapter_model\.bin is a pickle"):
        read_peft_folder(tmp_path)
    (tmp_path / "loraft.json").touch()
    with pytest.raises(BackboneError, match=r"has no adapter_model\.safetensors; train again with --force"):
        read_peft_folder(tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(BackboneError, match=r"has no adapter_config\.json"):
        read_peft_folder(tmp_path)


def test_the_command_for_a_pickle_turns_it_into_safetensors(tmp_path: Path) -> None:
    (tmp_path / "của em").mkdir()
    path, weights = folder(tmp_path / "của em"), {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.ones(1)}
    (path / "adapter_model.safetensors").unlink()
    torch.save(weights, path / "adapter_model.bin")
    with pytest.raises(BackboneError) as raised:
        read_peft_folder(path)
    command = shlex.split(str(raised.value).partition("convert it: ")[2])
    assert command[:2] == ["python", "-c"]
    exec(command[2], {})
    assert read_peft_folder(path)
    saved = load_file(path / "adapter_model.safetensors")
    assert all(torch.equal(saved[name], weight) for name, weight in weights.items())


FILES = ["adapter_config.json", "adapter_model.safetensors"]


def test_an_adapter_is_the_one_that_its_bundle_names(tmp_path: Path) -> None:
    folder(tmp_path)
    bundle = tmp_path / "loraft.json"
    bundle.write_text(json.dumps({"files": hashes_of(tmp_path, FILES)}), encoding="utf-8")
    refuse_changed(tmp_path)
    (tmp_path / FILES[0]).write_text((tmp_path / FILES[0]).read_text() + " ", encoding="utf-8")
    with pytest.raises(
        RunError, match=r"not the adapter that its loraft\.json names \(got adapter_config\.json: changed\)"
    ):
        refuse_changed(tmp_path)
    (tmp_path / FILES[1]).unlink()
    with pytest.raises(RunError, match=r"config\.json: changed, adapter_model\.safetensors: missing\); train again"):
        refuse_changed(tmp_path)
    bundle.write_text("{}", encoding="utf-8")
    with pytest.warns(Note, match=r"loraft\.json holds no hashes, as those of earlier") as told:
        refuse_changed(tmp_path)
    assert len(told) == 1


@pytest.mark.parametrize("files", [{}, [], "x", {"adapter_config.json": "0"}], ids=str)
def test_a_bundle_that_names_no_hashes_of_both_files_is_damaged(tmp_path: Path, files: Any) -> None:
    (folder(tmp_path) / "loraft.json").write_text(json.dumps({"files": files}), encoding="utf-8")
    with pytest.raises(RunError, match=r"loraft\.json: files must hold .*hashes"):
        refuse_changed(tmp_path)
