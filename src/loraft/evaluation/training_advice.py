"""Warnings about how a training went, and about one that helped nothing, each with the key of the config that helps."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loraft.config.schema import Config
from loraft.evaluation.choosing import Metric
from loraft.evaluation.classification_report import EvaluationReport
from loraft.evaluation.shares import percent

UNUSUAL = 5.0  # ratio of a learning rate to the usual one, in either direction


def of_training(
    log: Sequence[Mapping[str, Any]], config: Config, rows: int, learning_rate: float | None, usual_rate: float
) -> list[str]:
    """Warnings about how a training went.

    Args:
        log: of the trainer; rows with `step` and the metric on validation.
        config: its `train` section.
        rows: of validation: two of its scores differ where they do by more than the standard error of a share of them.
        learning_rate: the highest of the schedule; None if not known.
        usual_rate: the usual one for the size of the backbone.
    """
    found, section, metric = [], config.train, Metric.of(config)
    key = f"eval_{metric.key}"
    by_step = {int(row["step"]): float(row[key]) for row in log if key in row and "step" in row}
    steps = sorted(by_step)
    if section.keep == "best" and len(steps) > 1 and len({*by_step.values()}) == 1:
        found.append(
            f"{metric.word} on validation is the same at all {len(steps)} evaluations ({by_step[steps[0]]:.3f}), so it"
            " picked no checkpoint: the first one is kept; raise train.learning_rate, or choose another train.metric"
        )
    elif len(steps) > 1:
        best = max(steps, key=lambda step: metric.gain(by_step[step]))  # the first of equal ones
        share = by_step[best]
        # Of a score that is no share, such as an error in steps of labels, any difference counts.
        error = math.sqrt(share * (1 - share) / rows) if 0 <= share <= 1 else 0.0
        first_differs, last_differs = (
            metric.gain(share) - max(metric.gain(by_step[step]) for step in others) > error
            for others in (steps[1:], steps[:-1])
        )
        length = f"train.num_train_epochs (now {section.num_train_epochs:g})"
        length = f"train.max_steps (now {section.max_steps})" if section.max_steps > 0 else length
        if best == steps[-1] and last_differs:
            found.append(
                f"validation still improves at the last step ({by_step[best]:.3f} {metric.word} at step {best}),"
                f" so more steps may help: raise {length}"
            )
        elif best == steps[0] and first_differs:
            found.append(
                f"validation is best at its first evaluation ({by_step[best]:.3f} {metric.word} at step {best}), so"
                " training went on too long or too fast: lower train.learning_rate or train.eval_steps (now"
                f" {section.eval_steps})"
            )
    if learning_rate is not None and not 1 / UNUSUAL <= learning_rate / usual_rate <= UNUSUAL:
        high = learning_rate > usual_rate
        ratio = learning_rate / usual_rate if high else usual_rate / learning_rate
        found.append(
            f"the learning rate {learning_rate:g} is {ratio:.0f} times {'above' if high else 'below'} the usual one for"
            f" a backbone of this size ({usual_rate:g}); leave train.learning_rate unset"
        )
    return found


def of_outcome(config: Config, before: EvaluationReport, after: EvaluationReport) -> Iterator[str]:
    """A sentence where the training did not improve its metric on the test split, or not more than chance explains.

    Args:
        config: names the metric.
        before: the backbone's own results on the test rows.
        after: those of the adapter.
    """
    metric = Metric.of(config)
    old, new = before.scores.get(metric.key), after.scores.get(metric.key)
    if old is None or new is None:
        return
    values = f"{metric.word} on test {new:.4f} after, {old:.4f} before"
    hint = (
        "lower train.learning_rate (now {}), or look for wrong labels with loraft data; the log says how the loss went"
    ).format("by size" if config.train.learning_rate is None else f"{config.train.learning_rate:g}")
    low, high = after.intervals.get(metric.key, (new, new))
    if metric.gain(new) <= metric.gain(old):
        yield f"the result is no better than before the training: {values}; {hint}"
    elif low <= old <= high:
        yield (
            f"the result may be no better than before the training: {values}, which lies inside the"
            f" {percent(after.confidence)} interval; train on more rows or steps, or measure on more"
        )
