"""A loaded run as scikit-learn sees classifiers, for its metrics, calibration and plots."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from loraft.errors import ConfigError

if TYPE_CHECKING:
    from loraft.evaluation.classifier import Classifier


class SklearnClassifier(ClassifierMixin, BaseEstimator):
    """A fitted classifier: X are N texts, y label names.

    Calibrate it as it is, without a second training: `CalibratedClassifierCV(FrozenEstimator(clf.as_sklearn()))`.

    Attributes:
        classes_: names of the labels in alphabetical order, as scikit-learn expects; columns are in this order.

    Source: https://scikit-learn.org/stable/developers/develop.html
    """

    def __init__(self, classifier: "Classifier") -> None:
        self.classifier = classifier
        if classifier.loaded.encoder.task.kind == "multilabel":
            raise ConfigError(
                "as_sklearn: a row has one label there (got prompt.kind=multilabel); use Classifier.probabilities"
            )
        self._order_K = np.argsort(np.array(classifier.labels))
        self.classes_ = np.array(classifier.labels)[self._order_K]

    def fit(self, X: Any, y: Any) -> "SklearnClassifier":
        """Returns itself: the run is trained already."""
        return self

    def predict(self, X: Iterable[str]) -> np.ndarray:
        """Returns the label of each text, as `Classifier.predict` has it: (N,)."""
        return np.array([found.label for found in self.classifier.predict(X)], dtype=self.classes_.dtype)

    def predict_proba(self, X: Iterable[str]) -> np.ndarray:
        """Returns the probabilities of each text, (N, K), the columns as in `classes_`."""
        return np.asarray(self.classifier.probabilities(X)[:, self._order_K])

    def __sklearn_clone__(self) -> "SklearnClassifier":
        return self  # trained already, and one model in memory

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        return tags
