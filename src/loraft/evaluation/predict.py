"""Predict labels with a finished run or another adapter: `loraft.predict` takes sentences, yields labels in order."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from loraft.config.schema import Config
from loraft.data.columns import given_sentence
from loraft.data.records import BadRow, Example
from loraft.data.stream import sample
from loraft.engine.probabilities import to_probs
from loraft.engine.row_batches import KeptPrefix
from loraft.errors import ConfigError, Note, RunError
from loraft.evaluation import multilabel
from loraft.evaluation.conformal import LabelSets
from loraft.evaluation.guarantee import least_confidence
from loraft.evaluation.priors import Priors, refuse_void
from loraft.evaluation.scored_rows import characters, scored
from loraft.evaluation.shares import given
from loraft.evaluation.shift import Progress, Validation, warn_if_unlike
from loraft.evaluation.validated import SAMPLE, validated
from loraft.models import manifest
from loraft.models.calibration import NONE, Calibration
from loraft.models.encoder import Encoder
from loraft.models.load import load_peft, load_run
from loraft.progress import ROWS, Stage
from loraft.runs.bundle import config_of
from loraft.runs.run import Run


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
        set: with `sets` the labels of which one is right with that probability; else None.

    Examples:
        >>> import loraft
        >>> loraft.Prediction(row=1, text="thầy dạy hay", label="positive", probs={"positive": 0.9, "negative": 0.1})
        Prediction(row=1, text='thầy dạy hay', label='positive', probs={'positive': 0.9, 'negative': 0.1}, extra={},
        error=None, set=None)
    """

    row: int
    text: str
    label: str | tuple[str, ...] | None
    probs: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    set: tuple[str, ...] | None = None


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
        priors: changed label shares, if any.
        sets: what decides which labels are in a row's set, if sets are wanted.
    """

    encoder: Encoder
    model: PreTrainedModel
    folder: Path
    config: Config
    thresholds: tuple[float, ...]
    calibration: Calibration = NONE
    priors: Priors | None = None
    sets: LabelSets | None = None

    @property
    def several(self) -> bool:
        """Whether a row has any number of labels."""
        return self.encoder.task.kind == "multilabel"

    def probabilities(self, log_probs_NK: np.ndarray) -> np.ndarray:
        """The calibrated probabilities, (N, K), of the labels' scores, under the label shares of the validation rows.

        With several labels a row each is a probability by itself.
        """
        adjusted_NK = self.calibration.adjusted(log_probs_NK)
        return (multilabel.probabilities if self.several else to_probs)(adjusted_NK)


def located(run: str | Path | None, adapter: str | Path | None, config: Config | None) -> tuple[Path, Config]:
    """Returns the adapter's folder, and the config; arguments and errors as in `predict`."""
    found = None if run is None else Run.open(Path(run))
    if found is not None and config is None:
        config = config_of(found)
    if config is None or (found is None) == (adapter is None):
        got = "both" if run is not None and adapter is not None else "neither"
        raise RunError(f"predict: needs a run, or an adapter with a config (got {got} of them); give one of the two")
    return Path(str(adapter)) if found is None else found.adapter, config


def opened(
    run: str | Path | None,
    adapter: str | Path | None,
    config: Config | None,
    bases: dict[Any, PreTrainedModel] | None = None,
) -> Loaded:
    """Returns what `predict` works with; arguments and errors as there, and `bases` as in `load_run`."""
    folder, config = located(run, adapter, config)
    if run is not None:
        encoder, model = load_run(Run.open(Path(run)), config, switchable=False, bases=bases)
    else:
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
    plain_NK = loaded.probabilities(log_probs_NK)
    probs_NK = plain_NK if loaded.priors is None else loaded.priors.applied(plain_NK)
    best_N = probs_NK.argmax(axis=1)
    sets_NK = None if loaded.sets is None else loaded.sets.of(plain_NK, best_N)
    numbers = iter(range(len(probs_NK)))
    for item in rows:
        if isinstance(item, BadRow):
            yield Prediction(item.row, "", None, error=item.reason)
            continue
        n = next(numbers)
        probs_K, best = probs_NK[n], int(best_N[n])
        sure = min_confidence is None or probs_K[best] >= min_confidence
        named = {label: float(p) for label, p in zip(labels, probs_K, strict=True)}
        found: str | tuple[str, ...] | None = labels[best] if sure else None
        if several:
            found = tuple(
                label for label, least in zip(labels, loaded.thresholds, strict=True) if named[label] >= least
            )
        inside = None if sets_NK is None else tuple(labels[k] for k in np.flatnonzero(sets_NK[n]))
        yield Prediction(item.row, item.text, found, named, item.extra, set=inside)


