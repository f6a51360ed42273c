"""A backbone whose layers are spread over devices: accelerate's hooks are there, and scores and training stay.

One CPU is all devices here; what is tested is that nothing relies on layers without hooks.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import dispatch_model
from helpers.bad_input import refusal
from safetensors.torch import load_file

import loraft
from loraft.engine import scorer
from loraft.engine.layout import is_spread
from loraft.engine.plain_rows import LIMIT, LIMIT_BELOW_FP32
from loraft.errors import BackboneError, ConfigError
from loraft.models import spreading
from loraft.models.load import build
from loraft.training import pipeline

SETTINGS = [
    "train.max_steps=2", "train.eval_steps=2", "data.max_train_rows=32", "data.max_eval_rows=8", "model.device=cpu",
    "data.max_test_rows=8", "eval.bootstrap_samples=100", "eval.baselines=off", "train.per_device_train_batch_size=8",
]  # fmt: skip


def spread(base: Any) -> Any:
    """Gives the backbone the hooks and the map of one whose layers are on two devices."""
    names = ["model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"]
    names += [f"model.layers.{n}" for n in range(len(base.model.layers))]
    dispatch_model(base, dict.fromkeys(names, "cpu"), main_device="cpu", force_hooks=True)
    base.hf_device_map = {name: "cpu:0" if name == "lm_head" else "cpu" for name in names}
    return base


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_scores_of_a_spread_backbone_are_those_of_a_whole_one(dtype: str) -> None:
    encoder, base = build(loraft.resolve(overrides=["model.device=cpu", f"model.dtype={dtype}"]))
    texts = ["cô nhiệt tình", "phòng học nóng quá", "giảng viên dạy hay nhưng nhanh"]
    ids = [prompt.ids for prompt in encoder.encode(texts)]

    def scores() -> np.ndarray:
        return scorer.score(base, ids, encoder.completions_K, unscored=encoder.unscored)

    before = scores()
    assert not is_spread(base)
    assert is_spread(spread(base))
    heads = base.lm_head._old_forward
    after = scores()
    # The bounds of `plain_rows`: in bf16, layers with hooks and fused ones round in other places.
    np.testing.assert_allclose(after, before, atol=LIMIT.get(base.dtype, LIMIT_BELOW_FP32))
    if dtype == "bf16":  # logits in fp32: in bf16 they would be multiples of 1/16 or more
        assert len(np.unique(after)) == after.size
    assert base.lm_head._old_forward == heads
    np.testing.assert_array_equal(scores(), after)


def test_a_spread_backbone_trains_as_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [*SETTINGS, "model.dtype=fp32", f"output={tmp_path}"]
    loraft.train(loraft.resolve(overrides=[*given, "name=một"]), quiet=True)

    def spread_one(config: Any) -> Any:
        encoder, base = build(config)
        return encoder, spread(base)

    monkeypatch.setattr(pipeline, "build", spread_one)
    loraft.train(loraft.resolve(overrides=[*given, "name=hai"]), quiet=True)
    whole, found = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("một", "hai"))
    for name, weight in whole.items():
        assert torch.linalg.norm(found[name] - weight) <= 1e-2 * torch.linalg.norm(weight), name


def test_with_one_device_a_backbone_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    _, base = build(loraft.resolve(overrides=["model.device_map=auto"]))
    assert not is_spread(base)
    assert not any("_hf_hook" in vars(module) for module in base.model.layers.modules())


def test_layers_that_no_gpu_has_room_for_are_refused() -> None:
    places = {"model.embed_tokens": 0, "model.layers.0": 1, "model.layers.1": "cpu", "lm_head": "disk"}
    base: Any = SimpleNamespace(hf_device_map=places)
    with pytest.raises(BackboneError, match=r"no room for 2 of 4 parts: model.layers.1, lm_head\); use --quant nf4"):
        spreading.refuse_offloaded(base)


def test_several_processes_do_not_spread_one_backbone_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"model.device_map: auto gives one process all GPUs \(got WORLD_SIZE above"):
        spreading.device_map()


def test_a_map_and_a_device_are_two_choices() -> None:
    refusal(
        ["config", "--set", "model.device_map=auto", "--set", "model.device=cpu"],
        r"model: .*device_map=auto chooses devices, and device is cpu; leave one of them out",
    )
