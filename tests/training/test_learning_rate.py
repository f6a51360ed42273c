"""The learning rate that is given, and the one that follows the size of the backbone."""

from itertools import pairwise

import pytest
from helpers.training import with_adapter

from loraft.config.resolve import presets, resolve
from loraft.config.schema import TrainConfig
from loraft.models.adapter import add_adapter
from loraft.models.backbone import load_backbone
from loraft.training.learning_rate import ANCHORS, learning_rate, rate_for


@pytest.mark.parametrize(
    ("weights", "rate"),
    [
        (1, 2e-3), (6_294_784, 2e-3), (10_000_000, 2e-3),  # the bundled backbone, and smaller ones
        (36_700_000, 1e-3),  # halfway to 135 M in logarithms: 1.4e-3, rounded
        (134_515_008, 1e-3),  # SmolLM2-135M
        (361_821_120, 5e-4),  # SmolLM2-360M: 1e-3 * 5 ** -(log(361.8 / 135) / log(1000 / 135)) = 4.5e-4
        (1_235_814_400, 2e-4), (8_030_261_248, 2e-4),  # Llama 3.2 1B and 3.1 8B
        (32_500_000_000, 1e-4), (405_000_000_000, 1e-4),
    ],
)  # fmt: skip
def test_the_rate_follows_the_size(weights: int, rate: float) -> None:
    assert rate_for(weights) == rate


def test_a_larger_backbone_never_has_a_higher_rate() -> None:
    rates = [rate_for(int(10 ** (exponent / 20))) for exponent in range(100, 240)]
    assert all(after <= before for before, after in pairwise(rates))
    assert set(ANCHORS.values()) <= set(rates)


def test_adapters_do_not_count_and_a_given_rate_stays() -> None:
    model = with_adapter(r=8)
    assert learning_rate(TrainConfig(), model) == 2e-3
    assert learning_rate(TrainConfig(learning_rate=3e-5), model) == 3e-5


@pytest.mark.parametrize("method", ["none", "nf4"])
def test_the_quickstart_trains_at_2e_3_also_quantised(method: str) -> None:
    config = resolve(flags={"quant.method": method})
    model = add_adapter(load_backbone(config.model, config.quant), config.lora, seed=1)
    assert config.train.learning_rate is None
    assert learning_rate(config.train, model) == 2e-3


def test_no_preset_but_the_tutorials_gives_a_rate_to_backbones_of_every_size() -> None:
    given = {name: resolve(preset=name, flags={"model.name": "một/kho"}).train.learning_rate for name in presets()}
    assert given == {"quickstart": None, "tutorial": 5e-5}