def predict(  # noqa: PLR0913 - the options of a command, all but the first by name
    inputs: str | Example | Iterable[str | Example | BadRow],
    *,
    run: str | Path | None = None,
    adapter: str | Path | None = None,
    min_confidence: float | None = None,
    max_error: float | None = None,
    sets: float | None = None,
    sets_by_label: bool = False,
    prior: Mapping[str, float] | Iterable[str | Example | BadRow] | None = None,
    config: Config | None = None,
    wait: float | None = None,
    progress: Progress | None = None,
) -> Iterator[Prediction]:
    """Yields one prediction for each input, in order.

    Rows are scored in groups, small ones first, so that the first predictions come soon. While a GPU scores a group,
    the next one is read and encoded. At the end it is told where the rows are unlike the validation rows: in a
    warning where a promise or a threshold relies on these, else in a note.

    Args:
        inputs: one sentence or row, or many; for a BadRow the prediction holds its reason as `error`.
        run: directory of a finished run.
        adapter: instead of a run, the folder of a LoRA adapter in peft's format that was made elsewhere.
        min_confidence: in [0, 1]; a row whose best label has a lower probability gets the label None.
        max_error: instead of it, in (0, 1): the lowest probability is chosen so that at most this share of the labels
            is wrong, with confidence `eval.confidence`, for rows like the validation rows. A note says how many rows
            will get a label.
        sets: in (0, 1); each prediction gets a set of labels that holds the right one with this probability.
        sets_by_label: that probability holds for the rows of each label, not only for all rows together.
        prior: shares of the labels among the inputs, where they differ from the training's; or unlabelled rows to
            estimate them from, such as the inputs once more.
        config: the run's own by default; with `adapter` it names the backbone and the task.
        wait: for inputs that arrive slowly: seconds to wait for further rows before a group is scored; the inputs are
            then read in a thread of their own. None waits until a group is full.
        progress: where an earlier call stopped, `inputs` being the rows after it; brought up to date with each group,
            so that with the row of its number another call can go on from there. Without `wait` both calls together
            yield bit for bit what one would.

    Yields:
        The label, and the probability of each label in [0, 1].

    Raises:
        ConfigError: `min_confidence` is no probability, or is given where each label has a threshold of its own; so
            with `max_error`, or it cannot be promised; or both are given. `sets` or `prior` is wrong, needs validation
            rows that the run lacks, or voids what else is asked for.
        RunError: the run is not finished, or was trained with another backbone, prompt or labels than `config` has; or
            not exactly one of a run, and an adapter with a config, is given; or `max_error` is given and no validation
            rows were set aside.
        BackboneError: the adapter cannot be loaded, or does not fit the backbone.

    Examples:
        >>> import loraft
        >>> for found in loraft.predict("thầy giảng bài rất dễ hiểu", run=run):
        ...     print(found.label, round(sum(found.probs.values()), 6))
        positive 1.0
    """
    min_confidence = None if min_confidence is None else given("min_confidence", min_confidence, 0)
    refuse_void(prior is not None, sets, sets_by_label, max_error)
    folder, config = located(run, adapter, config)
    least = least_confidence(folder, config, min_confidence, max_error)
    loaded, validation = ready(run, adapter, config, sets=sets, sets_by_label=sets_by_label, prior=prior)
    progress = Progress() if progress is None else progress
    rows = _rows(inputs, progress.rows + 1)
    yield from continued(rows, loaded, validation, progress, KeptPrefix(progress.prefix), least, wait=wait)
    if prior is None or sets is not None:
        warn_if_unlike(validation, progress, promised=sets is not None or least is not None)


