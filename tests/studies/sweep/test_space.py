"""The space of a search: what is written becomes ranges and lists whose values the config takes."""

import pytest

from loraft.config.resolve import resolve
from loraft.config.schema import Config
from loraft.errors import ConfigError
from loraft.studies.sweep.grid import expand
from loraft.studies.sweep.space import Axis, parse_search, rounded, settings_of, space


def config(*pairs: str) -> Config:
    return resolve(flags={"sweep.search": parse_search(pairs), "sweep.ranks": []})


def axis(pair: str) -> Axis:
    (found,) = space(config(pair))
    return found


@pytest.mark.parametrize(
    ("pair", "drawn", "values"),
    [
        ("train.learning_rate=log:1e-5:1e-2", "log", (1e-5, 1e-2)),
        ("lora.lora_dropout=0:0.1", "uniform", (0.0, 0.1)),
        ("lora.lora_dropout=uniform:0:0.1", "uniform", (0.0, 0.1)),
        ("lora.r=1:128", "uniform", (1, 128)),
        ("lora.r=log:1:128", "log", (1, 128)),
        ("lora.r=128,1,2", "list", (1, 2, 128)),
        ("lora.r=1,2,4,...,16", "list", (1, 2, 4, 8, 16)),
        ("train.optim=sgd,adamw_torch", "list", ("sgd", "adamw_torch")),
        ("train.learning_rate=1e-3,null", "list", (0.001, None)),
        ("model.name=hf:một/hai,hf:ba/bốn", "list", ("hf:một/hai", "hf:ba/bốn")),
    ],
)
def test_ranges_and_lists_are_read(pair: str, drawn: str, values: tuple[object, ...]) -> None:
    found = axis(pair)
    assert (found.drawn, found.values) == (drawn, values)
    assert all(isinstance(one, type(other)) for one, other in zip(found.values, values, strict=True))


def test_numbers_alone_are_in_order() -> None:
    assert axis("lora.r=8,1").in_order
    assert not axis("train.optim=sgd,adamw_torch").in_order
    assert not axis("lora.use_rslora=true,false").in_order


def test_a_drawn_fraction_has_three_digits_and_stays_between_the_ends() -> None:
    assert rounded(0.00031234, 1e-5, 1e-2, log=True) == 0.000312
    assert rounded(0.0123456, 0.0, 0.1, log=False) == 0.012  # as of 0.100
    assert rounded(1.23449e-5, 1.2345e-5, 1e-2, log=True) == 1.2345e-5
    assert rounded(0.0, 0.0, 0.1, log=False) == 0.0


def test_what_was_drawn_becomes_the_values_of_a_config() -> None:
    axes = space(config("train.learning_rate=log:1e-5:1e-2", "lora.r=8,2", "train.optim=sgd,adamw_torch"))
    drawn = {"train.learning_rate": 0.0012345, "lora.r": 1, "train.optim": "sgd"}
    assert settings_of(axes, drawn) == {"train.learning_rate": 0.00123, "lora.r": 8, "train.optim": "sgd"}


def test_the_trials_of_a_search_are_not_listed_as_those_of_a_grid() -> None:
    with pytest.raises(ConfigError, match=r"--search: its trials cannot be listed beforehand \(got lora.r\)"):
        expand(config("lora.r=1:8"))
