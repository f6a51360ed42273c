"""Weights that no adapter holds are refused by name, in an adapter of a run as in one made elsewhere."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import backbone
from safetensors.torch import load_file, save_file

from loraft.config.schema import LoraSection
from loraft.errors import BackboneError
from loraft.models.adapter import add_adapter, apply_adapter, load_adapter
from loraft.models.adapter_files import check_weights

FILE = "adapter_model.safetensors"
Q_PROJ = r"base_model\.model\.model\.layers\.0\.self_attn\.q_proj\.lora_A\.weight"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("của em")
    add_adapter(backbone(), LoraSection(r=2), seed=1).save_pretrained(str(folder))
    return folder


def test_the_shapes_are_read(adapter: Path) -> None:
    found = check_weights(adapter)
    assert found == {name: tuple(weight.shape) for name, weight in load_file(adapter / FILE).items()}
    assert len(found) == 2 * 7 * 2  # A and B of seven matrices in two layers


@pytest.mark.parametrize("load", [apply_adapter, load_adapter])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weight: weight.to(torch.int8), rf"floating-point numbers \(got .*int8 in {Q_PROJ}.*float32, float16"),
        (lambda weight: weight * torch.inf, rf"NaN or infinite \(got .*{Q_PROJ}.*lower train\.learning_rate"),
        (lambda weight: weight / 0, rf"NaN or infinite \(got .*{Q_PROJ}"),
    ],
    ids=["int8", "inf times 0", "division by 0"],
)
def test_numbers_that_no_adapter_holds_are_refused_by_name(
    adapter: Path, tmp_path: Path, load: Any, change: Any, message: str
) -> None:
    weights = load_file(adapter / FILE)
    for name, weight in weights.items():
        if re.search("q_proj|layers.1.*mlp", name):
            weights[name] = change(weight)
    (tmp_path / "adapter_config.json").symlink_to(adapter / "adapter_config.json")
    save_file(weights, tmp_path / FILE)
    with pytest.raises(BackboneError, match=message):
        load(backbone(), tmp_path)


def test_at_most_ten_names_are_listed(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").symlink_to(adapter / "adapter_config.json")
    for weights, more in (
        ({name: weight.to(torch.int8) for name, weight in load_file(adapter / FILE).items()}, 18),
        ({"khác": torch.zeros(1)}, 18),
    ):
        save_file(weights, tmp_path / FILE)
        with pytest.raises(BackboneError, match=f" and {more} more") as raised:
            apply_adapter(backbone(), tmp_path)
        assert str(raised.value).count("base_model.model.") == 10
