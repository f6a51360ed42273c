"""Shift: the tests are scipy's, rarely alarm without one, find a planted one, and say which."""

import numpy as np
import numpy.typing as npt
import pytest

from loraft.evaluation import shift
from loraft.evaluation.shift import Validation, label_shares

LABELS = ("negative", "neutral", "positive")
OLD = (0.45, 0.1, 0.45)
Rows = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]


def drawn(n: int, seed: int, shares: npt.ArrayLike = OLD, clear: float = 2.0) -> Rows:
    """Rows of labels with these shares, and probabilities of them; the less `clear`, the less confident."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=np.asarray(shares))
    odds = np.exp(2 * (clear * np.eye(3)[labels] + rng.normal(size=(n, 3)))) * OLD
    return odds / odds.sum(axis=1, keepdims=True), labels


def told(validation: Validation, rows: Rows) -> list[str]:
    predicted = np.bincount(rows[0].argmax(axis=1), minlength=3)
    return validation.differences(validation.binned(rows[0]), predicted)


@pytest.mark.parametrize(
    ("labelled", "new"),
    [(150, 100), *(pytest.param(*at, marks=pytest.mark.integration) for at in ((800, 3000), (800, 60)))],
)
def test_rows_like_the_validation_rows_are_called_unlike_in_5_percent_of_draws_at_most(labelled: int, new: int) -> None:
    draws = 300
    alarms = sum(
        bool(told(Validation(LABELS, *drawn(labelled, seed)), drawn(new, 10_000 + seed))) for seed in range(draws)
    )
    assert alarms / draws <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / draws)


def test_a_planted_shift_is_found_and_a_harmless_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    validation = Validation(LABELS, *drawn(800, 0))
    moved = [told(validation, drawn(500, seed, (0.25, 0.3, 0.45))) for seed in range(1, 21)]
    assert sum(any("chi-square" in one for one in found) for found in moved) >= 18
    unclear = [told(validation, drawn(500, seed, clear=1.4)) for seed in range(1, 21)]
    assert sum(any("Kolmogorov" in one for one in found) for found in unclear) >= 18
    # 2 points more of one label in many rows, beside many validation rows: shown, but too little to matter.
    many, like = Validation(LABELS, *drawn(40_000, 0)), drawn(200_000, 1, (0.47, 0.1, 0.43))
    assert told(many, like) == []
    monkeypatch.setattr(shift, "LEAST", 0.0)
    assert told(many, like)


def test_the_p_values_are_those_of_scipy() -> None:
    from scipy.stats import chi2_contingency, ks_2samp

    (probs, labels), new = drawn(90, 0), drawn(5000, 1, (0.2, 0.35, 0.45), 1.5)[0]
    validation = Validation(LABELS, probs, labels)
    confidence, shares = told(validation, (new, labels))
    reference = ks_2samp(probs.max(axis=1), new.max(axis=1), method="asymp")
    # With 100 bins for 90 validation rows an edge lies at every one of these, but for one below each.
    own, other = (float(part.split("%")[0].split()[-1]) / 100 for part in confidence.split(" rows")[:2])
    assert abs(own - other) == pytest.approx(reference.statistic, abs=0.01 + 1 / 90)
    table = [np.bincount(one.argmax(axis=1), minlength=3) for one in (probs, new)]
    assert f"p={chi2_contingency(table, correction=False).pvalue:.2g}" in shares


def test_rare_labels_are_taken_together() -> None:
    from scipy.stats import chi2_contingency

    validation = Validation(
        tuple("abcde"), np.eye(5)[[0] * 90 + [1] * 50 + [2] * 4 + [3] * 3 + [4] * 3], np.zeros(150, int)
    )
    (found,) = validation.differences(np.array([300, 0]), np.array([90, 150, 5, 5, 5]))
    expected = chi2_contingency([[90, 50, 10], [90, 150, 15]], correction=False).pvalue
    assert f"p={expected:.2g}" in found


def test_few_rows_show_nothing() -> None:
    validation = Validation(LABELS, *drawn(49, 0))
    assert told(validation, drawn(5000, 1, (0.05, 0.9, 0.05))) == []
    assert told(Validation(LABELS, *drawn(500, 0)), drawn(49, 1, (0.05, 0.9, 0.05))) == []


def test_a_classifier_without_errors_shows_the_shares_as_they_are() -> None:
    found, _ = label_shares(np.diag([50, 30, 20]), np.array([10, 60, 30]))
    assert found == pytest.approx([0.1, 0.6, 0.3])
    # By hand: 80 % of negative and 90 % of positive rows are recognised; 45 % predicted negative = 0.8 q + 0.1 (1 - q).
    found, _ = label_shares(np.array([[80, 20], [10, 90]]), np.array([450, 550]))
    assert found == pytest.approx([0.5, 0.5])
    found, _ = label_shares(np.array([[80, 20, 0], [10, 90, 0], [0, 0, 0]]), np.array([450, 550, 0]))
    assert found == pytest.approx([0.5, 0.5, 0.0])  # no labelled row of the third


@pytest.mark.parametrize("shares", [pytest.param(OLD, marks=pytest.mark.integration), (0.2, 0.3, 0.5)])
def test_planted_shares_lie_in_95_percent_of_the_intervals(
    shares: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shift, "SAMPLES", 100)
    inside = np.zeros(3)
    for seed in range(100):
        validation = Validation(LABELS, *drawn(800, seed))
        predicted = np.bincount(drawn(600, 10_000 + seed, shares)[0].argmax(axis=1), minlength=3)
        _, intervals = label_shares(validation.counts_KK, predicted, seed=seed)
        inside += (intervals[:, 0] <= shares) & (shares <= intervals[:, 1])
    assert (inside / 100 > 0.95 - 3 * 0.022).all()  # the standard error of 100 draws
