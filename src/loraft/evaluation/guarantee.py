"""Which rows `predict --max-error` answers: a threshold whose error among answered rows has been shown to be small.

A row is answered where the confidence, the probability of its best label, reaches a threshold. For each threshold a
hypothesis says that the error among answered rows of the population is above `max_error`. Validation rows that chose
neither checkpoint nor temperature (the set-aside rows) test these hypotheses one after the other, from a strict
threshold to lower ones. The first hypothesis that is not rejected ends the tests, and the threshold before it is taken.

Why that holds with the confidence asked for:

- The thresholds, their order and the first of them come from the other validation rows only (the guiding rows). To the
  set-aside rows they are constants.
- How many set-aside rows a threshold answers is random. Given that number, the answered rows are independent draws
  from the answered rows of the population, and the wrong ones among them are binomial. So the exact binomial test has
  its level given the number, and therefore also without it.
- A promise is broken only if a true hypothesis is rejected. Then the first true hypothesis in the order was rejected,
  too: one test, with the whole level. No correction for the number of thresholds is needed, and the error need not fall
  as the threshold rises.

Shapes: N rows, K labels, T thresholds.

Source:
    Angelopoulos, Bates, Candès, Jordan and Lei 2021, "Learn then Test: Calibrating Predictive Algorithms to Achieve
    Risk Control" (fixed-sequence testing); Clopper and Pearson 1934, "The Use of Confidence or Fiducial Limits
    Illustrated in the Case of the Binomial".
"""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from loraft.config.schema import Config
from loraft.errors import ConfigError, Note, RunError
from loraft.evaluation.metrics import Floats, Ints
from loraft.evaluation.shares import given, percent, wilson
from loraft.models import manifest
from loraft.models.calibration import Calibration
from loraft.runs.validation_scores import MISSING, read

DIGITS = 6  # of a confidence: what lies closer together differs by rounding errors of the model, and is a tie
MOST_ROWS = 1_000_000  # set aside, up to which a number that would do is looked for
# Standard deviations of the number of mistakes that `rows_needed` adds to its mean, because the best threshold among
# many owes something to luck, and is not the first one tested. In simulations about half of the draws then pass.
LUCK = 0.84


@dataclass(frozen=True)
class Answers:
    """What a model answered on labelled rows.

    Attributes:
        confidences_N: probability of the best label.
        wrong_N: whether the best label is not the row's.
    """

    confidences_N: Floats
    wrong_N: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, probs_NK: npt.NDArray[np.float64], references_N: npt.ArrayLike) -> Self:
        """The answers of a model with these probabilities, `references_N` being the rows' label ids."""
        return cls(probs_NK.max(axis=1), probs_NK.argmax(axis=1) != np.asarray(references_N))

    def at(self, thresholds_T: npt.ArrayLike) -> tuple[Ints, Ints]:
        """Returns how many rows are answered at each threshold, and how many of these are wrong."""
        order_N = np.argsort(self.confidences_N)
        wrong_from = np.append(np.cumsum(self.wrong_N[order_N][::-1])[::-1], 0)  # among rows n, n + 1, ...
        first_T = np.searchsorted(self.confidences_N[order_N], thresholds_T)
        return len(order_N) - first_T, wrong_from[first_T]

    def thresholds(self) -> Floats:
        """Returns a threshold between each two confidences that differ, from the highest on, and 0, which answers all.

        No row lies on a threshold, so that rounding errors of another batch cannot move a row, or a group of ties,
        to its other side.
        """
        distinct = np.unique(self.confidences_N.round(DIGITS))[::-1]
        return np.append((distinct[:-1] + distinct[1:]) / 2, 0.0)


