"""A run that stays loaded, `loraft.load`: for programs that ask again and again, threads and scikit-learn."""

import shlex
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from transformers import PreTrainedModel

from loraft.config.schema import Config
from loraft.data.columns import given_sentence
from loraft.data.labels import asked_label
from loraft.data.records import BadRow, Example
from loraft.distributed import is_main_process, is_sharded
from loraft.engine import scorer
from loraft.engine.layout import common_prefix
from loraft.engine.row_batches import KeptPrefix
from loraft.errors import DataError, spared
from loraft.evaluation import explanation
from loraft.evaluation.explanation import Explanation, ExplanationList, Explanations
from loraft.evaluation.predict import Loaded, Prediction, opened, predictions
from loraft.evaluation.prediction_table import Predictions
from loraft.models.calibration import Calibration
from loraft.models.encoder import Encoder
from loraft.models.prompts import warn_of_cuts
from loraft.progress import each
from loraft.runs.predictions import MISTAKES, PredictedRow, mistakes
from loraft.runs.records import write_record
from loraft.runs.run import Run

if TYPE_CHECKING:
    from loraft.evaluation.sklearn_classifier import SklearnClassifier

PROBES = ("một", "Xin", "2", "?")  # sentences with different first tokens: what their prompts share is the same for all


class Classifier:
    """A loaded run: labels and probabilities of texts, without loading anything again.

    Threads may share one: calls wait for each other, since the layers are switched while one computes. The prompt's
    keys and values are computed once. A text's probabilities depend on the texts of the same call by rounding errors
    only, and on earlier calls not at all.

    Attributes:
        labels: names of the K labels, in id order, which is the order of columns.
        calibration: of its probabilities; by biases it can change labels.
        lock: held while the model computes; classifiers that share a model share it.

    Examples:
        >>> import loraft
        >>> classifier = loraft.load(run)
        >>> labels = [found.label for found in classifier.predict(["cô nhiệt tình", "phòng học nóng"])]
        >>> classifier.as_sklearn().classes_.tolist()
        ['negative', 'neutral', 'positive']
    """

    def __init__(self, loaded: Loaded, lock: "threading.Lock | None" = None) -> None:
        self.loaded = loaded
        self.labels: tuple[str, ...] = loaded.encoder.task.labels
        self.calibration: Calibration = loaded.calibration
        self.lock = lock or threading.Lock()
        prompts = [prompt.ids for prompt in loaded.encoder.encode(PROBES)]
        self._kept = KeptPrefix(list(prompts[0][: common_prefix(prompts)]))

    def __repr__(self) -> str:
        section = self.loaded.config.model
        return f"{type(self).__name__}: {self.loaded.folder} over {section.label}; labels {', '.join(self.labels)}"

    def predict(self, texts: str | Iterable[str]) -> Predictions[Prediction]:
        """Returns a list with a prediction for each text, in order; `row` counts from 1.

        Args:
            texts: one text or N.

        Raises:
            DataError: an item is no text, or is empty.
        """
        rows = _rows(texts)
        return Predictions(predictions(rows, self._scores(rows), self.loaded))

    def probabilities(self, texts: str | Iterable[str]) -> np.ndarray:
        """Returns the probability of each label, in [0, 1]: (N, K) float64, the columns as in `labels`.

        They are calibrated, unless the config's `eval.calibrate` is false. With `prompt.kind=multilabel` each is a
        probability by itself, else rows sum to 1. Arguments and errors as in `predict`.
        """
        return self.loaded.probabilities(self.log_probs(texts))

    def log_probs(self, texts: str | Iterable[str]) -> np.ndarray:
        """Returns the labels' scores before calibration, as `engine.scorer.score` does, in nats: (N, K)."""
        return self._scores(_rows(texts))

    def explain(self, texts: str | Example | Iterable[str | Example], label: str | None = None) -> ExplanationList:
        """Returns for each text what leaving out each of its words does to the log-odds of a label.

        A text and all its variants are scored in one batch. See `evaluation.explanation`.

        Args:
            texts: one text or N.
            label: to explain; by default the predicted one. With `prompt.kind=multilabel` each predicted one has an
                explanation of its own; where none is predicted, the one with the highest probability.

        Raises:
            ConfigError: `label` is none of the run's.
            DataError: an item is no text, is empty, or is too long.
        """
        label = None if label is None else asked_label(label, self.labels, "label")
        return ExplanationList(found for row in _rows(texts) for found in self._explained(row, label))

    def _explained(self, row: Example, label: str | None, told: int = 1) -> list[Explanation]:
        log_probs_NK = self._scores(explanation.variants(row), told)
        (found,) = predictions([row], log_probs_NK[:1], self.loaded)
        predicted = found.label if isinstance(found.label, tuple) else (str(found.label),)
        chosen = predicted if label is None else (label,)
        several, adjusted_NK = self.loaded.several, self.loaded.calibration.adjusted(log_probs_NK)
        return [
            explanation.explanation(
                row,
                one,
                found.probs[one],
                explanation.log_odds(adjusted_NK, self.labels.index(one), several=several),
                predicted,
            )
            for one in chosen or (max(found.probs, key=lambda one: found.probs[one]),)
        ]

    def prompt_tokens(self, texts: Sequence[str]) -> list[int]:
        """Returns the number of tokens of each text's prompt."""
        with self.lock:
            return [len(prompt.ids) for prompt in self.loaded.encoder.encode(texts)]

    def as_sklearn(self) -> "SklearnClassifier":
        """Returns this as a fitted classifier of scikit-learn, for its metrics and calibration.

        Raises:
            ConfigError: a row may have several labels.
        """
        from loraft.evaluation.sklearn_classifier import SklearnClassifier

        return SklearnClassifier(self)

    def _scores(self, rows: list[Example], told: int | None = None) -> np.ndarray:
        """The scores of the rows; a warning says how many of the first `told`, by default all, were shortened."""
        encoder = self.loaded.encoder
        with self.lock:
            prompts = encoder.encode([row.text for row in rows])
            kept = KeptPrefix(self._kept.ids, self._kept.cache)
            found = scorer.start(
                self.loaded.model,
                [prompt.ids for prompt in prompts],
                encoder.completions_K,
                unscored=encoder.unscored,
                batch_tokens=self.loaded.config.eval.batch_tokens,
                kept=kept,
            )()
            if kept.ids is self._kept.ids:  # else the rows began otherwise
                self._kept.cache = kept.cache
        warn_of_cuts(prompts[:told], "of these")
        return found


