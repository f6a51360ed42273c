"""Predict labels with a finished run or another adapter: `loraft.predict` takes sentences, yields labels in order."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from transformers import PreTrainedModel

from loraft.config.schema import Config
from loraft.data.columns import given_sentence
from loraft.data.records import BadRow, Example
from loraft.data.stream import FIRST, groups
from loraft.engine import scorer
from loraft.engine.probabilities import to_probs
from loraft.engine.row_batches import KeptPrefix
from loraft.errors import ConfigError, Note, RunError
from loraft.evaluation import advice, multilabel
from loraft.models import manifest
from loraft.models.calibration import NONE, Calibration
from loraft.models.encoder import Encoder
from loraft.models.load import load_peft, load_run
from loraft.models.prompts import warn_of_cuts
from loraft.runs.bundle import config_of
from loraft.runs.run import MANIFEST_FILE, Run

PREDICT_ROWS, GPU_PREDICT_ROWS = 512, 2048  # rows scored together: bounds memory, does not change results
Group = TypeVar("Group", bound=Sequence[Any])
Started = TypeVar("Started")
# A group, what waits for its scores, and the token ids of the cached prefix.
_Started = tuple[Sequence[Example | BadRow], Callable[[], np.ndarray], list[int]]


@dataclass
class Progress:
    """How far a prediction is at the end of a group, and what the rows after it depend on.

    Attributes:
        rows: rows up to the end of the group that is being yielded.
        prefix: token ids of the cached prefix.
        predicted: rows of each predicted label so far.
    """

    rows: int = 0
    prefix: list[int] = field(default_factory=list)
    predicted: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """The prediction for one row.

    Attributes:
        row: number of the row in its input, from 1.
        text: the sentence; empty where the row could not be read.
        label: None where the row could not be read, or where the model is less sure than `min_confidence`. With
            `prompt.kind=multilabel` a tuple of labels, which may be empty.
        probs: probability of each label, in [0, 1].
        extra: the row's other columns.
        error: why the row could not be read; None for a good row.

    Example:
        >>> import loraft
        >>> loraft.Prediction(row=1, text="thầy dạy hay", label="positive", probs={"positive": 0.9, "negative": 0.1})
        Prediction(row=1, text='thầy dạy hay', label='positive', probs={'positive': 0.9, 'negative': 0.1}, extra={},
        error=None)
    """

    row: int
    text: str
    label: str | tuple[str, ...] | None
    probs: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Loaded:
    """An adapter over its backbone, ready to score.

    Attributes:
        encoder: of its task.
        model: in evaluation mode.
        folder: of the adapter, or of merged weights.
        config: of its training, or what was asked for.
        thresholds: of each label with `prompt.kind=multilabel`, else none.
        calibration: of its probabilities.
    """

    encoder: Encoder
    model: PreTrainedModel
    folder: Path
    config: Config
    thresholds: tuple[float, ...]
    calibration: Calibration = NONE

    @property
    def several(self) -> bool:
        """Whether a row has any number of labels."""
        return self.encoder.task.kind == "multilabel"

    def probabilities(self, log_probs_NK: np.ndarray) -> np.ndarray:
        """The calibrated probabilities, (N, K), of the labels' scores; of several labels each by itself."""
        adjusted_NK = self.calibration.adjusted(log_probs_NK)
        return (multilabel.probabilities if self.several else to_probs)(adjusted_NK)


def opened(
    run: str | Path | None,
    adapter: str | Path | None,
    config: Config | None,
    bases: dict[Any, PreTrainedModel] | None = None,
) -> Loaded:
    """Returns what `predict` works with; arguments and errors as there, and `bases` as in `load_run`."""
    found = None if run is None else Run.open(Path(run))
    if found is not None and config is None:
        config = config_of(found)
    if config is None or (found is None) == (adapter is None):
        got = "both" if run is not None and adapter is not None else "neither"
        raise RunError(f"predict: needs a run, or an adapter with a config (got {got} of them); give one of the two")
    if found is not None:
        encoder, model = load_run(found, config, switchable=False, bases=bases)
        folder = found.adapter
    else:
        assert adapter is not None
        folder = Path(adapter)
        encoder, model = load_peft(folder, config)
    calibration = manifest.calibration(folder, config)
    several = encoder.task.kind == "multilabel"
    thresholds = manifest.thresholds(folder, len(encoder.task.labels), calibration) if several else ()
    return Loaded(encoder, model, folder, config, thresholds, calibration)


def predictions(
    rows: Sequence[Example | BadRow], log_probs_NK: np.ndarray, loaded: Loaded, min_confidence: float | None = None
) -> Iterator[Prediction]:
    """Yields the prediction for each row.

    Args:
        rows: of which N are examples.
        log_probs_NK: the labels' scores of these N.
        loaded: that computed them.
        min_confidence: as in `predict`.
    """
    labels, several = loaded.encoder.task.labels, loaded.several
    if not several:
        warn_of_ties(loaded.calibration.adjusted(log_probs_NK))
    probs = iter(loaded.probabilities(log_probs_NK))
    for item in rows:
        if isinstance(item, BadRow):
            yield Prediction(item.row, "", None, error=item.reason)
            continue
        probs_K = next(probs)
        best = int(probs_K.argmax())
        sure = min_confidence is None or probs_K[best] >= min_confidence
        named = {label: float(p) for label, p in zip(labels, probs_K, strict=True)}
        found: str | tuple[str, ...] | None = labels[best] if sure else None
        if several:
            found = tuple(
                label for label, least in zip(labels, loaded.thresholds, strict=True) if named[label] >= least
            )
        yield Prediction(item.row, item.text, found, named, item.extra)


