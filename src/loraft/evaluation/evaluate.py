"""Score a model on a labelled split: `loraft.evaluate` for runs and backbones, `judge` for a model in memory."""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import PreTrainedModel

from loraft import distributed
from loraft.config.schema import Config
from loraft.data.dataset import Split, load_data, warn_of_notes
from loraft.display.tabled import Tabled
from loraft.engine import decoding, scorer
from loraft.engine.probabilities import to_probs
from loraft.errors import RunError
from loraft.evaluation import advice, label_sets
from loraft.evaluation.baselines import Baselines, compared_with, train_rows
from loraft.evaluation.choosing import report_for
from loraft.evaluation.classification_report import EvaluationReport, with_calibration
from loraft.evaluation.predict import warn_of_ties
from loraft.evaluation.prediction_table import Predictions
from loraft.models import manifest
from loraft.models.calibration import NONE, Calibration
from loraft.models.encoder import Encoder
from loraft.models.load import build, load_peft, load_run
from loraft.models.prompts import Prompt, cut_share, warn_of_cuts
from loraft.progress import ROWS, Stage
from loraft.runs.bundle import config_of
from loraft.runs.predictions import PredictedRow, predicted_ids
from loraft.runs.records import as_json
from loraft.runs.run import Run

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class Evaluation(Tabled):
    """The result of `evaluate`. Its text shows the report, `to_pandas` is the table of the N rows.

    Attributes:
        report: scores, as fractions, and what belongs to them.
        labels: names of the K labels, in id order.
        split: the split as it was asked for.
        source: the file or data set that the rows were read from.
        notes: how many rows were left out or changed while reading, by reason.
        rows: one prediction for each of the N rows.
        adapter: folder of the adapter; None for a backbone without one.
        baselines: majority label and linear SVM on the same rows; None where `eval.baselines` leaves them out.
        warnings: what the scores hide, in sentences; see `advice`.
    """

    report: EvaluationReport
    labels: tuple[str, ...]
    split: str
    source: str
    notes: dict[str, int]
    rows: tuple[PredictedRow, ...]
    adapter: str | None = None
    baselines: Baselines | None = None
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The report's fields, then the others; without the predictions."""
        described = {"labels": self.labels, "split": self.split, "source": self.source, "notes": self.notes}
        beside = {"baselines": as_json(self.baselines), "warnings": list(self.warnings)}
        return {**self.report.to_json(), **described, "adapter": self.adapter, **beside}

    whole = ".report.to_pandas()"

    def _table(self) -> tuple[str, list[dict[str, Any]]]:
        head, rows = self.report._table()
        return f"{self.adapter or 'backbone without an adapter'}, {self.source}, {head}", rows

    def to_pandas(self) -> "pandas.DataFrame":
        """The N rows as a table of pandas, in the columns of `predict` beside the reference `label`."""
        return Predictions(self.rows).to_pandas()


def evaluate(
    *,
    config: Config | None = None,
    run: str | Path | None = None,
    adapter: str | Path | None = None,
    split: str = "test",
    zero_shot: bool = False,
) -> Evaluation:
    """Returns the scores of a finished run, of another adapter, or of a backbone without one, on a labelled split.

    Args:
        config: the run's own by default. With a run, a config given here may change data and evaluation only: backbone
            and prompt must be those of the training.
        run: directory of a finished run.
        adapter: folder of a LoRA adapter in peft's format, made elsewhere; `config` names its backbone and its task.
        split: train, validation, test, another split's name, or a file.
        zero_shot: evaluate the backbone of `config` without any adapter.

    Returns:
        Scores as fractions, log loss in nats, and one prediction for each of the N rows.

    Raises:
        RunError: the run is not finished or was trained with another backbone, prompt or labels than `config` has; or
            not exactly one of `run`, `adapter` and `zero_shot` is given.
        BackboneError: the adapter cannot be loaded, or does not fit the backbone.
        DataError: the split cannot be read.

    Examples:
        >>> import loraft
        >>> config = loraft.resolve(overrides=["data.max_test_rows=20"])
        >>> found = loraft.evaluate(config=config, zero_shot=True)
        >>> found.report.n, found.labels
        (20, ('negative', 'neutral', 'positive'))
    """
    choices = {"--run": run is not None, "--adapter": adapter is not None, "--zero-shot": zero_shot}
    given = [flag for flag, is_given in choices.items() if is_given]
    if len(given) != 1:
        got = " and ".join(given) or "nothing to evaluate"
        raise RunError(f"eval: an adapter, or a backbone without one (got {got}); give one of {', '.join(choices)}")
    opened = None if run is None else Run.open(Path(run))
    if opened is not None:
        adapter, config = opened.adapter, config or config_of(opened)
    if config is None:
        raise RunError(f"eval: no config (got {given[0]} alone); loraft.resolve makes one, only a run has its own")
    data = load_data(config, split)
    warn_of_notes([data])
    if opened is not None and opened.finished:
        manifest.check_drawn(manifest.read(opened.adapter), config_of(opened), config, data)
    if opened is not None:
        encoder, model = load_run(opened, config, switchable=False)
    else:
        encoder, model = build(config) if adapter is None else load_peft(Path(adapter), config)
    folder, labels = None if adapter is None else str(adapter), encoder.task.labels
    calibration = manifest.calibration(None if adapter is None else Path(adapter), config)
    thresholds = manifest.thresholds(None if adapter is None else Path(adapter), len(labels), calibration)
    prompts = encoder.encode(data.texts)
    report, rows = judge(model, encoder, prompts, data, config, thresholds, calibration)
    unused = zero_shot and config.eval.baselines == "off"
    train, name = None if unused else train_rows(config, split), "backbone" if zero_shot else "adapter"
    if encoder.task.kind == "multilabel":
        baselines, told = label_sets.beside(config, report, rows, train, data, name, zero_shot=zero_shot)
    else:
        predictions_N = predicted_ids(rows, labels)
        baselines = compared_with(config, train, data, predictions_N, name)
        trained = None if zero_shot else train  # nothing was learnt from these rows
        told = advice.of_evaluation(config, report, data, predictions_N, trained, zero_shot=zero_shot)
    if not [*advice.cut_away(config, report.cut, data.name)]:  # which says the same
        warn_of_cuts(prompts, data.name)
    for sentence in told:
        warnings.warn(sentence, stacklevel=2)
    notes = data.notes
    return Evaluation(report, labels, split, data.source, notes, tuple(rows), folder, baselines, tuple(told))


