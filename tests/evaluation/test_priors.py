"""Changed label shares: Bayes' rule by hand, and shares that are found again among rows without labels."""

import unicodedata

import numpy as np
import numpy.typing as npt
import pytest

from loraft.errors import ConfigError
from loraft.evaluation import priors
from loraft.evaluation.priors import Priors

LABELS = ("negative", "neutral", "positive")
OLD = np.array([0.45, 0.1, 0.45])
Floats = npt.NDArray[np.float64]


def drawn(
    n: int, shares: npt.ArrayLike, seed: int, assumed: npt.ArrayLike = OLD
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Rows of labels with these shares, and their exact probabilities under others: normal features, a mean a label."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=np.asarray(shares))
    features = 1.5 * np.eye(3)[labels] + rng.normal(size=(n, 3))
    odds = np.exp(1.5 * features) * np.asarray(assumed)
    return odds / odds.sum(axis=1, keepdims=True), labels


def test_probabilities_are_multiplied_by_new_over_old_shares() -> None:
    moved = Priors(np.array([0.2, 0.8]), np.array([0.5, 0.5])).applied([[0.5, 0.5], [0.8, 0.2], [1.0, 0.0]])
    np.testing.assert_allclose(moved, [[0.2, 0.8], [0.5, 0.5], [1.0, 0.0]])  # 0.8 * 0.4 = 0.2 * 1.6
    probs, _ = drawn(20, OLD, 0)
    np.testing.assert_allclose(Priors(OLD, OLD).applied(probs), probs)
    impossible = Priors(np.array([0.0, 1.0]), np.array([0.5, 0.5])).applied([[1.0, 0.0]])
    assert impossible.tolist() == [[0.0, 1.0]]


def test_shares_of_labelled_rows_are_never_zero() -> None:
    assert priors.shares(np.array([0, 0, 2]), 3).tolist() == pytest.approx([2 / 3.5, 0.5 / 3.5, 1 / 3.5])


def test_estimated_shares_are_those_of_a_naive_loop() -> None:
    probs, _ = drawn(40, (0.2, 0.3, 0.5), 1)
    new = [*OLD]
    for _ in range(600):  # Saerens et al. 2002, equation 2.9, row by row
        sums = [0.0, 0.0, 0.0]
        for row in probs:
            joint = [row[k] * new[k] / OLD[k] for k in range(3)]
            sums = [sums[k] + joint[k] / sum(joint) for k in range(3)]
        new = [one / len(probs) for one in sums]
    np.testing.assert_allclose(priors.estimated(probs, OLD).new_K, new, atol=1e-6)


@pytest.mark.parametrize("balanced", [(1 / 3, 1 / 3, 1 / 3), (0.2, 0.7, 0.1)])
def test_the_shares_that_a_balanced_training_assumes_are_found_on_labelled_rows(balanced: tuple[float, ...]) -> None:
    probs, labels = drawn(600, OLD, 3, balanced)
    found, own = priors.assumed(probs, labels), priors.shares(labels, 3)
    assert np.abs(found - balanced).sum() / 2 < 0.06  # 600 rows; the rows' own shares are 0.23 and 0.6 away
    np.testing.assert_allclose(priors.estimated(probs, found).new_K, own, atol=1e-5)
    assert np.abs(priors.estimated(probs, own).new_K - own).max() > 0.1
    new, _ = drawn(600, (0.2, 0.3, 0.5), 4, balanced)
    assert np.abs(priors.estimated(new, found).new_K - (0.2, 0.3, 0.5)).max() < 0.06


def test_probabilities_of_the_rows_own_shares_are_held_to_assume_these() -> None:
    others = 0
    for seed in range(100):
        probs, labels = drawn(300, OLD, seed)
        others += not np.array_equal(priors.assumed(probs, labels), priors.shares(labels, 3))
    assert others <= 4  # of 1 expected; more in 0.4 % of all simulations
    one = priors.assumed(drawn(60, (0.5, 0.0, 0.5), 0, (0.3, 0.4, 0.3))[0], np.arange(60) % 2 * 2)
    assert np.isfinite(one).all()
    assert (one > 0).all()


@pytest.mark.parametrize(
    "shares", [pytest.param((0.45, 0.1, 0.45), marks=pytest.mark.integration), (0.2, 0.3, 0.5), (0.7, 0.05, 0.25)]
)
def test_planted_shares_lie_in_95_percent_of_the_intervals(shares: tuple[float, ...]) -> None:
    inside = np.zeros(3)
    errors = []
    for seed in range(120):
        found = priors.estimated(drawn(400, shares, seed)[0], OLD)
        assert found.intervals is not None
        inside += [low <= share <= high for share, (low, high) in zip(shares, found.intervals, strict=True)]
        errors.append(found.new_K - shares)
    # 120 draws of a coverage of 0.95 have a standard error of 0.02.
    assert (inside / 120 > 0.95 - 0.06).all()
    assert (np.abs(np.mean(errors, axis=0)) < 3 * np.std(errors, axis=0) / np.sqrt(120)).all()
    assert np.std(errors, axis=0).max() < 0.04


def test_the_effect_is_shown_on_rows_as_they_are_and_weighted_to_the_new_shares() -> None:
    from sklearn.metrics import accuracy_score, f1_score

    probs, labels = drawn(800, OLD, 2)
    changed = Priors(np.array([0.2, 0.5, 0.3]), OLD)
    found = priors.effect(changed, probs, labels)
    weights = (changed.new_K / (np.bincount(labels) / 800))[labels]
    for rows, weight in (("as they are", None), ("weighted", weights)):
        for one, moved in zip(found[rows], (probs, changed.applied(probs)), strict=True):
            best = moved.argmax(axis=1)
            assert one["accuracy"] == pytest.approx(accuracy_score(labels, best, sample_weight=weight), abs=1e-6)
            assert one["macro_f1"] == pytest.approx(
                f1_score(labels, best, average="macro", sample_weight=weight), abs=1e-6
            )
    assert found["weighted"][1]["accuracy"] > found["weighted"][0]["accuracy"] + 0.05
    assert found["as they are"][1]["accuracy"] < found["as they are"][0]["accuracy"]


def test_given_shares_are_ordered_and_rounding_is_made_up_for() -> None:
    np.testing.assert_allclose(priors.given({"positive": 0.33, "negative": 0.33, "neutral": 0.33}, LABELS), [1 / 3] * 3)
    assert priors.given({"positive": 0.7, "negative": 0.1, "neutral": 0.2}, LABELS) == pytest.approx([0.1, 0.2, 0.7])
    spelled = {"Positive": 0.7, " NEGATIVE ": 0.1, "neutral": 0.2}  # as in a column of labels
    assert priors.given(spelled, LABELS) == pytest.approx([0.1, 0.2, 0.7])


def test_names_are_composed_and_may_hold_commas() -> None:
    text = unicodedata.normalize("NFD", "khen, chê=0.25,tích cực=0.75")
    assert priors.parsed(text) == {"khen, chê": 0.25, "tích cực": 0.75}
    apart = [unicodedata.normalize("NFD", name) for name in ("tích cực", "khen, chê")]
    for labels in (apart, ["tích cực", "khen, chê"]):
        assert priors.given({apart[1]: np.float32(0.25), "tích cực": 0.75}, labels).tolist() == [0.75, 0.25]


@pytest.mark.parametrize(
    ("prior", "told"),
    [
        ("negative=0.3,negative=0.5,positive=0.5", r"'negative' has two shares \(got 0\.3 and 0\.5\); give each"),
        ("tệ=0.3,te\u0323\u0302=0.7", "'tệ' has two shares"),
        ("negative=một nửa,positive=0.5", r"a share is a label, = and a number \(got 'negative=một nửa'\)"),
        ("positive=0.5,negative", r"\(got 'negative'\); or give: estimate"),
        ("positive=0.5,", r"\(got ''\)"),
    ],
)
def test_texts_that_are_no_shares_are_refused(prior: str, told: str) -> None:
    with pytest.raises(ConfigError, match=f"prior: .*{told}"):
        priors.parsed(prior)


@pytest.mark.parametrize(
    ("prior", "told"),
    [
        ({"negative": 0.5, "positive": 0.5}, "neutral is missing"),
        ({"negative": 0.5, "positive": 0.5, "neutral": 0, "vui": 0}, "'vui' is no label"),
        ({"negative": 0.5, "positive": 0.7, "neutral": -0.2}, "neutral is -0.2"),
        ({"negative": float("nan"), "positive": 0.5, "neutral": 0.5}, "negative is nan"),
        ({"negative": "0.5", "positive": 0.3, "neutral": 0.2}, "negative is 0.5"),
        ({"negative": 0.5, "positive": 0.4, "neutral": 0.2}, "the sum is 1.1"),
    ],
)
def test_shares_that_are_none_are_refused(prior: dict[str, float], told: str) -> None:
    with pytest.raises(ConfigError, match=f"prior: give each label a share.*{told}.*such as negative=0.33"):
        priors.given(prior, LABELS)
