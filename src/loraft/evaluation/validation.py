"""What a trained adapter takes from its validation rows: calibration, thresholds, and scores for promises later on.

Letters: N rows, K labels.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from loraft.config.schema import Config
from loraft.data.dataset import Split
from loraft.engine import scorer
from loraft.errors import spared
from loraft.evaluation.calibration import fit, fit_answers
from loraft.evaluation.multilabel import best_thresholds, probabilities
from loraft.models.calibration import NONE, Calibration
from loraft.models.encoder import Encoder
from loraft.progress import ROWS, Stage
from loraft.runs.run import Run
from loraft.runs.validation_scores import ValidationScores


@dataclass(frozen=True)
class Fitted:
    """What was taken from the validation rows.

    Attributes:
        calibration: fitted on the rows that also chose the checkpoint.
        thresholds: of each label, for probabilities before calibration; None with one label a row.
        scores: of all validation rows, also those set aside; None with several labels a row.
    """

    calibration: Calibration = NONE
    thresholds: tuple[float, ...] | None = None
    scores: ValidationScores | None = None


def fitted(model: PreTrainedModel, encoder: Encoder, splits: Mapping[str, Split], config: Config, run: Run) -> Fitted:
    """Scores the validation rows of a training, and fits what belongs to the adapter.

    Args:
        model: with the adapter, in evaluation mode.
        encoder: of the training's prompts.
        splits: of `data.training_splits`.
        config: of the training.
        run: named where the calibration fails, which costs nothing else.
    """
    used = [splits[name] for name in ("validation", "calibration") if name in splits]
    texts = [text for split in used for text in split.texts]
    ids, answers = [prompt.ids for prompt in encoder.encode(texts)], encoder.completions_K
    given: dict[str, Any] = {"unscored": encoder.unscored, "batch_tokens": config.eval.batch_tokens}
    with Stage("scoring validation", len(ids), ROWS):
        log_probs_NK = scorer.score(model, ids, answers, **given)
    validation, labels, calibration = splits["validation"], encoder.task.labels, NONE
    # A finished run cannot be resumed.
    again = f"loraft train --force --config {shlex.quote(str(run.config_path))}"
    if encoder.task.kind == "multilabel":
        references_NK = validation.label_sets(len(labels))
        with spared("the calibration", again):
            yes_NK, no_NK = np.split(log_probs_NK, 2, axis=1)
            calibration = fit_answers(yes_NK - no_NK, references_NK)
        return Fitted(calibration, best_thresholds(references_NK, probabilities(log_probs_NK)))
    with spared("the calibration", again):
        calibration = fit(log_probs_NK[: len(validation)], validation.labels, seed=config.seed)
        if calibration != NONE:
            calibration = replace(calibration, set_aside=len(texts) - len(validation))
    rows = tuple(chain.from_iterable(split.examples.rows.tolist() for split in used))
    references = tuple(chain.from_iterable(split.labels.tolist() for split in used))
    scores_NK = tuple(tuple(row) for row in log_probs_NK.tolist())
    aside = tuple(n >= len(validation) for n in range(len(rows)))
    return Fitted(calibration, None, ValidationScores(labels, rows, references, scores_NK, aside))