@dataclass(frozen=True)
class Guarantee:
    """What `predict --max-error` promises.

    Attributes:
        max_error: upper bound of the error among answered rows, a fraction.
        confidence: of the promise over the draw of the set-aside rows, a fraction.
        threshold: rows whose best label is at least so probable are answered.
        rows, answered, wrong: number of set-aside rows, of those answered at the threshold, of those answered wrongly.
    """

    max_error: float
    confidence: float
    threshold: float
    rows: int
    answered: int
    wrong: int

    def __str__(self) -> str:
        low, high = wilson(self.answered, self.rows, self.confidence)
        return (
            f"max_error {self.max_error:g}: rows with a confidence of at least {self.threshold:.4g} are answered, about"
            f" {self.answered / self.rows:.1%} ({low:.1%} to {high:.1%}) of rows like the validation rows; with"
            f" {percent(self.confidence)} confidence at most {100 * self.max_error:g}% of the answers are wrong"
            f" ({self.answered:,} of {self.rows:,} rows set aside are answered, {self.wrong:,} wrongly)"
        )


def upper_bounds(wrong_T: npt.ArrayLike, answered_T: npt.ArrayLike, confidence: float) -> Floats:
    """Returns Clopper and Pearson's one-sided bound of the error: the exact binomial test rejects all errors above it.

    Args:
        wrong_T: wrong answers.
        answered_T: all answers; without any the bound is 1.
        confidence: that the error is not above the bound, in (0, 1).
    """
    from scipy.special import betaincinv

    wrong, answered = np.asarray(wrong_T, dtype=np.float64), np.asarray(answered_T, dtype=np.float64)
    some = wrong < answered
    return np.where(some, betaincinv(wrong + 1, np.where(some, answered - wrong, 1.0), confidence), 1.0)