def ready(
    run: str | Path | None,
    adapter: str | Path | None,
    config: Config | None,
    *,
    sets: float | None = None,
    sets_by_label: bool = False,
    prior: Mapping[str, float] | Iterable[str | Example | BadRow] | None = None,
) -> tuple[Loaded, Validation | None]:
    """Returns what `predict` works with, and the validation rows that it compares its rows with, if there are any.

    Arguments and errors as in `predict`.
    """
    folder, config = located(run, adapter, config)
    asked = [name for name, value in {"sets": sets, "prior": prior}.items() if value is not None]
    known = validated(folder, config, asked)
    inside = None if known is None or sets is None else known.sets(sets, by_label=sets_by_label)
    changed = None if known is None or not isinstance(prior, Mapping) else known.priors(prior)
    loaded = replace(opened(run, adapter, config), sets=inside, priors=changed)
    if known is not None and prior is not None and changed is None:
        loaded = replace(loaded, priors=known.priors(_sampled(prior, loaded)))
    return loaded, None if known is None else known.shift()


def continued(
    rows: Iterable[Example | BadRow],
    loaded: Loaded,
    validation: Validation | None,
    progress: Progress,
    kept: KeptPrefix,
    least: float | None,
    *,
    wait: float | None = None,
) -> Iterator[Prediction]:
    """Yields the predictions for rows after those of `progress`, which is brought up to date with each group.

    Args:
        rows: in order.
        loaded: computes the scores.
        validation: what the rows' confidences are counted for, if anything.
        progress: where an earlier call stopped.
        kept: the cached prefix; is brought up to date.
        least: a row whose best label has a lower probability gets the label None.
        wait: as in `predict`.
    """
    early = not progress.rows
    for group, log_probs_NK, prefix in scored(rows, loaded, kept, early=early, wait=wait):
        progress.rows, progress.prefix = progress.rows + len(group), prefix
        if validation is not None and len(log_probs_NK):
            progress.count(loaded.probabilities(log_probs_NK), validation)
        yield from predictions(group, log_probs_NK, loaded, least)


def _rows(inputs: str | Example | Iterable[str | Example | BadRow], first: int = 1) -> Iterator[Example | BadRow]:
    """The inputs as rows, numbered from `first` on."""
    several = [inputs] if isinstance(inputs, str | bytes | Example | BadRow) else inputs
    return (
        item if isinstance(item, Example | BadRow) else given_sentence(item, row)
        for row, item in enumerate(several, start=first)
    )


def _sampled(inputs: Iterable[str | Example | BadRow], loaded: Loaded) -> np.ndarray:
    """The probabilities, (N, K), of a sample of rows that has bounded size."""
    if isinstance(inputs, str):
        raise ConfigError(f"prior: give shares by label, or rows to estimate them from (got {inputs!r})")
    texts = (Example(row.text, None, row.row) for row in _rows(inputs) if isinstance(row, Example))
    groups = scored(sample(texts, SAMPLE, characters), loaded, KeptPrefix([]), early=False)
    none = np.empty((0, len(loaded.encoder.task.labels)))
    with Stage("scoring rows for --prior", None, ROWS):
        return np.concatenate([none, *(loaded.probabilities(log_probs_NK) for _, log_probs_NK, _ in groups)])


def warn_of_ties(scores_NK: np.ndarray) -> int:
    """Tells how many rows have several labels of the best score, and returns their number; the first one is taken."""
    ties = int(((scores_NK == scores_NK.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum()) if len(scores_NK) else 0
    if ties:
        warnings.warn(
            f"{ties} of {len(scores_NK)} rows: the best labels tie; the first one is taken", Note, stacklevel=2
        )
    return ties
