"""A run that stays loaded, `loraft.load`: for programs that ask again and again, threads and scikit-learn."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from loraft.config.schema import Config
from loraft.data.columns import given_sentence
from loraft.data.records import BadRow, Example
from loraft.engine import scorer
from loraft.engine.layout import common_prefix
from loraft.engine.row_batches import KeptPrefix
from loraft.errors import DataError
from loraft.evaluation.predict import Loaded, Prediction, opened, predictions
from loraft.models.prompts import warn_of_cuts

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
        lock: held while the model computes; classifiers that share a model share it.

    Example:
        >>> import loraft
        >>> classifier = loraft.load(run)
        >>> labels = [found.label for found in classifier.predict(["cô nhiệt tình", "phòng học nóng"])]
        >>> classifier.as_sklearn().classes_.tolist()
        ['negative', 'neutral', 'positive']
    """

    def __init__(self, loaded: Loaded, lock: "threading.Lock | None" = None) -> None:
        self.loaded = loaded
        self.labels: tuple[str, ...] = loaded.encoder.task.labels
        self.lock = lock or threading.Lock()
        prompts = [prompt.ids for prompt in loaded.encoder.encode(PROBES)]
        self._kept = KeptPrefix(list(prompts[0][: common_prefix(prompts)]))

    def predict(self, texts: str | Iterable[str]) -> list[Prediction]:
        """Returns a prediction for each text, in order; `row` counts from 1.

        Args:
            texts: one text or N.

        Raises:
            DataError: an item is no text, or is empty.
        """
        rows = _rows(texts)
        return list(predictions(rows, self._scores(rows), self.loaded))

    def probabilities(self, texts: str | Iterable[str]) -> np.ndarray:
        """Returns the probability of each label, in [0, 1]: (N, K) float64, the columns as in `labels`.

        They are calibrated, unless the config's `eval.calibrate` is false. With `prompt.kind=multilabel` each is a
        probability by itself, else rows sum to 1. Arguments and errors as in `predict`.
        """
        return self.loaded.probabilities(self.log_probs(texts))

    def log_probs(self, texts: str | Iterable[str]) -> np.ndarray:
        """Returns the labels' scores before calibration, as `engine.scorer.score` does, in nats: (N, K)."""
        return self._scores(_rows(texts))

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

    def _scores(self, rows: list[Example]) -> np.ndarray:
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
        warn_of_cuts(prompts, "of these")
        return found


def load(run: str | Path, *, config: Config | None = None) -> Classifier:
    """Returns a finished run, loaded; also of a bundle: an adapter with its `loraft.json`, or merged weights.

    Args:
        run: its directory.
        config: the run's own by default; `model.dtype`, `model.device` and `eval` may differ.

    Raises:
        RunError: the run is not finished, or was trained with another backbone, prompt or labels than `config` has.
        BackboneError: the backbone or the adapter cannot be loaded.

    Example:
        >>> import loraft
        >>> classifier = loraft.load(run)
        >>> classifier.predict("thầy giảng bài rất dễ hiểu")[0].label
        'positive'
        >>> classifier.probabilities(["cô nhiệt tình", "phòng học nóng"]).shape, classifier.labels
        ((2, 3), ('negative', 'neutral', 'positive'))
    """
    return Classifier(opened(run, None, config))


def _rows(texts: str | Iterable[str]) -> list[Example]:
    # A table's items would be the names of its columns.
    if not isinstance(texts, Iterable) or isinstance(texts, Mapping) or getattr(texts, "ndim", 1) != 1:
        raise DataError(
            f"texts: one text or a list of texts (got {type(texts).__name__}); give the column of the texts"
        )
    given = [texts] if isinstance(texts, str | bytes) else texts
    rows = []
    for number, text in enumerate(given, start=1):
        row = given_sentence(text, number)
        if isinstance(row, BadRow):
            raise DataError(f"text {row.row}: {row.reason}")
        rows.append(row)
    return rows
