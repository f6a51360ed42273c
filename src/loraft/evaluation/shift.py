"""Whether rows without labels are unlike the validation rows, which voids what was promised from these.

Two tests share one chance of a false alarm. The first compares the confidences (the highest probability of each row),
the second the numbers of predicted labels. A difference counts only where it is also large enough to matter.
Everything is computed from counts, so that rows can stream through.

Shapes: N rows, K labels, B bins of confidence.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from loraft.errors import Note, RunError, listed
from loraft.evaluation.metrics import Floats, Ints, confusion

FALSE_ALARMS = 0.05  # chance that rows like the validation rows are called unlike; half of it for each test
LEAST = 0.05  # share of the rows by which distributions must differ to be called unlike
ENOUGH = 50  # validation rows and predicted rows below which nothing is said
BINS = 100  # at most
EXPECTED = 5  # rows that a cell of the chi-square test needs; labels with fewer are taken together
SAMPLES = 400  # of the bootstrap


class Validation:
    """The validation rows that others are compared with.

    Args:
        labels: names of the K labels.
        probs_NK: as those of the rows to compare.
        references_N: label ids.

    Attributes:
        confidences_B: number of rows in each bin of confidence.
        counts_KK: number of rows by reference and predicted label.
    """

    def __init__(self, labels: Sequence[str], probs_NK: Floats, references_N: Ints) -> None:
        self.labels = tuple(labels)
        cuts = np.quantile(probs_NK.max(axis=1), np.arange(1, BINS) / BINS, method="inverted_cdf")
        self._edges = np.unique(cuts)
        self.confidences_B = self.binned(probs_NK)
        self.counts_KK = confusion(references_N, probs_NK.argmax(axis=1), len(self.labels))[:, :-1]

    def binned(self, probs_NK: Floats) -> Ints:
        """Returns the number of rows in each bin of confidence, (B,)."""
        bins_N = np.searchsorted(self._edges, probs_NK.max(axis=1))
        return np.bincount(bins_N, minlength=len(self._edges) + 1)

    def differences(self, confidences_B: Ints, predicted_K: Ints) -> list[str]:
        """Returns what is unlike the validation rows, as phrases with figures; nothing where no shift is shown.

        Args:
            confidences_B: rows in each bin of confidence, as `binned` counts them.
            predicted_K: rows of each predicted label.
        """
        if min(predicted_K.sum(), self.counts_KK.sum()) < ENOUGH:
            return []
        return [*self._confidence(confidences_B), *self._labels(predicted_K)]

    def _confidence(self, confidences_B: Ints) -> list[str]:
        """Kolmogorov and Smirnov's test at the bins' edges: the largest difference there is at most the largest of all.

        So the p-value is too large rather than too small, as it is for few rows.
        """
        from scipy.special import kolmogorov

        own, other = (np.cumsum(counts)[:-1] / counts.sum() for counts in (self.confidences_B, confidences_B))
        if not len(own):
            return []
        at = int(np.abs(own - other).argmax())
        gap = abs(own[at] - other[at])
        size = 1 / (1 / self.confidences_B.sum() + 1 / confidences_B.sum())
        p = float(kolmogorov(np.sqrt(size) * gap))
        if p > FALSE_ALARMS / 2 or gap < LEAST:
            return []
        return [
            f"{other[at]:.0%} of these rows and {own[at]:.0%} of the validation rows have a confidence of at most"
            f" {self._edges[at]:.2g} (Kolmogorov-Smirnov, p={p:.2g})"
        ]

    def _labels(self, predicted_K: Ints) -> list[str]:
        """The chi-square test that both sets of rows have the same shares of predicted labels."""
        from scipy.special import chdtrc

        both_2K = np.stack([self.counts_KK.sum(axis=0), predicted_K])
        expected_2K = both_2K.sum(axis=1, keepdims=True) * both_2K.sum(axis=0) / both_2K.sum()
        rare_K = expected_2K.min(axis=0) < EXPECTED
        cells = np.column_stack([both_2K[:, ~rare_K], both_2K[:, rare_K].sum(axis=1)]).astype(float)
        expected = cells.sum(axis=1, keepdims=True) * cells.sum(axis=0) / cells.sum()
        enough = expected.min(axis=0) >= EXPECTED
        cells, expected = cells[:, enough], expected[:, enough]
        own, other = both_2K / both_2K.sum(axis=1, keepdims=True)
        distance = np.abs(own - other).sum() / 2
        p = float(chdtrc(cells.shape[1] - 1, ((cells - expected) ** 2 / expected).sum())) if cells.shape[1] > 1 else 1.0
        if p > FALSE_ALARMS / 2 or distance < LEAST:
            return []
        found_K, intervals = label_shares(self.counts_KK, predicted_K)
        before_K = self.counts_KK.sum(axis=1) / self.counts_KK.sum()
        order = np.argsort(-np.abs(found_K - before_K), kind="stable")
        named = listed(
            f"{self.labels[k]} {found_K[k]:.0%} ({intervals[k, 0]:.0%} to {intervals[k, 1]:.0%}; {before_K[k]:.0%})"
            for k in order
        )
        return [
            f"the predicted labels differ in {distance:.0%} of the rows (chi-square, p={p:.2g}); if rows of one label"
            f" look as before, the label shares (95% interval; of the validation rows) are {named}"
        ]


def label_shares(counts_KK: Ints, predicted_K: Ints, *, seed: int = 0) -> tuple[Floats, Floats]:
    """Estimates label shares among rows of which only the predicted labels are known: black-box shift estimation.

    The shares are those under which the classifier, with the errors that it has on labelled rows, predicts labels as
    often as it did. Both sets of rows are resampled for the intervals.

    Args:
        counts_KK: labelled rows by reference and predicted label.
        predicted_K: unlabelled rows by predicted label.
        seed: of the resampling.

    Returns:
        Shares (K,), which sum to 1, and 95 % percentile intervals (K, 2). A label without labelled rows gets 0.

    Source:
        Lipton, Wang and Smola 2018, "Detecting and Correcting for Label Shift with Black Box Predictors"; they solve
        for the ratios of new to old shares, here multiplied by the old ones.
    """
    generator = np.random.default_rng(seed)
    cells, total = counts_KK.ravel() / counts_KK.sum(), int(counts_KK.sum())
    labelled_SKK = np.concatenate([cells[None] * total, generator.multinomial(total, cells, size=SAMPLES)])
    labelled_SKK = labelled_SKK.reshape(-1, *counts_KK.shape)
    seen = int(predicted_K.sum())
    seen_SK = np.concatenate(
        [predicted_K[None] / seen, generator.multinomial(seen, predicted_K / seen, SAMPLES) / seen]
    )
    rates_SKK = labelled_SKK / np.maximum(labelled_SKK.sum(axis=2, keepdims=True), 1)  # of predictions, given the label
    solved_SK = np.einsum("sjk,sj->sk", np.linalg.pinv(rates_SKK, rcond=1e-6), seen_SK)
    solved_SK = np.maximum(solved_SK, 0)
    solved_SK /= np.maximum(solved_SK.sum(axis=1, keepdims=True), 1e-12)
    low_K, high_K = np.percentile(solved_SK[1:], [2.5, 97.5], axis=0)
    found_K = solved_SK[0]
    return found_K, np.stack([np.minimum(low_K, found_K), np.maximum(high_K, found_K)], axis=1)


@dataclass
class Progress:
    """How far a prediction is at the end of a group, and what the rows after it depend on.

    Attributes:
        rows: rows up to the end of the group that is being yielded.
        prefix: token ids of the cached prefix.
        predicted: rows of each predicted label so far, without a changed prior.
        confidences: rows in each bin of confidence so far; empty where there is nothing to compare them with.
    """

    rows: int = 0
    prefix: list[int] = field(default_factory=list)
    predicted: dict[str, int] = field(default_factory=dict)
    confidences: list[int] = field(default_factory=list)

    def count(self, probs_NK: Floats, validation: Validation) -> None:
        """Counts a group of rows.

        Args:
            probs_NK: theirs, without a changed prior.
            validation: what they are to be compared with.

        Raises:
            RunError: what was counted before is of another run.
        """
        labels = validation.labels
        self.predicted = Counter(self.predicted) + Counter(labels[k] for k in probs_NK.argmax(axis=1))
        counts_B = validation.binned(probs_NK)
        if len(self.confidences or counts_B) != len(counts_B):
            raise RunError(
                f"progress: is not of this run (got {len(self.confidences)} bins of confidence, not {len(counts_B)});"
                " begin again, without OUTPUT.partial"
            )
        self.confidences = (counts_B + np.array(self.confidences or 0)).tolist()


def warn_if_unlike(validation: Validation | None, progress: Progress, *, promised: bool) -> None:
    """Tells where rows are unlike the validation rows: in a warning where a promise relies on these, else in a note."""
    if validation is None or not progress.confidences:
        return
    counts_K = np.array([progress.predicted.get(label, 0) for label in validation.labels])
    unlike = validation.differences(np.array(progress.confidences), counts_K)
    if unlike:
        warnings.warn(
            "these rows are unlike the validation rows, about which alone max_error and sets promise anything (sets"
            f" by label also where only label shares differ): {'; '.join(unlike)}; label some, and measure with"
            " loraft eval --split FILE",
            UserWarning if promised else Note,
            stacklevel=3,
        )
