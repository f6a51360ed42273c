"""Change the label shares that probabilities assume, to given ones or to those estimated from unlabelled rows.

Only the shares of the labels may have changed, not what rows of one label look like (label shift). Then the new
probabilities are proportional to old probability times new share over old share.

Shapes: N rows, K labels.

Source:
    Saerens, Latinne and Decaestecker 2002, "Adjusting the Outputs of a Classifier to New a Priori Probabilities: A
    Simple Procedure".
"""

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
import numpy.typing as npt

from loraft.config.names import show
from loraft.data.labels import label_reader
from loraft.errors import ConfigError, listed
from loraft.evaluation.metrics import Floats, scores_of_one
from loraft.evaluation.shares import Interval

ROUNDING = 0.02  # by which given shares may miss a sum of 1; they are then divided by it
CLOSE, MOST_STEPS = 1e-8, 20_000  # of expectation maximisation: change of a share at which it ends, and steps
SHOWN = 0.01  # p-value below which the probabilities are held to assume other shares than the validation rows have
WHOLE = 1_000_000  # what a row of weight 1 counts, since scores take whole numbers


@dataclass(frozen=True)
class Priors:
    """The shares of the labels among the rows that are predicted, and those that the probabilities assume.

    Attributes:
        new_K: sums to 1.
        old_K: sums to 1; above 0.
        intervals: of the new shares, 95 %; None where they were given.
    """

    new_K: Floats
    old_K: Floats
    intervals: tuple[Interval, ...] | None = None

    def applied(self, probs_NK: npt.ArrayLike) -> Floats:
        """Returns the probabilities under the new shares."""
        moved_NK = np.asarray(probs_NK, dtype=np.float64) * (self.new_K / self.old_K)
        total_N1 = moved_NK.sum(axis=1, keepdims=True)
        # A row whose only possible labels have a new share of 0 says nothing; the shares are all that is known.
        return np.where(total_N1 > 0, moved_NK / np.where(total_N1 > 0, total_N1, 1), self.new_K)


def shares(references_N: npt.NDArray[np.int64], num_labels: int) -> Floats:
    """Returns the labels' shares among labelled rows, (K,); a label without rows counts as half a row."""
    counts_K = np.maximum(np.bincount(references_N, minlength=num_labels), 0.5)
    return np.asarray(counts_K / counts_K.sum())


def assumed(probs_NK: Floats, references_N: npt.NDArray[np.int64]) -> Floats:
    """Returns the label shares that probabilities assume, (K,): those of these labelled rows, unless these show others.

    A training with balanced weights or rows gives probabilities for other shares than its data have. A factor for each
    label, the one under which the rows' mean probabilities are their label shares, then makes their labels likelier
    than chance explains (likelihood ratio test); the assumed shares are the rows' own over these factors. Then
    `estimated` gives the rows their own shares. Where no difference is shown the factors would be noise.
    """
    from scipy.special import chdtrc

    own_K = shares(references_N, probs_NK.shape[1])
    plain_NK = np.maximum(probs_NK, np.finfo(np.float64).tiny)
    moved_NK, factors_K = plain_NK, np.ones(len(own_K))
    for _ in range(MOST_STEPS):  # Sinkhorn's: columns, then rows, get their sums
        step_K = own_K / moved_NK.mean(axis=0)
        if np.abs(np.log(step_K)).max() < CLOSE:
            break
        factors_K = factors_K * step_K
        moved_NK = plain_NK * factors_K
        moved_NK /= moved_NK.sum(axis=1, keepdims=True)
    at = np.arange(len(references_N)), references_N
    gain = float(np.log(moved_NK[at] / plain_NK[at]).sum())
    if chdtrc(len(own_K) - 1, max(2 * gain, 0.0)) >= SHOWN:
        return own_K
    assumed_K = own_K / factors_K
    return np.asarray(assumed_K / assumed_K.sum())


