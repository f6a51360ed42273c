"""The memory that a training needs, before weights are there: full fine-tuning, LoRA and QLoRA side by side.

The backbone is built on the meta device from its config, with peft's adapter. Then the code of a training step runs on
it, for a batch of the given rows, and `LiveBytes` counts what lives: nothing here knows an architecture.
"""

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert

from loraft.config.schema import Config, QuantConfig
from loraft.delivery.live_bytes import LiveBytes, as_on_a_device
from loraft.engine.collator import TrainingRow, first_rows, pack_if_smaller, pad
from loraft.engine.loss import BatchMethod, answer_loss_sums
from loraft.errors import BackboneError, LoraftError, first_line
from loraft.models.adapter import add_adapter, parameter_counts
from loraft.models.backbone import without_weights
from loraft.models.device import pick_compute_dtype
from loraft.models.quantization import QUANT_TYPE
from loraft.training.batch_method import choose_method, enabled
from loraft.training.first_batch_check import CHECKED_ROWS, check_first_batch

METHODS = ("full", "lora", "qlora")
FP32 = 4  # bytes of a weight that is trained, and of its gradient
# Bytes of the state of a trained weight. 8-bit optimizers store one byte a number; of Adafactor's state little is left.
STATE = {
    "adamw_torch": 8, "adamw_torch_fused": 8, "paged_adamw_32bit": 8, "adamw_8bit": 2, "paged_adamw_8bit": 2,
    "adagrad": 4, "rmsprop": 4, "lion_8bit": 1, "paged_lion_8bit": 1, "sgd": 0, "adafactor": 0,
}  # fmt: skip
MOST_ROWS = 4096  # of a batch, that `largest_batch` tries
SAMPLE = 2**20  # weights that `bits_per_weight` quantises


@dataclass(frozen=True)
class Memory:
    """What a training holds, in bytes.

    Attributes:
        weights: of the backbone and the adapter.
        gradients: of all trained weights.
        optimizer: its state, two moments a trained weight for Adam.
        activations: the most that one step holds beside these.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def peak(self) -> int:
        """The most that is held at once, in bytes; where gradients and activations do not coincide, a little less."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def to_json(self) -> dict[str, int]:
        """The parts and the peak."""
        return asdict(self) | {"peak": self.peak}


def bits_per_weight(double_quant: bool) -> float:
    """Returns the bits of a quantised weight with its share of the block scales; bitsandbytes quantises some for it."""
    import bitsandbytes.functional as bnb

    packed, state = bnb.quantize_4bit(torch.zeros(1, SAMPLE), compress_statistics=double_quant, quant_type=QUANT_TYPE)
    scales = [packed, state.absmax, *([state.state2.absmax] if double_quant else [])]
    return 8.0 * int(sum(tensor.numel() * tensor.element_size() for tensor in scales)) / SAMPLE


