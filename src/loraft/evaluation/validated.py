"""What the validation rows of an adapter say about rows without labels: sets of labels, changed shares, a shift.

Shapes: N validation rows, K labels.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loraft.config.schema import Config
from loraft.errors import ConfigError, Note, listed
from loraft.evaluation import conformal, priors
from loraft.evaluation.metrics import INTERVAL_SCORES, SCORES, Floats, Ints
from loraft.evaluation.shift import Validation
from loraft.models import manifest
from loraft.runs import validation_scores

SAMPLE, LEAST_SAMPLE = 5_000, 50  # rows that label shares are estimated from: the most, and the least


@dataclass(frozen=True)
class Validated:
    """The validation rows with the probabilities of the adapter as it is loaded.

    Attributes:
        labels: names of the K labels.
        probs_NK: calibrated, unless `--raw`.
        references_N: label ids.
        aside_N: whether the row chose neither checkpoint nor calibration.
    """

    labels: tuple[str, ...]
    probs_NK: Floats
    references_N: Ints
    aside_N: npt.NDArray[np.bool_]

    def shift(self) -> Validation:
        """What rows without labels are compared with: the rows that were set aside, or all where there are none."""
        used_N = self.aside_N if self.aside_N.any() else ~self.aside_N
        return Validation(self.labels, self.probs_NK[used_N], self.references_N[used_N])

    def sets(self, coverage: float, *, by_label: bool) -> conformal.LabelSets:
        """Fits sets of labels on the rows that were set aside, and tells how large they are; errors as in `fit`."""
        probs_MK, references_M = self.probs_NK[self.aside_N], self.references_N[self.aside_N]
        found = conformal.fit(probs_MK, references_M, self.labels, coverage, by_label=by_label)
        sizes_M = found.of(probs_MK, probs_MK.argmax(axis=1)).sum(axis=1)
        names = [f"{label} " for label in self.labels] if by_label else [""]
        law = listed(f"{name}{low:.1%} to {high:.1%}" for name, (low, high) in zip(names, found.law(), strict=True))
        warnings.warn(
            f"sets: each holds the right label with a probability of at least {coverage:g}"
            f"{', whatever that label is' if by_label else ''}, averaged over draws of the {len(probs_MK):,} set-aside"
            f" rows; with these ones it is (95% interval) {law}; on them {sizes_M.mean():.2f} labels a set,"
            f" {(sizes_M == 1).mean():.1%} of one label",
            Note,
            stacklevel=3,
        )
        return found

    def priors(self, new: Mapping[str, float] | Floats) -> priors.Priors:
        """Changes the label shares, and tells what that does to the validation rows.

        Args:
            new: the shares by label; or the probabilities of rows without labels, (M, K), to estimate them from.

        Raises:
            ConfigError: as in `priors.given`, or M is too small.
        """
        own_K = priors.shares(self.references_N, len(self.labels))
        old_K = priors.assumed(self.probs_NK, self.references_N)
        how = ""
        if isinstance(new, Mapping):
            found = priors.Priors(priors.given(new, self.labels), old_K)
        else:
            if len(new) < LEAST_SAMPLE:
                raise ConfigError(
                    f"prior: {LEAST_SAMPLE} rows or more are needed to estimate shares (got {len(new):,}); give the"
                    f" shares, such as {priors.example(self.labels)}"
                )
            found = priors.estimated(new, old_K)
            how = f", estimated from {len(new):,} rows (95% interval)"
        bounds = [f" ({low:.3f} to {high:.3f})" for low, high in found.intervals or ()] or [""] * len(old_K)
        rows = zip(self.labels, own_K, found.new_K, bounds, strict=True)
        named = listed(f"{label} {old:.3f} -> {share:.3f}{bound}" for label, old, share, bound in rows)
        if not np.array_equal(old_K, own_K):
            shown = listed(f"{label} {share:.3f}" for label, share in zip(self.labels, old_K, strict=True))
            how += f"; the probabilities assume other shares, as after a balanced training ({shown})"
        told = {
            rows: " and ".join(
                f"{SCORES[score]} {before[score]:.4f} -> {after[score]:.4f}" for score in INTERVAL_SCORES
            )
            for rows, (before, after) in priors.effect(found, self.probs_NK, self.references_N).items()
        }
        warnings.warn(
            f"prior: label shares {named}{how}; on {len(self.references_N):,} validation rows, weighted to these:"
            f" {told['weighted']}; as they are: {told['as they are']}",
            Note,
            stacklevel=3,
        )
        return found


def validated(folder: Path, config: Config, asked: Sequence[str] = ()) -> Validated | None:
    """Returns the validation rows of an adapter; None where it has none, and nothing is asked that needs them.

    Args:
        folder: of the adapter.
        config: of the prediction.
        asked: names of the options that need them.

    Raises:
        ConfigError: it has none, and something is asked.
        RunError: their file is damaged.
    """
    several = config.prompt.kind == "multilabel"
    scores = None if several else validation_scores.read(folder)
    if scores is not None and scores.rows:
        log_probs_NK, references_N = scores.arrays()
        probs_NK = manifest.calibration(folder, config).probabilities(log_probs_NK)
        return Validated(scores.labels, probs_NK, references_N, np.array(scores.set_aside))
    if asked:
        why = "a row may have several labels" if several else f"{folder} has {validation_scores.MISSING}"
        raise ConfigError(
            f"{asked[0]}: needs scores of validation rows with one label each (got none: {why}); train again, or leave"
            " it out"
        )
    return None
