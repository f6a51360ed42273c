"""Data and backbone are loaded once for all trials, and again only where a trial changed the backbone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.config import config
from helpers.tiny import backbone

from loraft.config.resolve import resolve
from loraft.config.schema import LoraSection
from loraft.errors import BackboneError
from loraft.evaluation.classification_report import classification_report
from loraft.models.adapter import add_adapter, remove_adapter
from loraft.studies.sweep import shared_backbone
from loraft.studies.sweep.shared_backbone import SharedBackbone, key_of

LORA = LoraSection(r=2, lora_alpha=4, target_modules="all-linear")


def shared() -> tuple[SharedBackbone, list[str]]:
    """One, and the lines that it tells the user."""
    told: list[str] = []
    return SharedBackbone(told.append), told


def test_a_backbone_is_loaded_once_and_another_one_in_its_stead(loads: list[Any], tmp_path: Path) -> None:
    loads.clear()
    trials, _ = shared()
    one, other = config(tmp_path), config(tmp_path, "model.dtype=fp32")
    assert trials.backbone(one) is trials.backbone(config(tmp_path, "lora.r=2", "seed=3")) is loads[0]
    assert trials.backbone(other) is trials.backbone(other) is loads[1]
    assert len(loads) == 2


def test_an_adapter_that_was_removed_leaves_the_backbone_unchanged(loads: list[Any], tmp_path: Path) -> None:
    trials, told = shared()
    base = trials.backbone(config(tmp_path))
    remove_adapter(add_adapter(base, LORA, seed=0))
    assert trials.check()
    assert told == []
    assert trials.backbone(config(tmp_path)) is base


def test_nothing_loaded_is_nothing_changed() -> None:
    trials, told = shared()
    assert trials.check()
    assert told == []


@pytest.mark.parametrize("change", ["one weight", "an adapter that was not removed"])
def test_a_changed_backbone_is_loaded_again(loads: list[Any], tmp_path: Path, change: str) -> None:
    trials, told = shared()
    base = trials.backbone(config(tmp_path))
    if change == "one weight":
        with torch.no_grad():
            next(base.parameters())[0, 0] += 1e-3
    else:
        add_adapter(base, LORA, seed=0)
    assert not trials.check()
    assert told == ["the trial changed the backbone; it is loaded again"]
    assert trials.backbone(config(tmp_path)) is not base
    assert trials.check()


def test_what_cannot_be_loaded_is_tried_once_and_keeps_no_other_backbone_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def load(model: Any, quant: Any) -> Any:
        tried.append(model.name)
        if model.name == "gone":
            raise BackboneError("model.name: no such backbone")
        return backbone()

    monkeypatch.setattr(shared_backbone, "load_backbone", load)
    monkeypatch.setattr(shared_backbone, "build_encoder", lambda config: tried.append("tokenizer"))
    trials, _ = shared()
    gone, there = config(tmp_path, "model.name=gone"), config(tmp_path)
    for _ in range(3):
        with pytest.raises(BackboneError, match="no such backbone"):
            trials.inputs(gone)
    assert tried == ["gone"]
    assert trials.inputs(there).base is not None
    assert tried == ["gone", there.model.name, "tokenizer"]


def test_inputs_hold_what_the_config_asks_for(loads: list[Any], tmp_path: Path) -> None:
    trials, _ = shared()
    section = config(tmp_path, "prompt.task=topic")
    inputs = trials.inputs(section)
    assert inputs.config is section
    assert {name: len(split) for name, split in inputs.splits.items()} == {"train": 48, "validation": 40, "test": 40}
    assert inputs.splits is trials.splits(config(tmp_path, "prompt.task=topic", "lora.r=1"))
    assert trials.splits(config(tmp_path))["test"].labels.tolist() != inputs.splits["test"].labels.tolist()
    assert list(inputs.encoder.task.labels) == section.prompt.labels
    assert inputs.base is loads[-1]
    assert inputs.baseline is None
    assert trials.inputs(config(tmp_path, "prompt.task=topic", "lora.r=1")).encoder is inputs.encoder
    assert trials.inputs(config(tmp_path)).encoder is not inputs.encoder


def test_the_scores_of_the_bare_backbone_are_kept_for_trials_that_would_measure_the_same(
    loads: list[Any], tmp_path: Path
) -> None:
    trials, _ = shared()
    report = classification_report([0, 1], None, [0, 1], ["a", "b"], bootstrap_samples=10, confidence=0.9, seed=0)
    trials.keep_scores(config(tmp_path), None)  # a run that did not measure it
    assert trials.inputs(config(tmp_path)).baseline is None
    trials.keep_scores(config(tmp_path), report)
    assert trials.inputs(config(tmp_path, "lora.r=2", "train.learning_rate=1e-4")).baseline is report
    # The seed draws the bootstrap's resamples, so with another one the intervals are others.
    for other in (
        "seed=3",
        "eval.bootstrap_samples=101",
        "data.max_test_rows=39",
        "prompt.task=topic",
        "model.dtype=fp32",
    ):
        assert trials.inputs(config(tmp_path, other)).baseline is None, other


def test_keys_of_sections_are_equal_where_the_sections_are() -> None:
    one, other = resolve(overrides=["lora.r=1"]), resolve(overrides=["lora.r=2"])
    assert key_of(one, "model", "quant") == key_of(other, "model", "quant")
    assert key_of(one, "model", "lora") != key_of(other, "model", "lora")