class Planned:
    """A backbone without weights, with the adapter of a config, whose training step can be counted.

    Args:
        config: whose adapter, method of batches and optimizer are meant.
        method: "full" trains every weight on padded batches, as the libraries do; the others are loraft's training.
        dtype: of the backbone's weights that are not quantised.
        device: that computes.
    """

    def __init__(self, config: Config, method: str, dtype: torch.dtype, device: torch.device) -> None:
        self.config, self.method, self.dtype = config, method, dtype
        self.section = config.train
        base = without_weights(config.model).to(dtype)
        base.config.dtype = dtype
        quant = QuantConfig(
            method="nf4" if method == "qlora" else "none", **config.quant.model_dump(exclude={"method"})
        )
        self._mixed = method == "qlora" and pick_compute_dtype(config.model, quant, device) != dtype
        quantised = _quantised(base) if method == "qlora" else []
        self._dense = {weight.untyped_storage()._cdata: weight.numel() * dtype.itemsize for weight in quantised}
        shared = {id(one): one for one in base.parameters()}.values()
        if method == "full":
            self.model, frozen = base, 0
        else:
            base.requires_grad_(False)
            bits = bits_per_weight(quant.double_quant) if quantised else 0.0
            small = sum(weight.numel() for weight in quantised)
            frozen = (sum(one.numel() for one in shared) - small) * dtype.itemsize + int(small * bits / 8)
            frozen += small * dtype.itemsize if quantised and quant.cache == "on" else 0
            # Other initialisations compute with the weights.
            plain = config.lora.model_copy(update={"init_lora_weights": "default"})
            self.model = add_adapter(base, plain, seed=config.seed)
        self.parameters = parameter_counts(self.model) if method != "full" else (sum(p.numel() for p in shared),) * 2
        self.trained = [one for one in self.model.parameters() if one.requires_grad]
        count = sum(one.numel() for one in self.trained)
        self.weights, self.gradients = frozen + FP32 * count, FP32 * count
        self.optimizer = STATE[self.section.optim] * count
        for weight in self.trained:
            if method != "full":
                weight.data = weight.data.float()
            weight.register_post_accumulate_grad_hook(_drop_gradient)  # gradients are counted once, above
        if self.section.gradient_checkpointing:
            self.model.activation_checkpointing_enable()
        self.model.train()
        self._of_check: dict[tuple[int, ...], int] = {}  # bytes that the check of rows of these lengths needs

    def batch_method(self, rows: Sequence[TrainingRow]) -> BatchMethod:
        """Returns how batches of these rows go through the model."""
        if self.method == "full":
            return BatchMethod.PADDED
        arguments = SimpleNamespace(activation_checkpointing=self.section.gradient_checkpointing)
        return choose_method(self.model, self.section, arguments, rows)

    def memory(self, rows: Sequence[TrainingRow]) -> Memory:
        """Returns what a training on batches of these rows holds; its check of the first batch is a part of it.

        Raises:
            BackboneError: the architecture's code needs the weights themselves.
        """
        try:
            return self._memory(rows)
        except LoraftError:
            raise
        except Exception as error:
            kind = self.model.config.model_type
            raise BackboneError(
                f"model.name: the memory of model_type {kind!r} cannot be computed without weights (got"
                f" {type(error).__name__}: {first_line(error)}); loraft check tries a training, where they are there"
            ) from error

    def _memory(self, rows: Sequence[TrainingRow]) -> Memory:
        method = self.batch_method(rows)
        if method is BatchMethod.FUSED and self._mixed:
            method = BatchMethod.ATTENTION
        packed = None if method is BatchMethod.PADDED else pack_if_smaller(rows)
        batch = pad(rows, 0) if packed is None else packed
        loss = partial(answer_loss_sums, self.model, dtype=self.dtype, adapters=1)
        with as_on_a_device(), nullcontext() if self.method == "full" else enabled(self.model, method, None):
            with self._counted() as live:
                loss(batch, method=method).sum().backward()
            most = live.peak
            if packed is not None:
                most = max(most, self._of_first_batch(method, rows[:CHECKED_ROWS], loss, packed))
        return Memory(self.weights, self.gradients, self.optimizer, most)

    def _of_first_batch(self, method: BatchMethod, few: Sequence[TrainingRow], loss: Any, packed: Any) -> int:
        """Bytes that the comparison of a packed batch with a padded one needs, of the few rows that it takes."""
        lengths = tuple(len(row.input_ids) for row in few)
        if lengths not in self._of_check:
            batch = first_rows(packed, len(few))
            with self._counted() as live, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it compares numbers, and there are none
                check_first_batch(
                    self.model, pad(few, 0), lambda how: loss(batch, method=how), method, None, dtype=self.dtype
                )
            self._of_check[lengths] = live.peak
        return self._of_check[lengths]

    def _counted(self) -> LiveBytes:
        return LiveBytes([*self.model.parameters(), *self.model.buffers()], self._dense)


def _quantised(base: PreTrainedModel) -> list[torch.nn.Parameter]:
    """The weights that transformers has bitsandbytes quantise: of linear layers, without the head."""
    left_out = get_keys_to_not_convert(base)
    return [
        module.weight
        for name, module in base.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and not any(one and name.endswith(one) for one in left_out)
    ]


def _drop_gradient(weight: torch.Tensor) -> None:
    weight.grad = None


def longest(rows: Sequence[TrainingRow], batch: int) -> list[TrainingRow]:
    """Returns a batch of the longest rows, which needs most; where there are fewer, they are repeated."""
    return list(islice(cycle(sorted(rows, key=lambda row: -len(row.input_ids))[:batch]), batch))


def largest_batch(by_rows: dict[int, Memory], room: float) -> int:
    """Returns the largest batch whose peak is at most `room` bytes, a power of two up to `MOST_ROWS`; 0 for none.

    Args:
        by_rows: what a few sizes of batches need. Between them the peak is linear, and beyond the last two as well.
        room: bytes.
    """
    sizes = np.array(sorted(by_rows))
    peaks = np.maximum.accumulate([by_rows[size].peak for size in sizes])
    slope = (peaks[-1] - peaks[-2]) / (sizes[-1] - sizes[-2])
    tried = 2 ** np.arange(int(np.log2(MOST_ROWS)) + 1)
    needed = np.interp(tried, sizes, peaks) + slope * np.maximum(tried - sizes[-1], 0)
    return int(max(tried[needed <= room], default=0))