def load(run: str | Path, *, config: Config | None = None) -> Classifier:
    """Returns a finished run, loaded; also of a bundle: an adapter with its `loraft.json`, or merged weights.

    Args:
        run: its directory.
        config: the run's own by default; `model.dtype`, `model.device` and `eval` may differ.

    Raises:
        RunError: the run is not finished, or was trained with another backbone, prompt or labels than `config` has.
        BackboneError: the backbone or the adapter cannot be loaded.

    Examples:
        >>> import loraft
        >>> classifier = loraft.load(run)
        >>> classifier.predict("thầy giảng bài rất dễ hiểu")[0].label
        'positive'
        >>> classifier.probabilities(["cô nhiệt tình", "phòng học nóng"]).shape, classifier.labels
        ((2, 3), ('negative', 'neutral', 'positive'))
    """
    return Classifier(opened(run, None, config))


def explain_mistakes(
    run: Run,
    config: Config,
    encoder: Encoder,
    model: PreTrainedModel,
    thresholds: Sequence[float],
    calibration: Calibration,
    rows: Sequence[PredictedRow],
) -> None:
    """Keeps explanations of the mistakes that a run's report lists; an error is a warning.

    There are none where no sentence may be written, nor where answers were generated: these did not come from the
    labels' scores. Of several processes the main one works, and with FSDP all of them.

    Args:
        run: whose directory gets the file.
        config: of the run.
        encoder: of its task.
        model: with its adapter, in evaluation mode.
        thresholds: of each label, where a row has any number of labels.
        calibration: of the probabilities.
        rows: its predictions on the test split.
    """
    if not is_main_process() and not is_sharded():
        return
    with spared("the words behind its mistakes", f"loraft explain --run {shlex.quote(str(run.path))} SENTENCE"):
        run.explanations_path.unlink(missing_ok=True)  # of a process that was killed before it wrote the results
        if config.output.texts and config.eval.decode == "score":
            classifier = Classifier(Loaded(encoder, model, run.adapter, config, tuple(thresholds), calibration))
            shown = [Example(row.text, row=row.row) for row in mistakes(rows)[:MISTAKES]]
            rows_shown = each(shown, "explaining mistakes", "sentences")
            found = (one for row in rows_shown for one in classifier._explained(row, None, told=0))  # scoring told it
            write_record(run.explanations_path, Explanations(tuple(found)))


def _rows(texts: str | Example | Iterable[str | Example]) -> list[Example]:
    if isinstance(texts, Example):
        return [texts]
    # A table's items would be the names of its columns.
    if not isinstance(texts, Iterable) or isinstance(texts, Mapping) or getattr(texts, "ndim", 1) != 1:
        raise DataError(
            f"texts: one text or a list of texts (got {type(texts).__name__}); give the column of the texts"
        )
    given = [texts] if isinstance(texts, str | bytes) else texts
    rows = []
    for number, text in enumerate(given, start=1):
        row = text if isinstance(text, Example) else given_sentence(text, number)
        if isinstance(row, BadRow):
            raise DataError(f"text {row.row}: {row.reason}")
        rows.append(row)
    return rows
