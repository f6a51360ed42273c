"""The order of the rows: fixed by seed and epoch, balanced by label, or with like lengths beside each other."""

import pytest
import torch

from loraft.training.samplers import BalancedSampler, EpochSampler, LengthSampler


def shuffled(count: int) -> list[int]:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()


@pytest.mark.parametrize("kind", ["balanced", "by length"])
def test_a_draw_depends_on_seed_and_epoch_alone(kind: str) -> None:
    def sampler(seed: int) -> EpochSampler:
        rows = [number % 3 for number in range(100)]
        return BalancedSampler(rows, seed) if kind == "balanced" else LengthSampler(rows, 8, seed)

    one, resumed = sampler(3), sampler(3)
    first = list(one)
    assert list(one) == first == list(resumed)
    one.set_epoch(1)
    second = list(one)
    assert second != first
    resumed.set_epoch(1)
    assert list(resumed) == second
    assert list(sampler(7)) != first


def test_balanced_sampling_draws_every_label_as_often() -> None:
    labels = ([0] * 90 + [1] * 5 + [2] * 5) * 20
    sampler = BalancedSampler(labels, seed=3)
    drawn = [labels[i] for i in sampler]
    assert len(drawn) == len(sampler) == 2000
    for label in range(3):  # 4.7 standard deviations of a binomial with p = 1/3
        assert abs(drawn.count(label) / 2000 - 1 / 3) < 0.05


def test_a_label_that_does_not_occur_is_no_obstacle() -> None:
    assert len(list(BalancedSampler([0, 2, 2], seed=3))) == 3


def test_rows_of_like_length_are_neighbours_and_every_row_comes_once() -> None:
    lengths, window = shuffled(1000), 10
    sampler = LengthSampler(lengths, window, seed=3)
    drawn = [lengths[i] for i in sampler]
    assert len(sampler) == 1000
    assert sorted(drawn) == list(range(1000))
    spreads = [max(part) - min(part) for part in (drawn[i : i + window] for i in range(0, 1000, window))]
    # Windows of 10 are sorted within 250 random rows: 9 gaps of 1000 / 250 each, and one window has the longest row.
    assert sum(spreads) / len(spreads) == pytest.approx(36, rel=0.3)
