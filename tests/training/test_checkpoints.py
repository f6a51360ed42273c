"""What is read from a checkpoint, and adapters that a killed process cannot leave half-written."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.tiny import backbone, encoder
from helpers.training import SECTIONS, with_adapter
from peft import PeftModel
from safetensors.torch import load_file

from loraft.config.resolve import resolve
from loraft.errors import RunError
from loraft.models import manifest
from loraft.models.adapter import add_adapters
from loraft.runs.hashes import hashes_of
from loraft.runs.run import Run
from loraft.training import checkpoints
from loraft.training.checkpoints import (
    BestStep,
    best_weights,
    finished_training,
    keep_best,
    load_best,
    read_best,
    save_adapter,
)
from loraft.training.whole_checkpoints import damage_of


@pytest.mark.parametrize("over", [True, False])
def test_a_training_is_over_where_its_checkpoint_says_so(over: bool, tmp_path: Path) -> None:
    control = {"args": {"should_training_stop": over}, "attributes": {}}
    content = {"global_step": 30, "best_metric": 0.5, "stateful_callbacks": {"TrainerControl": control}}
    (tmp_path / "trainer_state.json").write_text(json.dumps(content), encoding="utf-8")
    state = finished_training(tmp_path)
    assert (state is not None) == over
    assert state is None or (state.global_step, state.best_metric) == (30, 0.5)


def filled(model: PeftModel, value: float, name: str = "default") -> None:
    """Gives all weights of an adapter the same value."""
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if f".{name}." in key:
                weight.fill_(value)


def values(folder: Path) -> set[float]:
    return {float(value) for weight in load_file(folder / "adapter_model.safetensors").values() for value in weight[0]}


def test_the_best_checkpoint_is_loaded_also_from_a_moved_folder(tmp_path: Path) -> None:
    model = with_adapter()
    for step in (10, 20):
        filled(model, step)
        model.save_pretrained(str(tmp_path / f"checkpoint-{step}"))
    for best, value in (("/elsewhere/checkpoint-10", 10), (None, 20)):
        state: Any = SimpleNamespace(best_model_checkpoint=best)
        load_best(model, tmp_path / "checkpoint-20", state)
        adapter = [weight for name, weight in model.named_parameters() if "lora_" in name]
        assert all(bool((weight == value).all()) for weight in adapter)
        assert all(weight.requires_grad for weight in adapter)


def test_the_best_weights_of_each_adapter_are_kept_with_their_step(tmp_path: Path) -> None:
    assert read_best(tmp_path) == {}
    model, names = add_adapters(backbone(), SECTIONS[:2], seed=1)
    best: dict[str, BestStep] = {}
    for step, name in ((5, names[0]), (5, names[1]), (10, names[0])):
        filled(model, step + len(name), name)
        best[name] = BestStep(step, step / 100)
        keep_best(tmp_path, model, name, best)
        assert read_best(tmp_path) == best
    for name, step in ((names[0], 10), (names[1], 5)):
        assert values(best_weights(tmp_path, name)) == {step + len(name)}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "best.json"])


@pytest.mark.parametrize("content", ["{", "[]", "null", '{"a": 1}', '{"a": {"x": 1}}', '{"a": {"step": "tư"}}'])
def test_a_damaged_file_of_best_steps_is_told_with_its_remedy(tmp_path: Path, content: str) -> None:
    (tmp_path / "best.json").write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=rf"^{tmp_path / 'best.json'}: .*; delete {tmp_path.parent}, and the training"):
        read_best(tmp_path)


def test_a_process_that_is_killed_leaves_the_earlier_best_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = with_adapter()
    filled(model, 1)
    keep_best(tmp_path, model, "default", {"default": BestStep(5, 0.5)})
    filled(model, 2)

    def killed(folder: str, **named: Any) -> None:
        Path(folder).mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "save_pretrained", killed)
    with pytest.raises(KeyboardInterrupt):
        keep_best(tmp_path, model, "default", {"default": BestStep(10, 0.75)})
    assert read_best(tmp_path) == {"default": BestStep(5, 0.5)}
    assert values(best_weights(tmp_path, "default")) == {1}
    (tmp_path / "default").rename(tmp_path / "default.before")  # killed between the two renames
    assert read_best(tmp_path) == {"default": BestStep(5, 0.5)}
    assert values(best_weights(tmp_path, "default")) == {1}
    monkeypatch.undo()
    keep_best(tmp_path, model, "default", {"default": BestStep(15, 0.8)})  # over the half-written folder
    assert values(best_weights(tmp_path, "default")) == {2}
    assert damage_of(tmp_path / "default", (), only=False) is None


def bundle() -> manifest.Manifest:
    identity = manifest.BackboneIdentity("loraft-vi-tiny", None, "0" * 64, {})
    return manifest.describe(resolve(), encoder(), identity, manifest.DataIdentity("feedback", {}), {"accuracy": 0.5})


def test_an_adapter_is_saved_whole_and_names_its_backbone(tmp_path: Path) -> None:
    run, model, path = Run(tmp_path), with_adapter(), str(tmp_path / "mô-hình")
    model.get_base_model().config.save_pretrained(path)
    model.get_base_model().config._name_or_path = path
    for config in model.peft_config.values():
        config.base_model_name_or_path = path
    for value in (1, 2):
        filled(model, value)
        (tmp_path / "adapter.tmp").mkdir()
        (tmp_path / "adapter.tmp" / "half").touch()  # of a process that was killed
        save_adapter(run, model, bundle())
        assert values(run.adapter) == {value}
        files = hashes_of(run.adapter, ["adapter_config.json", "adapter_model.safetensors"])
        assert manifest.read(run.adapter) == replace(bundle(), files=files)
        assert not (tmp_path / "adapter.tmp").exists()
        assert not (run.adapter / "half").exists()
    saved = json.loads((run.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert saved["base_model_name_or_path"] == "loraft-vi-tiny"
    assert len(saved["target_modules"]) > 5  # whose order in a set is another one in each process
    assert saved["target_modules"] == sorted(saved["target_modules"])
    assert not (run.adapter / "README.md").exists()  # peft's empty card; the training writes the run's own


@pytest.mark.parametrize("folder", ["/may-chu", "/máy chủ"])
def test_an_adapter_on_a_gguf_file_names_the_file_once(tmp_path: Path, folder: str) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({"base_model_name_or_path": folder}), encoding="utf-8")
    checkpoints._forget_local_path(tmp_path, folder, f"{folder}/tí hon.gguf")
    assert json.loads(path.read_text(encoding="utf-8")) == {"base_model_name_or_path": f"{folder}/tí hon.gguf"}


def test_a_backbone_without_a_folder_of_its_own_needs_no_new_name(tmp_path: Path) -> None:
    run, model = Run(tmp_path), with_adapter()
    model.get_base_model().config._name_or_path = ""
    save_adapter(run, model, bundle())
    assert json.loads((run.adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"] == 4
