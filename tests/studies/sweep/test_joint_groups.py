"""Trials are trained together where they differ in nothing but what each adapter has for itself."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.tiny import backbone
from helpers.training import balanced_rows as rows

from loraft.config.resolve import resolve
from loraft.studies.sweep import joint_groups
from loraft.studies.sweep.grid import expand, parse_grid
from loraft.studies.sweep.joint_groups import joint_is_faster, why_not_joint
from loraft.training.memory import packed_size


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


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("lora.r=4", None),
        ("lora.init_lora_weights=gaussian", None),
        ("lora.use_dora=true", "DoRA"),
        ("lora.modules_to_save=[lm_head]", "lora.modules_to_save trains whole modules"),
        ("lora.target_parameters=[experts.up]", "lora.target_parameters adapts experts"),
        ("lora.init_lora_weights=pissa", "pissa moves weights out of the backbone"),
        ("train.early_stopping_patience=2", "early stopping"),
        ("train.report_to=[wandb]", None),
        ("train.report_to=[comet_ml]", "comet_ml follows one training"),
    ],
)
def test_a_trial_that_is_trained_alone_has_a_reason(override: str, reason: str | None) -> None:
    assert why_not_joint(resolve(overrides=[override])) == reason


def test_a_larger_batch_leaves_less_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    base = backbone()
    monkeypatch.setattr(joint_groups, "IDLE_STEP", 4 * base.num_parameters() * packed_size(rows(), 2)[0])
    assert joint_is_faster(base, rows(), 2)
    assert not joint_is_faster(base, rows(), 3)


def test_on_an_accelerator_one_pass_is_always_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joint_groups, "IDLE_STEP", 0)
    base: Any = SimpleNamespace(device=torch.device("cuda"), num_parameters=lambda: 10**9)
    assert joint_is_faster(base, rows(), 2)