def _by_label(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Returns the shares by composed label (Unicode NFC), as labels are kept."""
    found: dict[str, float] = {}
    for name, share in pairs:
        label = unicodedata.normalize("NFC", str(name).strip())
        if label in found:
            raise ConfigError(
                f"prior: {show(label)} has two shares (got {found[label]} and {share}); give each label one"
            )
        found[label] = share
    return found


def parsed(text: str) -> dict[str, float]:
    """Returns the shares by label of `negative=0.5,positive=0.5`; a comma without = before it belongs to a label.

    Raises:
        ConfigError: a part is no name and number, or a label has two shares.
    """
    pairs, begun = [], ""
    for part in text.split(","):
        begun += part
        name, equals, share = begun.rpartition("=")
        if not equals:
            begun += ","
            continue
        try:
            pairs.append((name, float(share)))
        except ValueError:
            raise ConfigError(
                f"prior: a share is a label, = and a number (got {show(begun)}); or give: estimate, or in Python a"
                " mapping"
            ) from None
        begun = ""
    if begun:
        raise ConfigError(f"prior: a share is a label, = and a number (got {show(begun[:-1])}); or give: estimate")
    return _by_label(pairs)


def given(prior: Mapping[str, float], labels: Sequence[str]) -> Floats:
    """Returns the shares of labels by name in the order of the labels, (K,), with the sum 1.

    Raises:
        ConfigError: a label is missing or unknown, a share is negative or no number, or the sum is not 1.
    """
    labels = [*_by_label((name, 0.0) for name in labels)]
    read = label_reader(labels)  # takes Negative for negative, as a column of labels does
    prior = _by_label((name if (k := read(name)) is None else labels[k], share) for name, share in prior.items())
    wrong = [*(f"{name} is missing" for name in labels if name not in prior)]
    wrong += [f"{name!r} is no label" for name in prior if name not in labels]
    wrong += [
        f"{name} is {value}" for name, value in prior.items() if not (isinstance(value, Real) and 0 <= value < math.inf)
    ]
    total = 0.0 if wrong else sum(prior.values())
    if not wrong and abs(total - 1) > ROUNDING:
        wrong = [f"the sum is {total:.4g}"]
    if wrong:
        raise ConfigError(f"prior: give each label a share, 1 in all (got: {listed(wrong)}); such as {example(labels)}")
    return np.array([prior[name] for name in labels]) / total


def refuse_void(prior: bool, sets: float | None, sets_by_label: bool, max_error: float | None) -> None:
    """Refuses what does not hold where the label shares are not those of the validation rows.

    Raises:
        ConfigError: there is a `prior`, and with it `max_error`, or `sets` over all labels.
    """
    void = {"max_error": max_error, "sets": None if sets_by_label else sets}
    named = [name for name, value in void.items() if value is not None]
    if prior and named:
        raise ConfigError(
            f"prior: under other label shares than the validation rows have, {named[0]} promises nothing (got"
            f" {void[named[0]]}); leave one of them out, or ask for sets by label, which hold under any shares"
        )


def example(labels: Sequence[str]) -> str:
    """Returns equal shares as `--prior` takes them, of three labels at most."""
    return ",".join(f"{name}={1 / len(labels):.2f}" for name in labels[:3]) + (",..." if len(labels) > 3 else "")


def estimated(probs_NK: Floats, old_K: Floats) -> Priors:
    """Estimates the shares among unlabelled rows from their probabilities, by expectation maximisation.

    Each step averages the rows' probabilities under the shares of the step before. This climbs the likelihood of the
    rows, which has one maximum. The intervals come from its curvature there: they hold the chance of the N rows, not
    errors of the probabilities.

    Args:
        probs_NK: under the old shares; N is at least 1.
        old_K: the shares that these assume.
    """
    ratios_NK = probs_NK / old_K
    new_K = old_K
    for _ in range(MOST_STEPS):
        joint_NK = ratios_NK * new_K
        before_K, new_K = new_K, (joint_NK / joint_NK.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(new_K - before_K).max() < CLOSE:
            break
    scores_NK = ratios_NK / (ratios_NK @ new_K)[:, None]
    # Shares move only along directions whose components sum to 0; `basis` spans these, (K, K - 1).
    basis = np.linalg.svd(np.ones((1, len(new_K))))[2][1:].T
    information = basis.T @ (scores_NK.T @ scores_NK) @ basis
    errors_K = np.sqrt(np.maximum(np.diag(basis @ np.linalg.pinv(information, hermitian=True) @ basis.T), 0))
    low_K, high_K = (np.clip(new_K + side * 1.96 * errors_K, 0, 1) for side in (-1, 1))
    return Priors(new_K, old_K, tuple(zip(low_K.tolist(), high_K.tolist(), strict=True)))


def effect(priors: Priors, probs_NK: Floats, references_N: npt.NDArray[np.int64]) -> dict[str, list[dict[str, float]]]:
    """What the change does to labelled rows.

    Returns:
        The scores of `scores_of_one` before and after it, on the rows "as they are", and "weighted" to the new shares.
    """
    num_labels = probs_NK.shape[1]
    weights_K = priors.new_K / shares(references_N, num_labels)
    found: dict[str, list[dict[str, float]]] = {}
    for rows, weights_N in (("as they are", np.ones(len(references_N))), ("weighted", weights_K[references_N])):
        found[rows] = []
        for probs in (probs_NK, priors.applied(probs_NK)):
            cells_N = references_N * (num_labels + 1) + probs.argmax(axis=1)
            counts = np.bincount(cells_N, weights=WHOLE * weights_N, minlength=num_labels * (num_labels + 1))
            found[rows].append(scores_of_one(np.rint(counts).astype(np.int64).reshape(num_labels, num_labels + 1)))
    return found