def predict(
    inputs: str | Example | Iterable[str | Example | BadRow],
    *,
    run: str | Path | None = None,
    adapter: str | Path | None = None,
    min_confidence: float | None = None,
    config: Config | None = None,
    wait: float | None = None,
    progress: Progress | None = None,
) -> Iterator[Prediction]:
    """Yields one prediction for each input, in order.

    Rows are scored in groups, small ones first, so that the first predictions come soon. While a GPU scores a group,
    the next one is read and encoded. At the end a warning says where the shares of the predicted labels differ from
    those of the training rows.

    Args:
        inputs: one sentence or row, or many; for a BadRow the prediction holds its reason as `error`.
        run: directory of a finished run.
        adapter: instead of a run, the folder of a LoRA adapter in peft's format that was made elsewhere.
        min_confidence: in [0, 1]; a row whose best label has a lower probability gets the label None.
        config: the run's own by default; with `adapter` it names the backbone and the task.
        wait: for inputs that arrive slowly: seconds to wait for further rows before a group is scored; the inputs are
            then read in a thread of their own. None waits until a group is full.
        progress: where an earlier call stopped, `inputs` being the rows after it; brought up to date with each group,
            so that with the row of its number another call can go on from there. Without `wait` both calls together
            yield bit for bit what one would.

    Yields:
        The label, and the probability of each label in [0, 1].

    Raises:
        ConfigError: `min_confidence` is no probability, or is given where each label has a threshold of its own.
        RunError: the run is not finished, or was trained with another backbone, prompt or labels than `config` has; or
            not exactly one of a run, and an adapter with a config, is given.
        BackboneError: the adapter cannot be loaded, or does not fit the backbone.

    Example:
        >>> import loraft
        >>> for found in loraft.predict("thầy giảng bài rất dễ hiểu", run=run):
        ...     print(found.label, round(sum(found.probs.values()), 6))
        positive 1.0
    """
    if min_confidence is not None and not 0 <= min_confidence <= 1:  # NaN, too
        raise ConfigError(f"min_confidence: not from 0 to 1 (got {min_confidence}); give a probability")
    loaded = opened(run, adapter, config)
    encoder, model, folder, several = loaded.encoder, loaded.model, loaded.folder, loaded.several
    if several and min_confidence is not None:
        raise ConfigError(
            f"min_confidence: with prompt.kind=multilabel each label has its own threshold (got {min_confidence});"
            " leave it out, and read the probabilities"
        )
    progress = Progress() if progress is None else progress
    given = [inputs] if isinstance(inputs, str | bytes | Example | BadRow) else inputs
    rows = (
        item if isinstance(item, Example | BadRow) else given_sentence(item, row)
        for row, item in enumerate(given, start=progress.rows + 1)
    )
    kept = KeptPrefix(progress.prefix)
    predicted = progress.predicted = Counter(progress.predicted)
    batch_tokens = loaded.config.eval.batch_tokens

    def start(group: Sequence[Example | BadRow]) -> _Started:
        prompts = encoder.encode([item.text for item in group if isinstance(item, Example)])
        warn_of_cuts(prompts, "of these")
        ids, answers, unscored = [prompt.ids for prompt in prompts], encoder.completions_K, encoder.unscored
        fetch = scorer.start(model, ids, answers, unscored=unscored, batch_tokens=batch_tokens, kept=kept)
        return group, fetch, kept.ids

    def finished(started: _Started) -> Iterator[Prediction]:
        group, fetch, progress.prefix = started
        progress.rows += len(group)
        for found in predictions(group, fetch(), loaded, min_confidence):
            if found.error is None and not several:  # the shares of label sets are not kept with the adapter
                predicted[max(found.probs, key=lambda label: found.probs[label])] += 1
            yield found

    overlap = computes_meanwhile(model)
    most = GPU_PREDICT_ROWS if overlap else PREDICT_ROWS
    first = most if progress.rows else FIRST
    grouped = groups(rows, most=most, first=first, wait=wait, size=characters)
    for started in one_behind(grouped, start, overlap=overlap):
        yield from finished(started)
    if (folder / MANIFEST_FILE).exists():  # not in an adapter that was made elsewhere
        for sentence in advice.of_predictions(manifest.read(folder).data.train_labels, predicted):
            warnings.warn(sentence, stacklevel=2)


def characters(item: Example | BadRow) -> int:
    """Characters of a row's text and of its other columns."""
    if isinstance(item, BadRow):
        return 0
    return len(item.text) + sum(len(cell) for cell in item.extra.values() if isinstance(cell, str | bytes))


def computes_meanwhile(model: PreTrainedModel) -> bool:
    """Says whether a model's device computes while Python goes on."""
    return str(model.device.type) != "cpu"


def one_behind(groups: Iterable[Group], start: Callable[[Group], Started], *, overlap: bool) -> Iterator[Started]:
    """Starts groups and yields what that returned; with `overlap` only after the next one has been started.

    An empty group hands out the one before it, as does the end or an error of the source.
    """
    waiting: list[Started] = []
    try:
        for group in groups:
            started = [start(group)] if group else []
            yield from waiting if overlap else started
            waiting = started if overlap else []
    except Exception:
        yield from waiting
        raise
    yield from waiting


def warn_of_ties(scores_NK: np.ndarray) -> int:
    """Tells how many rows have several labels of the best score, and returns their number; the first one is taken."""
    ties = int(((scores_NK == scores_NK.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum()) if len(scores_NK) else 0
    if ties:
        warnings.warn(
            f"{ties} of {len(scores_NK)} rows: the best labels tie; the first one is taken", Note, stacklevel=2
        )
    return ties
