"""A cut keeps the largest singular values of the update that peft computes, and nothing else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import backbone
from safetensors.torch import load_file, save_file

from loraft.config.schema import LoraSection
from loraft.errors import ConfigError
from loraft.models.adapter import add_adapter, load_adapter
from loraft.models.truncation import cut, settings_of_cut

KINDS: dict[str, dict[str, Any]] = {
    "fixed alpha": {"lora_alpha": 32},
    "proportional alpha": {"alpha_per_rank": 2.0},
    "rsLoRA": {"use_rslora": True},
    "proportional rsLoRA": {"use_rslora": True, "alpha_per_rank": 0.5},
    "gaussian": {"init_lora_weights": "gaussian"},
    "rank above the layers' width": {"r": 40},
}


def saved(folder: Path, **section: Any) -> dict[str, np.ndarray]:
    """Writes an adapter with random weights on a tiny backbone; the update of each layer, as peft merges it."""
    model = add_adapter(backbone(), LoraSection(**{"r": 6, **section}), seed=1)
    torch.manual_seed(3)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(str(folder))
    return updates(model)


def updates(model: Any) -> dict[str, np.ndarray]:
    layers = {name: layer for name, layer in model.named_modules() if hasattr(layer, "get_delta_weight")}
    return {name: layer.get_delta_weight("default").detach().double().numpy() for name, layer in layers.items()}


def loaded(folder: Path, rank: int, to: Path) -> tuple[dict[str, np.ndarray], float]:
    """The updates of a cut adapter that was written and read by peft, and its energy."""
    (one,) = cut(folder, [rank])
    to.mkdir()
    settings = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    (to / "adapter_config.json").write_text(json.dumps(settings_of_cut(settings, rank)), "utf-8")
    save_file(one.weights, to / "adapter_model.safetensors")
    return updates(load_adapter(backbone(), to)), one.energy


@pytest.mark.parametrize("kind", KINDS)
def test_at_its_own_rank_the_update_is_the_same(tmp_path: Path, kind: str) -> None:
    full = saved(tmp_path / "full", **KINDS[kind])
    found, energy = loaded(tmp_path / "full", KINDS[kind].get("r", 6), tmp_path / "cut")
    assert energy == pytest.approx(1.0)
    assert found.keys() == full.keys()
    for name, update in full.items():
        np.testing.assert_allclose(found[name], update, atol=2e-6 * np.abs(update).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rank", [1, 3])
def test_below_it_is_the_nearest_update_of_that_rank(tmp_path: Path, kind: str, rank: int) -> None:
    full = saved(tmp_path / "full", **KINDS[kind])
    found, energy = loaded(tmp_path / "full", rank, tmp_path / "cut")
    kept = norm = 0.0
    for name, update in full.items():  # Eckart and Young: numpy's decomposition of the dense product
        left, values, right = np.linalg.svd(update)
        best = (left[:, :rank] * values[:rank]) @ right[:rank]
        np.testing.assert_allclose(found[name], best, atol=1e-5 * values[0])
        assert np.linalg.norm(update - found[name]) == pytest.approx(np.sqrt((values[rank:] ** 2).sum()), rel=1e-4)
        kept, norm = kept + (values[:rank] ** 2).sum(), norm + (values**2).sum()
    assert energy == pytest.approx(kept / norm, rel=1e-5)


def test_a_lower_rank_is_the_beginning_of_a_higher_one(tmp_path: Path) -> None:
    saved(tmp_path)
    low, high = cut(tmp_path, [2, 5])
    for name, weight in low.weights.items():
        rows = high.weights[name][:2] if "lora_A" in name else high.weights[name][:, :2]
        assert torch.equal(weight, rows)


def test_an_adapter_that_was_never_trained_keeps_all_of_nothing(tmp_path: Path) -> None:
    add_adapter(backbone(), LoraSection(r=4), seed=1).save_pretrained(str(tmp_path))
    (one,) = cut(tmp_path, [2])
    assert one.energy == 1.0
    assert not any(weight.any() for name, weight in one.weights.items() if "lora_B" in name)


@pytest.mark.parametrize(("key", "value", "why"), [
    ("use_dora", True, "DoRA also scales the columns"),
    ("modules_to_save", ["lm_head"], "modules were trained whole"),
    ("target_parameters", ["mlp.experts.down_proj"], "stacked experts are not cut"),
    ("init_lora_weights", "pissa", "a part of the backbone's weights was moved"),
    ("init_lora_weights", "olora", "a part of the backbone's weights was moved"),
    ("bias", "all", "may not be s B A alone"),
    ("rank_pattern", {"q_proj": 2}, "may not be s B A alone"),
    ("use_qalora", True, "may not be s B A alone"),
])  # fmt: skip
def test_what_is_more_than_a_low_rank_update_is_refused(tmp_path: Path, key: str, value: Any, why: str) -> None:
    saved(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {key: value}), "utf-8")
    with pytest.raises(ConfigError, match=rf"cannot be cut to lower ranks \(got {key}=.*\): .*{why}"):
        cut(tmp_path, [1])


def test_a_matrix_without_its_partner_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    weights = load_file(file)
    del weights[next(name for name in weights if "lora_B" in name)]
    save_file(weights, file)
    with pytest.raises(ConfigError, match=r"no pair of A and B: '.*lora_B"):
        cut(tmp_path, [1])
