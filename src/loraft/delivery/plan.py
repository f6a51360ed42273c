"""`loraft.delivery.plan.plan`: what a training will need, from the config alone: weights, memory, steps, time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

import numpy as np
import torch

from loraft.config.schema import Config
from loraft.data.dataset import Split, training_splits
from loraft.delivery.calibration import Calibration, calibrated
from loraft.delivery.memory_plan import METHODS, Memory, Planned, bits_per_weight, largest_batch, longest
from loraft.engine.collator import TrainingRow, pack, shared_prompt
from loraft.engine.loss import BatchMethod
from loraft.errors import DataError, LoraftError
from loraft.models.backbone import load_tokenizer
from loraft.models.device import DTYPE_NAMES, pick_device, pick_dtype
from loraft.models.encoder import Encoder
from loraft.models.load import build_encoder
from loraft.models.source import on_this_machine
from loraft.training.dataset import prepare
from loraft.training.memory import free_bytes

# Total capacity in PyTorch's out-of-memory messages, in GiB; makers count 10^9 bytes, and error correction takes some.
CARDS = {
    "T4 16 GB": 14.75, "RTX 3060 12 GB": 11.76, "RTX 4090 24 GB": 23.65, "L4 24 GB": 22.17, "A100 40 GB": 39.56,
    "A100 80 GB": 79.15, "H100 80 GB": 79.11,
}  # fmt: skip
RESERVE = 0.75  # GiB of a card for CUDA's context, loaded kernels and the workspace of cuBLAS
KEPT_BACK = 0.05  # of a card, for holes between the blocks of torch's allocator
GIB = 2**30
HERE = "this machine"
CALIBRATION = 10.0  # seconds
HEAP = "on a CPU the C library keeps freed blocks: 12 to 139 % on top of the peak were measured (docs/memory.md)"
DRAWS = 32  # batches that the mean number of tokens is taken from
BUNDLED = {"model": "loraft-vi-tiny", "data": "feedback"}  # stand in where the tokenizer or the data are not there


@dataclass(frozen=True)
class Fit:
    """What fits into the memory of one device.

    Attributes:
        room: bytes that a training can use there.
        batches: the largest batch by method, a power of two, 0 for none.
        fits: whether the config's batch does, by method.
    """

    room: int
    batches: dict[str, int]
    fits: dict[str, bool]


@dataclass(frozen=True)
class Plan:
    """What a training of a config will need.

    Attributes:
        backbone: its name for people.
        trainable: weights that peft trains.
        total: all weights, as peft counts them.
        bits: of a quantised weight, with its share of the block scales.
        batch: rows of a batch.
        length: tokens of the longest row.
        prefix: tokens of the prompt that all rows share.
        shared_prefix: whether a batch computes it once.
        checkpointing: activations are computed twice.
        dtypes: of the backbone's weights on this machine, by method.
        methods: memory of "full", "lora" and "qlora" on this machine.
        devices: this machine and common cards.
        rows: of the training; None where the data are not there.
        steps: of the training; None where neither data nor `train.max_steps` say it.
        tokens: that go through the model in all steps, None likewise.
        padded_tokens: the same for padded batches.
        calibration: a few steps of the training, None where they were not made.
        notes: what was assumed.
    """

    backbone: str
    trainable: int
    total: int
    bits: float
    batch: int
    length: int
    prefix: int
    shared_prefix: bool
    checkpointing: bool
    dtypes: dict[str, str]
    methods: dict[str, Memory]
    devices: dict[str, Fit]
    rows: int | None = None
    steps: int | None = None
    tokens: int | None = None
    padded_tokens: int | None = None
    calibration: Calibration | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float | None:
        """Of all training steps on this machine, without evaluations; None without a calibration."""
        if self.calibration is None or self.steps is None:
            return None
        return self.calibration.seconds_per_step * self.steps


def plan(config: Config, *, length: int | None = None, seconds: float = CALIBRATION) -> Plan:
    """Returns what a training needs; nothing but the backbone's `config.json` has to be there.

    Args:
        config: of the training.
        length: tokens of every row; None takes the rows of the data.
        seconds: for a few steps of the training, where the weights are there; 0 makes none. Nothing is downloaded for
            them.

    Raises:
        LoraftError: the backbone's config cannot be read, peft refuses the adapter, or the data are wrong.
    """
    device = pick_device(config.model.device)
    notes = [HEAP] if device.type == "cpu" else []
    dtypes = {method: _dtype(config, method, device) for method in METHODS}
    counted: dict[tuple[str, torch.dtype], Planned] = {}
    first = counted["lora", dtypes["lora"]] = Planned(config, "lora", dtypes["lora"], device)
    splits, encoder = _data(config, notes), _encoder(config, notes)
    shown = splits or training_splits(config.model_copy(update={"data": type(config.data)(source=BUNDLED["data"])}))
    prepared = prepare(config, encoder, shown["train"], shown["validation"])
    rows: Sequence[TrainingRow] = prepared.rows
    if length is not None:
        if length > config.prompt.max_length:
            raise DataError(
                f"--length: rows have at most {config.prompt.max_length} tokens (got {length}); name less, or --set"
                " prompt.max_length=..."
            )
        rows = of_length(list(rows), length)
    batch = config.train.per_device_train_batch_size

    found: dict[tuple[str, torch.dtype, int], Memory] = {}

    def memory(method: str, dtype: torch.dtype, size: int) -> Memory:
        if (method, dtype, size) not in found:
            if (method, dtype) not in counted:
                counted[method, dtype] = Planned(config, method, dtype, device)
            found[method, dtype, size] = counted[method, dtype].memory(longest(rows, size))
        return found[method, dtype, size]

    devices = {HERE: _fit(memory, free_bytes(device), batch, dtypes)}
    half = dict.fromkeys(METHODS, torch.bfloat16 if torch.float16 not in dtypes.values() else torch.float16)
    for card, capacity in CARDS.items():
        devices[card] = _fit(memory, int(GIB * ((1 - KEPT_BACK) * capacity - RESERVE)), batch, half)
    steps, padded, packed = _steps(config, list(rows), known=splits is not None)
    calibration = None
    if seconds > 0 and splits is not None and length is None and (local := _weights(config)) is not None:
        try:
            calibration = calibrated(local, encoder, prepared, seconds)
        except torch.OutOfMemoryError:
            notes.append("the time is not known: this machine's memory does not hold a batch")
    shared = first.batch_method(rows) is not BatchMethod.PADDED
    return Plan(
        backbone=config.model.label,
        trainable=first.parameters[0],
        total=first.parameters[1],
        bits=bits_per_weight(config.quant.double_quant),
        batch=batch,
        length=max(len(row.input_ids) for row in rows),
        prefix=shared_prompt(list(rows)),
        shared_prefix=shared,
        checkpointing=config.train.gradient_checkpointing,
        dtypes={method: DTYPE_NAMES[dtype] for method, dtype in dtypes.items()},
        methods={method: memory(method, dtypes[method], batch) for method in METHODS},
        devices=devices,
        rows=len(rows) if splits is not None else None,
        steps=steps,
        tokens=None if steps is None else round(steps * (packed if shared else padded)),
        padded_tokens=None if steps is None else round(steps * padded),
        calibration=calibration,
        notes=notes,
    )


def _dtype(config: Config, method: str, device: torch.device) -> torch.dtype:
    quant = config.quant.model_copy(update={"method": "nf4" if method == "qlora" else "none"})
    return pick_dtype(config.model, quant, device)


def _data(config: Config, notes: list[str]) -> Mapping[str, Split] | None:
    """The splits; None with a note where a data set of the hub cannot be reached."""
    try:
        return training_splits(config)
    except LoraftError:
        source = config.data.source
        if "/" not in source or source.startswith((".", "/", "~")):
            raise
        notes.append(f"{source} cannot be read here; lengths are those of the bundled feedback")
        return None


def _encoder(config: Config, notes: list[str]) -> Encoder:
    """The encoder for the backbone's tokenizer, and with a note for the bundled one where it has none."""
    try:
        load_tokenizer(config.model)
    except LoraftError:
        notes.append("the backbone's tokenizer is not here; tokens are counted by that of loraft-vi-tiny")
        model = config.model.model_copy(update={"name": BUNDLED["model"], "revision": None})
        return build_encoder(config.model_copy(update={"model": model}))
    return build_encoder(config)