def judge(
    model: PreTrainedModel,
    encoder: Encoder,
    prompts: Sequence[Prompt],
    split: Split,
    config: Config,
    thresholds: Sequence[float] = (),
    calibration: Calibration = NONE,
) -> tuple[EvaluationReport, list[PredictedRow]]:
    """Returns the scores of a model on a split, and its prediction for each row.

    Args:
        model: a causal language model in evaluation mode.
        encoder: the encoder that made the prompts.
        prompts: one for each row of the split.
        split: N labelled rows.
        config: its `eval` section selects scoring or generation; its `seed` is that of the bootstrap.
        thresholds: of each label, where a row has any number of labels; 0.5 each if none are given.
        calibration: of the probabilities.
    """
    started = time.perf_counter()
    with Stage(f"scoring {split.name}", len(prompts), ROWS):
        if encoder.task.kind == "multilabel":
            report, rows = label_sets.judged(model, encoder, prompts, split, config, thresholds, calibration)
        else:
            report, rows = _judged(model, encoder, prompts, split, config, calibration)
    truncated = sum(prompt.cut > 0 for prompt in prompts)
    seconds = round(time.perf_counter() - started, 3)
    cut = cut_share(prompts)
    return replace(report, truncated=truncated, decode=config.eval.decode, seconds=seconds, cut=cut), rows


def _judged(
    model: PreTrainedModel,
    encoder: Encoder,
    prompts: Sequence[Prompt],
    split: Split,
    config: Config,
    calibration: Calibration,
) -> tuple[EvaluationReport, list[PredictedRow]]:
    """What `judge` returns, without `truncated`, `seconds` and `cut`, where a row has one label."""
    ids = [prompt.ids for prompt in prompts]
    batch_tokens = config.eval.batch_tokens
    probs_NK: np.ndarray | None = None
    answers: list[str] | None = None
    if config.eval.decode == "score":
        unscored = encoder.unscored
        log_probs_NK = scorer.score(model, ids, encoder.completions_K, unscored=unscored, batch_tokens=batch_tokens)
        warn_of_ties(calibration.adjusted(log_probs_NK))
        probs_NK = calibration.probabilities(log_probs_NK)
        predictions_N = probs_NK.argmax(axis=1)
    else:
        generated = partial(
            decoding.generate,
            model,
            completions_K=encoder.completions_K,
            pad=encoder.tokenizer.pad_token_id,
            max_new_tokens=config.eval.max_new_tokens,
            batch_tokens=batch_tokens,
        )
        made = distributed.shared_out(ids, generated)
        read = encoder.read(made)
        answers = [text for text, _ in read]
        predictions_N = np.array([-1 if label is None else label for _, label in read])
    labels = encoder.task.labels
    report = report_for(config, split.labels, probs_NK, predictions_N, labels)
    if config.eval.decode == "score":
        report = with_calibration(
            report,
            calibration,
            split.labels,
            to_probs(log_probs_NK),
            predictions_N,
            bootstrap_samples=config.eval.bootstrap_samples,
            seed=config.seed,
        )
    return report, predicted_rows(split, labels, predictions_N, probs_NK, answers)


def predicted_rows(
    split: Split,
    labels: Sequence[str],
    predictions_N: np.ndarray,
    probs_NK: np.ndarray | None,
    answers: Sequence[str] | None = None,
) -> list[PredictedRow]:
    """Returns the predictions of a split's rows, from label ids (-1 for no label), and probabilities or answers."""
    return [
        PredictedRow(
            row=example.row,
            text=example.text,
            label=labels[int(split.labels[i])],
            predicted=labels[predicted] if predicted >= 0 else None,
            probs=None if probs_NK is None else dict(zip(labels, map(float, probs_NK[i]), strict=True)),
            answer=None if answers is None else answers[i],
        )
        for i, (example, predicted) in enumerate(zip(split.examples, predictions_N.tolist(), strict=True))
    ]
