"""Trials are trained together where they differ in nothing but what each adapter has for itself."""

from typing import Any

import pytest

from loraft.config.resolve import resolve
from loraft.studies.sweep import joint_groups
from loraft.studies.sweep.grid import expand, parse_grid


def groups(*grid: str, **sweep: Any) -> list[list[str]]:
    """The names of the trials of each group of a sweep."""
    flags = {f"sweep.{key}": value for key, value in {"ranks": [4, 1, 2], **sweep}.items()}
    flags |= {"sweep.grid": parse_grid(grid)} if grid else {}
    return [[trial.name for trial in group] for group in joint_groups.joint_groups(expand(resolve(flags=flags)))]


def test_groups_share_everything_but_what_an_adapter_has_of_its_own() -> None:
    assert groups() == [["r1", "r2", "r4"]]
    assert groups(seeds=[1, 2], ranks=[2, 1]) == [["r1-s1", "r2-s1"], ["r1-s2", "r2-s2"]]
    assert groups("train.max_steps=3,4", ranks=[1]) == []
    assert groups("lora.target_modules=all-linear,default", ranks=[1]) == []
    assert groups("train.early_stopping_patience=1,2", ranks=[1, 2]) == []


@pytest.mark.parametrize(
    "grid",
    ["train.learning_rate=1e-3,2e-3", "lora.lora_alpha=8,16", "lora.alpha_per_rank=1,2", "lora.use_rslora=true,false",
     "lora.init_lora_weights=default,gaussian"],
)  # fmt: skip
def test_rate_scale_and_first_weights_are_each_adapters_own(grid: str) -> None:
    (group,) = groups(grid, ranks=[1])
    assert len(group) == 2


@pytest.mark.parametrize("grid", ["lora.lora_dropout=0,0.1", "train.optim=sgd,adamw_torch", "quant.method=none,nf4"])
def test_nothing_else_may_differ(grid: str) -> None:
    assert groups(grid, ranks=[1]) == []