def of_length(rows: list[TrainingRow], length: int) -> list[TrainingRow]:
    """Returns the rows with their text cut or repeated, so that each has this many tokens, prompt and answer included.

    Raises:
        DataError: the prompt alone is longer.
    """
    prefix = shared_prompt(rows)
    least = prefix + 1 + max(len(row.input_ids) - row.answer_start for row in rows)
    if length < least:
        raise DataError(f"--length: prompt and answer alone take {least} tokens (got {length}); name more")
    made = []
    for row in rows:
        answer = row.input_ids[row.answer_start :]
        own = row.input_ids[prefix : row.answer_start]
        start = length - len(answer)
        text = (own * ceil(length / len(own)))[: start - prefix]
        made.append(TrainingRow([*row.input_ids[:prefix], *text, *answer], start, row.label, row.weight))
    return made


def _fit(
    memory: Callable[[str, torch.dtype, int], Memory], room: int, batch: int, dtypes: Mapping[str, torch.dtype]
) -> Fit:
    batches, fits = {}, {}
    for method, dtype in dtypes.items():
        by_rows = {size: memory(method, dtype, size) for size in (batch, 4 * batch)}
        fits[method] = by_rows[batch].peak <= room
        if not fits[method]:
            by_rows[1] = memory(method, dtype, 1)
        batches[method] = largest_batch(by_rows, room)
    return Fit(room, batches, fits)


def _steps(config: Config, rows: list[TrainingRow], *, known: bool) -> tuple[int | None, float, float]:
    """Steps of the training, and the mean tokens of one, padded and with a shared prefix; see `TrainingArguments`."""
    section = config.train
    batch, window = section.per_device_train_batch_size, section.gradient_accumulation_steps
    steps: int | None = section.max_steps
    if section.max_steps < 0:
        an_epoch = ceil(ceil(len(rows) / batch) / window)
        steps = ceil(section.num_train_epochs * an_epoch) if known else None
    generator = np.random.default_rng(config.seed)
    padded, packed = [], []
    for _ in range(DRAWS):
        drawn = [rows[i] for i in generator.integers(len(rows), size=batch)]
        padded.append(len(drawn) * max(len(row.input_ids) for row in drawn))
        packed.append(min(padded[-1], pack(drawn)["input_ids"].numel()))
    return steps, window * float(np.mean(padded)), window * float(np.mean(packed))


def _weights(config: Config) -> Config | None:
    """The config, where the backbone's weights are on this machine; of a hub id with the folder of its cache."""
    place = on_this_machine(config.model)
    if place is None or not (place.is_file() or any(any(place.glob(f"*.{kind}")) for kind in ("safetensors", "bin"))):
        return None
    return config.model_copy(update={"model": config.model.model_copy(update={"name": str(place)})})
