"""How much of a training step fits into memory, estimated from the shape of the backbone before anything is run."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from loraft.batching import Row
from loraft.encoding import common_prefix

MEMINFO = Path("/proc/meminfo")
SHARE = 0.5  # of the free memory; the estimate knows nothing of allocators and kernels
OPTIMIZER_BYTES = 16  # of an adapter weight: fp32 weight, gradient, and Adam's two moments


def activation_bytes(model: PreTrainedModel, tokens: int, keys: int) -> int:
    """Returns what the backward pass of so many tokens keeps, in bytes.

    s b h (34 + 5 a s / h) a layer in 16 bits, with `keys` for the sequence length s that a token attends to; twice that
    in 32 bits. Korthikanti et al. 2022, https://arxiv.org/abs/2205.05198, equation 1.
    """
    config = model.config.get_text_config()
    each = 34 * config.hidden_size + 5 * config.num_attention_heads * keys
    width = 2 if model.dtype == torch.float32 else 1
    return int(tokens * config.num_hidden_layers * each * width)


def packed_size(rows: Sequence[Row], batch: int) -> tuple[int, int]:
    """Returns the tokens of the largest packed batch, and the keys that its longest row attends to."""
    prefix = min(common_prefix([row.input_ids for row in rows]), min(row.answer_start for row in rows) - 1)
    lengths = sorted((len(row.input_ids) for row in rows), reverse=True)[:batch]
    return prefix + sum(length - prefix for length in lengths), lengths[0]


def free_bytes(device: torch.device) -> int:
    """Returns the memory that is free: of the GPU if the device is one, else of the machine, half of it if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if MEMINFO.exists():  # man 5 proc_meminfo
        found = re.search(r"^MemAvailable:\s*(\d+) kB$", MEMINFO.read_text(encoding="ascii"), re.MULTILINE)
        if found is not None:
            return int(found[1]) * 2**10
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def fits(model: PreTrainedModel, rows: Sequence[Row], batch: int, adapters: int = 1) -> bool:
    """Says whether a packed batch of so many rows, for so many adapters at once, fits into `SHARE` of what is free."""
    tokens, keys = packed_size(rows, batch)
    return activation_bytes(model, adapters * tokens, keys) <= SHARE * free_bytes(model.device)


def most_adapters(model: PreTrainedModel, rows: Sequence[Row], batch: int, weights: Sequence[int]) -> int:
    """Returns how many of the adapters, in this order, can train at once; at least 1.

    Args:
        weights: trainable weights of each adapter.
    """
    tokens, keys = packed_size(rows, batch)
    each = activation_bytes(model, tokens, keys)
    free = SHARE * free_bytes(model.device)
    needed = 0
    for count, size in enumerate(weights):
        needed += each + OPTIMIZER_BYTES * size
        if needed > free:
            return max(1, count)
    return len(weights)
