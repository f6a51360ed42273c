"""Units of work: every trial is in one of them, a joint group is dealt out, and a begun pass stays together."""

from typing import Any

import pytest

from loraft.config.resolve import resolve
from loraft.studies.sweep.grid import expand
from loraft.studies.sweep.trials import Trial
from loraft.studies.sweep.units import Unit, units


def trials(**flags: Any) -> list[Trial]:
    return expand(resolve(overrides=["lora.lora_dropout=0"], flags={f"sweep.{key}": v for key, v in flags.items()}))


def names(dealt: list[Unit]) -> list[list[str]]:
    return [[trial.name for trial in unit] for unit in dealt]


RANKS = trials(ranks=[1, 2, 4, 8, 16])


def test_without_joint_training_each_trial_is_a_unit() -> None:
    assert names(units(RANKS, "off", workers=2)) == [["r1"], ["r2"], ["r4"], ["r8"], ["r16"]]


@pytest.mark.parametrize(
    ("workers", "dealt"),
    [
        (1, [["r1", "r2", "r4", "r8", "r16"]]),
        (2, [["r1", "r4", "r16"], ["r2", "r8"]]),
        (8, [["r1", "r4", "r16"], ["r2", "r8"]]),  # two trials or more to each
    ],
)
def test_a_joint_group_is_dealt_out_to_the_workers_like_cards(workers: int, dealt: list[list[str]]) -> None:
    assert names(units(RANKS, "auto", workers=workers)) == dealt


def test_trials_that_cannot_be_trained_together_follow_one_by_one() -> None:
    mixed = trials(ranks=[1, 2], grid={"train.max_steps": [10, 20, 30]}, seeds=[])
    alone = [one for one in mixed if not one.name.endswith("30") or one.name.startswith("r1")]
    dealt = names(units(alone, "auto", workers=4))
    assert dealt == [["r1-max_steps=10", "r2-max_steps=10"], ["r1-max_steps=20", "r2-max_steps=20"],
                     ["r1-max_steps=30"]]  # fmt: skip


def test_the_trials_of_a_begun_pass_stay_a_unit_and_the_others_are_dealt_out_without_them() -> None:
    begun = [[RANKS[0], RANKS[3]]]
    assert names(units(RANKS, "auto", workers=2, begun=begun)) == [["r1", "r8"], ["r2", "r4", "r16"]]
    assert names(units(RANKS, "off", workers=2, begun=begun)) == [["r1"], ["r2"], ["r4"], ["r8"], ["r16"]]
