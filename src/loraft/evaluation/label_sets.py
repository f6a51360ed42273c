"""Judge a model where a row has any number of labels, each of which is asked and scored as yes or no.

Letters: N rows, K labels.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from loraft.config.schema import Config
from loraft.data.dataset import Split
from loraft.engine import scorer
from loraft.errors import ConfigError
from loraft.evaluation import advice, label_set_baselines
from loraft.evaluation.baselines import Baselines
from loraft.evaluation.choosing import Metric
from loraft.evaluation.classification_report import EvaluationReport, ProbabilityScores, probability_fields
from loraft.evaluation.multilabel import EVEN, answers, label_set_report, probabilities
from loraft.models.calibration import NONE, Calibration
from loraft.models.encoder import Encoder
from loraft.models.prompts import Prompt
from loraft.runs.predictions import PredictedRow


def judged(
    model: PreTrainedModel,
    encoder: Encoder,
    prompts: Sequence[Prompt],
    split: Split,
    config: Config,
    thresholds: Sequence[float],
    calibration: Calibration = NONE,
) -> tuple[EvaluationReport, list[PredictedRow]]:
    """Returns the scores of a model on a split, and its label set for each row, as `evaluate.judge` does.

    Args:
        model: a causal language model in evaluation mode.
        encoder: the encoder that made the prompts.
        prompts: one for each row of the split.
        split: N labelled rows.
        config: its `eval` section and `seed` give the intervals.
        thresholds: of each label; none: 0.5 each.
        calibration: of the probabilities.

    Raises:
        ConfigError: the config asks for generated answers, each of which names one label.
    """
    if config.eval.decode == "generate":
        raise ConfigError(
            "eval.decode: generates one label a row (got generate with prompt.kind=multilabel); use score"
        )
    labels = encoder.task.labels
    settings: dict[str, Any] = {
        "bootstrap_samples": config.eval.bootstrap_samples, "confidence": config.eval.confidence, "seed": config.seed
    }  # fmt: skip
    ids, batch_tokens = [prompt.ids for prompt in prompts], config.eval.batch_tokens
    scores_N2K = scorer.score(model, ids, encoder.completions_K, unscored=encoder.unscored, batch_tokens=batch_tokens)
    references_NK, probs_NK = split.label_sets(len(labels)), probabilities(calibration.adjusted(scores_N2K))
    least_K = [*thresholds] or [EVEN] * len(labels)
    report = label_set_report(references_NK, probs_NK, least_K, labels, **settings)
    if calibration != NONE:  # the thresholds move with the probabilities, so labels stay
        raw = probability_fields(*answers(references_NK, probabilities(scores_N2K)), **settings)
        before = ProbabilityScores(**raw, accuracy=report.accuracy, macro_f1=report.macro_f1)
        report = replace(report, calibration=calibration, before_calibration=before)
    metric = Metric.of(config)
    if (k := metric.label) is not None:
        own = label_set_report(
            references_NK[:, [k]], probs_NK[:, [k]], least_K[k : k + 1], labels[k : k + 1], **settings
        )
        scores = {**report.scores, metric.key: own.scores["micro_f1"]}
        report = replace(report, scores=scores, intervals={**report.intervals, metric.key: own.intervals["micro_f1"]})

    def names(applies_K: np.ndarray) -> tuple[str, ...]:
        return tuple(label for label, applies in zip(labels, applies_K, strict=True) if applies)

    rows = [
        PredictedRow(
            row=example.row,
            text=example.text,
            label=names(own_K),
            predicted=names(probs_K >= least_K),
            probs=dict(zip(labels, map(float, probs_K), strict=True)),
        )
        for example, own_K, probs_K in zip(split.examples, references_NK, probs_NK, strict=True)
    ]
    return report, rows


def beside(
    config: Config,
    report: EvaluationReport,
    rows: Sequence[PredictedRow],
    train: Split | None,
    test: Split,
    model: str,
    *,
    zero_shot: bool = False,
) -> tuple[Baselines | None, list[str]]:
    """Returns baselines on the same rows, and warnings about the result; see `baselines` and `advice`."""
    labels = [row.label for row in report.per_class]
    predictions_NK = np.array([[label in (row.predicted or ()) for label in labels] for row in rows])
    told = advice.of_label_sets(config, report, test, predictions_NK, None if zero_shot else train, zero_shot=zero_shot)
    return label_set_baselines.compared_with(config, train, test, predictions_NK, model), told
