"""Two models count as equivalent only where the data show it."""

import numpy as np
import pytest

from loraft.evaluation.equivalence import LEVEL, MARGIN, equivalence
from loraft.evaluation.intervals import differences
from loraft.evaluation.metrics import scores_of_many

ROWS, DRAWS = 1500, 120


def population(gap: float) -> np.ndarray:
    """Chances (2, 2, 2) of reference, own and other answer, for which the macro F1s differ by `gap` to 1e-6."""

    def chances(lost: float) -> np.ndarray:
        # Of each label's rows 85 % are right in both, 4 % in one of the two each, and `lost` in the other one alone.
        shares = np.array([[0.11 - lost, 0.02 + lost], [0.02, 0.85]])  # own right or not, other right or not
        full = np.zeros((2, 2, 2))
        for label, share in ((0, 0.7), (1, 0.3)):
            for own in (0, 1):
                for other in (0, 1):
                    answers = (label if own else 1 - label, label if other else 1 - label)
                    full[label, answers[0], answers[1]] = share * shares[own, other]
        return full

    def score(counts_KK: np.ndarray) -> float:
        return float(scores_of_many(np.round(1e9 * np.pad(counts_KK, ((0, 0), (0, 1))))[None])["macro_f1"][0])

    low, high = 0.0, 0.1
    for _ in range(60):
        middle = (low + high) / 2
        found = chances(middle)
        reached = score(found.sum(axis=1)) - score(found.sum(axis=2)) >= gap
        low, high = (low, middle) if reached else (middle, high)
    return chances(high)


def test_at_the_margin_at_most_the_level_is_called_equivalent() -> None:
    chances, generator = population(MARGIN), np.random.default_rng(0)
    called = 0
    for draw in range(DRAWS):
        kinds = generator.choice(8, size=ROWS, p=chances.ravel())
        references, own, other = np.unravel_index(kinds, (2, 2, 2))
        called += equivalence(references, own, other, 2, bootstrap_samples=150, seed=draw).equivalent
    assert called / DRAWS <= LEVEL + 2 * np.sqrt(LEVEL * (1 - LEVEL) / DRAWS)
    assert called > 0  # a test that never rejects would pass the line above


def test_models_that_agree_on_nearly_all_rows_are_equivalent() -> None:
    references = np.arange(2000) % 2
    own, other = references.copy(), references.copy()
    own[:4], other[10:14] = 1 - own[:4], 1 - other[10:14]
    found = equivalence(references, own, other, 2)
    assert found.equivalent
    assert found.difference == pytest.approx(0.0)


@pytest.mark.parametrize("sign", [1, -1])
def test_models_further_apart_than_the_margin_are_not(sign: int) -> None:
    references = np.arange(2000) % 2
    worse = references.copy()
    worse[:100] = 1 - worse[:100]  # 5 points of accuracy, and of macro F1 where labels are as frequent
    pair = (references, worse) if sign > 0 else (worse, references)
    found = equivalence(references, *pair, 2)
    assert not found.equivalent
    assert found.difference == pytest.approx(0.05 * sign)


def test_few_rows_show_nothing() -> None:
    references = np.arange(20) % 2
    assert not equivalence(references, references, references, 2).equivalent


def test_the_interval_is_the_paired_one_of_twice_the_level() -> None:
    references, generator = np.arange(300) % 3, np.random.default_rng(1)
    own, other = (np.where(generator.random(300) < 0.8, references, generator.integers(0, 3, 300)) for _ in "ab")
    wanted = differences(references, [own], [other], 3, confidence=0.9, bootstrap_samples=500, seed=7)["macro_f1"]
    assert equivalence(references, own, other, 3, bootstrap_samples=500, seed=7).interval == wanted.interval