def least_answers(max_error: float, confidence: float) -> int:
    """Returns how many answers without an error show `max_error`: fewer can show nothing."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-max_error))


def start_of(guiding: Answers, confidence: float) -> int:
    """Returns the index of the threshold tested first: where the guiding rows show the lowest error.

    A stricter threshold answers too few rows to show anything, a lower one has more errors. It does not depend on
    `max_error`, so that a larger one never answers fewer rows.
    """
    answered_T, wrong_T = guiding.at(guiding.thresholds())
    return int(upper_bounds(wrong_T, answered_T, confidence).argmin())


def lowest_threshold(guiding: Answers, aside: Answers, max_error: float, confidence: float) -> float | None:
    """Returns the lowest threshold that is shown to keep `max_error`, or None if none is.

    Args:
        guiding: of the rows that may choose: they give the thresholds, and the first one tested.
        aside: of the set-aside rows, which test.
        max_error: in (0, 1).
        confidence: of the promise, in (0, 1).
    """
    thresholds_T = guiding.thresholds()[start_of(guiding, confidence) :]
    answered_T, wrong_T = aside.at(thresholds_T)
    rejected_T = upper_bounds(wrong_T, answered_T, confidence) <= max_error
    in_a_row = int(np.append(rejected_T, False).argmin())
    return float(thresholds_T[in_a_row - 1]) if in_a_row else None


def rows_needed(answers: Answers, max_error: float, confidence: float) -> int | None:
    """Returns about how many set-aside rows would show `max_error`, or None if no number that is looked for would.

    With so many rows about half of the draws pass: those with fewer mistakes than others, the error at each threshold
    and its share of answered rows being those of `answers`.
    """
    answered_T, wrong_T = answers.at(answers.thresholds())
    error_T, share_T = (wrong_T + 0.5) / (answered_T + 1), answered_T / len(answers.wrong_N)
    rows = float(least_answers(max_error, confidence))
    while rows <= MOST_ROWS:
        more_T = rows * share_T
        most_T = error_T * more_T + LUCK * np.sqrt(error_T * (1 - error_T) * more_T)
        if (upper_bounds(most_T, more_T, confidence) <= max_error).any():
            return int(float(f"{rows:.2g}"))
        rows *= 1.1
    return None


def guaranteed(guiding: Answers, aside: Answers, max_error: float, confidence: float) -> Guarantee:
    """Returns what can be promised; arguments as in `lowest_threshold`.

    Raises:
        ConfigError: no threshold is shown to keep `max_error`; says which error is shown, and about how many rows
            this one takes.
    """
    rows = len(aside.wrong_N)
    threshold = lowest_threshold(guiding, aside, max_error, confidence)
    if threshold is not None:
        answered, wrong = (int(one) for one in aside.at(threshold))
        return Guarantee(max_error, confidence, threshold, rows, answered, wrong)
    answered, wrong = (int(one) for one in aside.at(guiding.thresholds()[start_of(guiding, confidence)]))
    lowest = math.ceil(1000 * float(upper_bounds(wrong, answered, confidence))) / 1000
    confidences_N = np.concatenate([guiding.confidences_N, aside.confidences_N])
    every = Answers(confidences_N, np.concatenate([guiding.wrong_N, aside.wrong_N]))
    least, wanted = least_answers(max_error, confidence), rows_needed(every, max_error, confidence)
    instead = f"about {lowest:g} is, at the strictest threshold" if lowest < 1 else "no error is"
    raise ConfigError(
        f"max_error: is not shown with {percent(confidence)} confidence (got {max_error:g}, {rows:,} validation rows"
        f" set aside); {instead}; this one takes at least {least:,} answers, without a mistake, and "
        + (f"about {wanted:,} rows set aside, for even odds" if wanted else "a better model")
        + ("; an error is promised only if it was chosen before any was tried" if lowest < 1 else "")
    )


def of_adapter(folder: Path, calibration: Calibration, max_error: float, confidence: float) -> Guarantee:
    """Returns what can be promised of an adapter, from the scores of its validation rows.

    Args:
        folder: of the adapter.
        calibration: that predictions will have; labels and confidences are computed with it here, too.
        max_error, confidence: as in `Guarantee`.

    Raises:
        ConfigError: as in `guaranteed`, or `max_error` is no number from 1e-6 to 1 - 1e-6.
        RunError: the folder has no scores of rows that were set aside.
    """
    max_error = given("max_error", max_error)
    scores = read(folder)
    number = sum(scores.set_aside) if scores is not None else 0
    if scores is None or not number:
        got = MISSING if scores is None else f"{len(scores.rows):,} rows, which all chose the checkpoint"
        raise RunError(
            f"{folder}: max_error needs validation rows that were set aside (got {got}); name the"
            " run that it was made from, or train again, with data.calibration_share=0.5 where there are fewer than 200"
            " validation rows;"
            f" {least_answers(max_error, confidence):,} rows set aside are the least for {max_error:g}"
        )
    guiding, aside = (
        Answers.of(calibration.probabilities(log_probs_NK), references_N)
        for log_probs_NK, references_N in (scores.arrays(set_aside=which) for which in (False, True))
    )
    return guaranteed(guiding, aside, max_error, confidence)


def least_confidence(
    folder: Path, config: Config, min_confidence: float | None, max_error: float | None
) -> float | None:
    """Returns the probability of its best label that a row needs to get that label; None if it needs none.

    With `max_error` a note says what is promised. The adapter lies in `folder`; the rest as in `predict`.
    """
    both = {"min_confidence": min_confidence, "max_error": max_error}
    named = {name: value for name, value in both.items() if value is not None}
    if len(named) > 1:
        raise ConfigError(
            f"max_error and min_confidence: both choose the rows that get a label (got {max_error} and"
            f" {min_confidence}); give one of them"
        )
    for name, value in named.items():
        if config.prompt.kind == "multilabel":
            raise ConfigError(
                f"{name}: with prompt.kind=multilabel each label has its own threshold (got {value}); leave it out, and"
                " read the probabilities"
            )
    if max_error is None:
        return min_confidence
    promise = of_adapter(folder, manifest.calibration(folder, config), max_error, config.eval.confidence)
    warnings.warn(str(promise), Note, stacklevel=2)
    return promise.threshold
