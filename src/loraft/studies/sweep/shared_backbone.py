"""What the trials of a sweep share: their data, read once and kept to its end, and one backbone in memory."""

import gc
import json
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel

from loraft.config.schema import Config
from loraft.data.dataset import Split, training_splits
from loraft.errors import BackboneError
from loraft.models.backbone import load_backbone, weights_hash
from loraft.models.encoder import Encoder
from loraft.models.load import build_encoder

Tell = Callable[[str], None]


class Workbench:
    """What trials share: data, read once, and the backbone, loaded again if a trial did not leave it bit-identical."""

    def __init__(self, tell: Tell) -> None:
        self.tell = tell
        self._key: str | None = None
        self._base: PreTrainedModel | None = None
        self._error: BackboneError | None = None
        self._hash = ""
        self._before: dict[str, dict[str, Any]] = {}
        self._splits: dict[str, dict[str, Split]] = {}

    def splits(self, config: Config) -> dict[str, Split]:
        """What `data.training_splits` returns for this config."""
        key = key_of(config, "data", "prompt")
        if key not in self._splits:
            self._splits[key] = training_splits(config)
        return self._splits[key]

    def built(self, config: Config) -> tuple[Encoder, PreTrainedModel]:
        """What `api.build` returns for this config.

        Raises:
            BackboneError: it cannot be loaded; tried once, not for every trial.
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
            gc.freeze()  # the libraries' own objects are not walked again at every trial
            self._hash = weights_hash(self._base)
        return build_encoder(config), self._base

    def check(self) -> bool:
        """Whether the backbone is as it was loaded, without an adapter; if it is not, the next trial loads it anew."""
        try:
            _free()
            if self._base is None or weights_hash(self._base) == self._hash:
                return True
        except Exception as error:  # an accelerator in trouble; what cannot be read is not known to be the same
            self.tell(f"the backbone cannot be checked ({type(error).__name__}: {error})")
        self._base = None
        self.tell("the trial did not leave the backbone as it was; it is loaded again")
        return False

    def before(self, config: Config) -> dict[str, Any] | None:
        """The backbone's own metrics, where an earlier trial measured the same."""
        return self._before.get(_before_key(config))

    def keep_before(self, config: Config, metrics: dict[str, Any]) -> None:
        """Remembers the backbone's own metrics for the trials that ask the same of it."""
        self._before[_before_key(config)] = metrics


def key_of(config: Config, *sections: str) -> str:
    """What sections of a config hold, as something that can be compared."""
    return json.dumps([getattr(config, section).model_dump() for section in sections])


def _before_key(config: Config) -> str:
    return key_of(config, "model", "quant", "data", "prompt", "eval") + str(config.seed)


def _free() -> None:
    """Lets go of what the last trial's trainer held, so that the next one's peak of memory is its own."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
