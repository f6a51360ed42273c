"""Sets of labels: MAPIE's where none is added, the promised coverage, and the law that it follows."""

import numpy as np
import numpy.typing as npt
import pytest

from loraft.errors import ConfigError
from loraft.evaluation.conformal import fit, rows_needed

LABELS = ("negative", "neutral", "positive")
Rows = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]


def drawn(n: int, seed: int) -> Rows:
    """Probabilities that are right about rows of unequal labels, with some noise."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=(0.5, 0.15, 0.35))
    logits = rng.normal(size=(n, 3))
    logits[np.arange(n), labels] += 1.5
    odds = np.exp(1.5 * logits)
    return odds / odds.sum(axis=1, keepdims=True), labels


@pytest.mark.integration  # importing MAPIE takes seconds
@pytest.mark.filterwarnings("ignore:.*less labels")
@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("by_label", [False, True])
def test_sets_are_those_of_mapie_and_the_predicted_label(coverage: float, by_label: bool) -> None:
    mapie = pytest.importorskip("mapie.classification")
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Known(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        """Takes probabilities for features."""

        classes_ = np.arange(3)

        def fit(self, X: object, y: object) -> "Known":
            return self

        def predict_proba(self, X: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            return X

        def predict(self, X: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
            return X.argmax(axis=1)

        def __sklearn_is_fitted__(self) -> bool:
            return True

    (probs, labels), (new, _) = drawn(400, 0), drawn(500, 1)
    expected = np.zeros((500, 3), dtype=bool)
    # MAPIE has no sets per label: one fitted on the rows of a label says whether that label is in.
    for k in range(3) if by_label else [slice(None)]:
        of_k = labels == k if by_label else np.ones(400, dtype=bool)
        reference = mapie.SplitConformalClassifier(Known(), confidence_level=coverage, conformity_score="lac")
        reference.conformalize(probs[of_k], labels[of_k])
        expected[:, k] = reference.predict_set(new)[1][:, k, 0]
    found = fit(probs, labels, LABELS, coverage, by_label=by_label).of(new, new.argmax(axis=1))
    best = np.eye(3, dtype=bool)[new.argmax(axis=1)]
    assert 1.1 < expected.sum(axis=1).mean() < 2.5 or coverage == 0.8
    assert (expected.sum(axis=1) == 0).any() == (coverage == 0.8)  # MAPIE leaves sets empty
    np.testing.assert_array_equal(found, expected | best)


@pytest.mark.parametrize("by_label", [False, True])
def test_coverage_follows_its_beta_binomial_law(by_label: bool) -> None:
    # Without ties the number of covered rows among m has the law BetaBinomial(m, k, n + 1 - k), k = ceil((n + 1) 0.9),
    # n being the labelled rows (of the label). Its randomised distribution values are uniform; adding the predicted
    # label is left out here, since it only adds.
    from scipy.stats import betabinom, kstest

    rng, values, covered, several = np.random.default_rng(0), [], [], []
    for seed in range(250):
        probs, labels = drawn(500, seed)
        sets = fit(probs[:200], labels[:200], LABELS, 0.9, by_label=by_label)
        new, own = probs[200:], labels[200:]
        n = int((labels[:200] == 1).sum()) if by_label else 200
        chosen = own == 1 if by_label else np.ones(300, dtype=bool)
        inside = (new[np.arange(300), own] >= sets.least_K[own])[chosen]
        k, m, hits = int(np.ceil((n + 1) * 0.9 - 1e-9)), len(inside), int(inside.sum())
        law = betabinom(m, k, n + 1 - k)
        values.append(law.cdf(hits - 1) + rng.random() * law.pmf(hits))
        covered.append(sets.of(new, new.argmax(axis=1))[np.arange(300), own][chosen].mean())
        several.append(sets.law()[1 if by_label else 0])
        assert covered[-1] >= inside.mean()
        assert sets.of(new, new.argmax(axis=1)).any(axis=1).all()
    assert kstest(values, "uniform").pvalue > 0.01
    error = 2 * np.std(covered) / np.sqrt(250)
    assert np.mean(covered) > 0.9 - error
    low, high = np.mean(several, axis=0)
    assert low < 0.9 < high
    assert sets.rows_K[1] == n
    assert len(sets.law()) == (3 if by_label else 1)


def test_too_few_rows_are_refused_with_the_number_that_is_needed() -> None:
    # n >= coverage / (1 - coverage): 9, 19 and 99 rows, at which the threshold is the lowest probability of all.
    assert [rows_needed(share) for share in (0.9, 0.95, 0.99, 0.5)] == [9, 19, 99, 1]
    probs, labels = drawn(60, 3)
    kept = np.flatnonzero(labels == 0)[:9]
    assert fit(probs[kept], labels[kept], LABELS, 0.9, by_label=False).least_K[0] == probs[kept, 0].min()
    with pytest.raises(
        ConfigError, match=r"0\.9 needs 9 validation rows that are set aside \(got 8\); a lower coverage"
    ):
        fit(probs[kept[:8]], labels[kept[:8]], LABELS, 0.9, by_label=False)
    with pytest.raises(
        ConfigError, match=r"needs 9 .*, of each label \(got neutral 0, positive 0\); .* over all labels"
    ):
        fit(probs[kept], labels[kept], LABELS, 0.9, by_label=True)


def test_a_coverage_of_numpy_is_one_of_python() -> None:
    found, same = (fit(*drawn(60, 3), LABELS, one, by_label=False) for one in (np.float64(0.9), 0.9))
    assert (found.law(), type(found.coverage)) == (same.law(), float)


@pytest.mark.parametrize("coverage", [0.0, 1.0, -1.0, float("nan"), "0.9"])
def test_a_coverage_that_is_no_share_is_refused(coverage: float) -> None:
    with pytest.raises(ConfigError, match=r"sets: is no number from 1e-06 to 0\.999999"):
        fit(*drawn(60, 3), LABELS, coverage, by_label=False)
