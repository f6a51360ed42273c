"""The peak memory of a training, and an estimate, before anything runs, of what fits into the memory that is free.

The estimate is a formula, because it is asked for many sizes at every start; `delivery.memory_plan` counts in seconds.
"""

import ctypes
import gc
import heapq
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from transformers import PreTrainedModel

from loraft.engine.collator import MAX_EXTRA_PAIRS, TrainingRow, shared_prompt
from loraft.engine.layout import padded_sizes
from loraft.engine.prefix_attention import supports

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
CGROUP = Path("/sys/fs/cgroup")
SHARE = 0.5  # of the free memory; the estimate knows nothing of allocators and kernels
OPTIMIZER_BYTES = 16  # of an adapter weight: fp32 weight, gradient, and Adam's two moments

portion = 1.0  # of the free memory, for this process; a worker that shares its device with others sets it


class Peak:
    """The most memory in use since it was made: of the GPU if the device is one, else of this process.

    The peak that a system reports for a process only rises. Linux can reset it (man 5 proc_pid_clear_refs), where the
    machine permits that. Elsewhere it is known only if it rose meanwhile: else it is that of an earlier training.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._above = -1  # KiB; a peak that is no higher says nothing
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        _give_freed_memory_back()
        try:
            CLEAR.write_text("5", encoding="ascii")  # the peak becomes what is in use
        except OSError:
            self._above = _process_peak()

    def mib(self) -> int | None:
        """The peak in MiB; None where it is not known."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device) / 2**20)
        peak = _process_peak()
        return peak // 2**10 if peak > self._above else None


def _give_freed_memory_back() -> None:
    """Returns freed memory to the system; glibc would keep it, and the peak would count it."""
    gc.collect()
    with suppress(AttributeError, OSError):  # other C libraries have no such function
        ctypes.CDLL(None).malloc_trim(0)


def _process_peak() -> int:
    """The most memory that this process ever had, or since it was last started anew; in KiB."""
    if STATUS.exists():  # Linux: `ru_maxrss` would count what the parent had when it started us, and never falls
        found = re.search(r"^VmHWM:\s*(\d+) kB$", STATUS.read_text(encoding="ascii", errors="replace"), re.MULTILINE)
        if found is not None:  # some sandboxes leave it out
            return int(found[1])
    windows = getattr(psutil.Process().memory_info(), "peak_wset", None)
    if windows is not None:
        return int(windows) // 2**10
    import resource  # of Unix alone

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak / (2**10 if sys.platform == "darwin" else 1))


def activation_bytes(model: PreTrainedModel, tokens: int, keys: int, *, recompute: bool = False) -> int:
    """Returns what the backward pass of so many tokens keeps, in bytes.

    s b h (34 + 5 a s / h) a layer in 16 bits, with `keys` for the sequence length s that a token attends to; twice that
    in 32 bits. With `recompute` it keeps the input of each layer, 2 s b h, and computes one layer's activations at a
    time. Korthikanti et al. 2022, https://arxiv.org/abs/2205.05198, equations 1 and 6.
    """
    config = model.config.get_text_config()
    each = 34 * config.hidden_size + 5 * getattr(config, "num_attention_heads", 0) * keys  # 0: Mamba
    width = 2 if model.dtype == torch.float32 else 1
    layers = config.num_hidden_layers
    kept = 2 * config.hidden_size * layers + each if recompute else each * layers
    return int(tokens * kept * width)


def packed_size(rows: Sequence[TrainingRow], batch: int) -> tuple[int, int]:
    """Returns the tokens of the largest packed batch, and those of its longest row."""
    return _largest_batch(*_lengths(rows, batch))


def _lengths(rows: Sequence[TrainingRow], batch: int) -> tuple[int, list[int]]:
    """The tokens of the prompt that all rows share, and those of the longest rows, which fill one batch."""
    return shared_prompt(rows), heapq.nlargest(batch, (len(row.input_ids) for row in rows))


def _largest_batch(prefix: int, lengths: Sequence[int]) -> tuple[int, int]:
    suffixes = [length - prefix for length in lengths]
    return prefix + sum(suffixes) + padded_sizes(suffixes, prefix)[1], lengths[0]


def free_bytes(device: torch.device) -> int:
    """Returns the memory that is free, in bytes: of the GPU if the device is one, else of the machine or container."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()  # what torch keeps for itself would count as taken
        return int(torch.cuda.mem_get_info(device)[0])
    return min(int(psutil.virtual_memory().available), _left_in_container())


def _left_in_container() -> int:
    """What a container may still use (cgroup v2), which the machine's figures do not show; 2**62 without a limit."""
    try:
        limit, used = ((CGROUP / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return 2**62
    return int(limit) - int(used) if limit.isdecimal() else 2**62


def largest_fit(
    model: PreTrainedModel,
    rows: Sequence[TrainingRow],
    sizes: Sequence[int],
    adapters: int,
    *,
    packed: bool,
    recompute: bool,
) -> int | None:
    """Returns the first batch size whose training step fits into `SHARE` of the free memory, None where none does.

    Args:
        sizes: numbers of rows, descending.
        adapters: that each train on a batch of this size at once.
        packed: the batches share their prefix; else they are padded.
        recompute: activations are computed again in the backward pass.
    """
    free = SHARE * portion * free_bytes(model.device)
    prefix, lengths = _lengths(rows, max(sizes))
    needed = (
        adapters * _batch_bytes(model, prefix, lengths[:size], size, packed=packed, recompute=recompute)
        for size in sizes
    )
    return next((size for size, bytes_ in zip(sizes, needed, strict=True) if bytes_ <= free), None)


def _batch_bytes(
    model: PreTrainedModel,
    prefix: int,
    lengths: Sequence[int],
    batch: int,
    *,
    packed: bool,
    recompute: bool = False,
) -> int:
    tokens, longest = _largest_batch(prefix, lengths)
    if not packed:
        return activation_bytes(model, batch * longest, longest, recompute=recompute)
    # Under a dense mask each token attends to all; else there are at most MAX_EXTRA_PAIRS pairs more than needed.
    keys = min(tokens, longest + MAX_EXTRA_PAIRS // tokens) if supports(model) else tokens
    return activation_bytes(model, tokens, keys, recompute=recompute)


def most_adapters(
    model: PreTrainedModel, rows: Sequence[TrainingRow], batch: int, weights: Sequence[int], *, packed: bool
) -> int:
    """Returns how many of the adapters, in this order, can train at once; at least 1.

    Args:
        weights: trainable weights of each adapter.
        packed: the batches share their prefix; else they are padded.
    """
    each = _batch_bytes(model, *_lengths(rows, batch), batch, packed=packed)
    free = SHARE * portion * free_bytes(model.device)
    needed = 0
    for count, size in enumerate(weights):
        needed += each + OPTIMIZER_BYTES * size
        if needed > free:
            return max(1, count)
    return len(weights)
