"""Which adapters can be trained together, and where one pass is faster than one adapter after the other."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.tiny import backbone
from helpers.training import balanced_rows as rows

from loraft.config.resolve import resolve
from loraft.training import joint_adapters
from loraft.training.joint_adapters import joint_is_faster, why_not_joint
from loraft.training.memory import packed_size


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
    monkeypatch.setattr(joint_adapters, "IDLE_STEP", 4 * base.num_parameters() * packed_size(rows(), 2)[0])
    assert joint_is_faster(base, rows(), 2)
    assert not joint_is_faster(base, rows(), 3)


def test_on_an_accelerator_one_pass_is_always_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joint_adapters, "IDLE_STEP", 0)
    base: Any = SimpleNamespace(device=torch.device("cuda"), num_parameters=lambda: 10**9)
    assert joint_is_faster(base, rows(), 2)
