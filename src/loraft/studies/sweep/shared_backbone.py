"""Loads the data and the backbone once for all trials of a sweep, and checks that no trial changes the backbone."""

import gc
import json
from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from loraft.config.schema import Config
from loraft.data.dataset import Split, training_splits
from loraft.errors import BackboneError
from loraft.evaluation.classification_report import EvaluationReport
from loraft.evaluation.enough_rows import refuse_unmeasured
from loraft.models.backbone import load_backbone, weights_hash
from loraft.models.encoder import Encoder
from loraft.models.load import build_encoder
from loraft.training.pipeline import TrainingInputs

Tell = Callable[[str], None]  # called with each line for the user


class SharedBackbone:
    """The splits and encoders, and one loaded backbone, which is loaded again unless a trial left it bit-identical.

    Args:
        tell: called with each line for the user.
    """

    def __init__(self, tell: Tell) -> None:
        self.tell = tell
        self._key: str | None = None
        self._base: PreTrainedModel | None = None
        self._error: BackboneError | None = None
        self._hash = ""
        self._scores: dict[str, EvaluationReport] = {}
        self._splits: dict[str, dict[str, Split]] = {}
        self._encoders: dict[str, Encoder] = {}

    def splits(self, config: Config) -> dict[str, Split]:
        """What `data.training_splits` returns for this config.

        Raises:
            ConfigError: the validation split has no row of the label that `train.metric` names.
        """
        key = key_of(config, "data", "prompt")
        if key not in self._splits:
            self._splits[key] = training_splits(config)
        refuse_unmeasured(config, self._splits[key]["validation"])
        return self._splits[key]

    def fingerprints(self, config: Config) -> dict[str, str]:
        """The fingerprint of each split of this config, as this process reads it."""
        return {name: split.fingerprint for name, split in self.splits(config).items()}

    def inputs(self, config: Config) -> TrainingInputs:
        """What a training with this config works on.

        Raises:
            BackboneError: the backbone cannot be loaded; this is tried once, not for every trial.
        """
        base = self.backbone(config)  # first: if this fails, no tokenizer is looked for again at every trial
        key = key_of(config, "model", "prompt")
        if key not in self._encoders:  # seconds for a tokenizer of 128,000 words
            self._encoders[key] = build_encoder(config)
        return TrainingInputs(
            config, self.splits(config), self._encoders[key], base, self._scores.get(_scores_key(config))
        )

    def backbone(self, config: Config) -> PreTrainedModel:
        """The bare backbone of this config.

        Raises:
            BackboneError: it cannot be loaded; this is tried once, not for every trial.
        """
        key = key_of(config, "model", "quant")
        if key != self._key:
            self._base, self._error, self._key = None, None, key
            _free()
        if self._error is not None:
            raise self._error
        if self._base is None:
            try:
                self._base = load_backbone(config.model, config.quant)
            except BackboneError as error:
                self._error = error
                raise
            gc.collect()
            gc.freeze()  # later collections skip the many objects of the libraries
            self._hash = weights_hash(self._base)
        return self._base

    def check(self) -> bool:
        """Whether the backbone is bit-identical to the one that was loaded; if it is not, the next trial reloads it.

        A backbone that still has an adapter counts as changed.
        """
        try:
            _free()
            if self._base is None or weights_hash(self._base) == self._hash:
                return True
        except Exception as error:  # for example a CUDA error: weights that cannot be read may have changed
            self.tell(f"the backbone cannot be checked ({type(error).__name__}: {error})")
        self._base = None
        self.tell("the trial changed the backbone; it is loaded again")
        return False

    def keep_scores(self, config: Config, scores: EvaluationReport | None) -> None:
        """Keeps the bare backbone's scores for later trials that would evaluate it in the same way."""
        if scores is not None:
            self._scores[_scores_key(config)] = scores


def key_of(config: Config, *sections: str) -> str:
    """The content of these sections of a config as JSON, as a key of a dictionary."""
    return json.dumps([getattr(config, section).model_dump() for section in sections])


def _scores_key(config: Config) -> str:
    return key_of(config, "model", "quant", "data", "prompt", "eval") + str(config.seed)


def _free() -> None:
    """Frees what the last trial's trainer held, so that it does not count in the next trial's peak memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
