"""A packed training batch as one vector of 32-bit numbers, so that batches of a size differ in numbers alone.

A CUDA graph repeats the same kernels over the same memory. So all that differs between two batches of a size (ids,
positions, ranges of visible keys, which tokens the LM head reads, targets, weights) stands in one vector: made on the
CPU, moved in one transfer into memory that never moves, and read there through views. Sizes are rounded up, so that few
of them occur. What fills them up changes nothing: extra tokens stand behind all others and are seen by no other token,
and extra targets have the weight 0.

Letters: A adapters, B examples, T tokens of the row, P prefix tokens, K tokens of a row that the LM head reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from loraft.engine.collator import TrainingRow, shared_prompt
from loraft.engine.key_ranges import KeyRanges, query_bounds


class Size(NamedTuple):
    """What the kernels of a step depend on: T, K and A."""

    tokens: int
    kept: int
    copies: int

    def numbers(self) -> dict[str, int]:
        """Returns how many numbers of the vector each field takes, in their order."""
        tokens, kept, copies = self
        return {
            "ids": tokens, "positions": tokens, "queries": 4 * tokens, "keys": 2 * tokens, "kept": copies * kept,
            "last_queries": 4 * kept, "last_keys": 2 * tokens, "targets": kept, "weights": kept, "held_out": kept,
            "prefix": 1, "scale": 1,
        }  # fmt: skip


class StaticInputs:
    """The fields of a batch as views into its vector, on any device.

    Attributes:
        vector: int32; the fields in the order of `Size.numbers`.
        size: of the batch.
        ids_1T: token ids.
        positions_1T: position ids.
        ranges: of the keys that each token sees.
        kept_K: (A * K,), the tokens that the LM head reads, as indices into the A * T tokens.
        last_ranges: of the keys that the K kept tokens see.
        targets_K: the tokens that follow the kept ones, 0 for extra ones.
        weights_K: fp32, the weight of each target in the loss, 0 for extra ones.
        held_out_K: the number of the adapter that does not learn the target, or -1.
        scale_1: fp32, factor of the loss: 1 / number of answer tokens of the accumulation window.
    """

    def __init__(self, vector: torch.Tensor, size: Size) -> None:
        self.vector, self.size = vector, size
        parts = dict(zip(size.numbers(), vector.split(list(size.numbers().values())), strict=True))
        self.ids_1T, self.positions_1T = parts["ids"][None], parts["positions"][None]
        prefix_1 = parts["prefix"]
        self.ranges = KeyRanges(parts["queries"].view(4, -1), parts["keys"].view(2, -1), prefix_1)
        self.last_ranges = KeyRanges(parts["last_queries"].view(4, -1), parts["last_keys"].view(2, -1), prefix_1)
        self.kept_K, self.targets_K, self.held_out_K = parts["kept"], parts["targets"], parts["held_out"]
        self.weights_K, self.scale_1 = parts["weights"].view(torch.float32), parts["scale"].view(torch.float32)


@dataclass(frozen=True)
class StaticBatch:
    """A batch as the data loader gives it, in memory from which the GPU can copy by itself.

    Attributes:
        inputs: on the CPU.
        rows: the examples.
        answers: number of their answer tokens.
    """

    inputs: StaticInputs
    rows: Sequence[TrainingRow]
    answers: int

    def pin_memory(self) -> "StaticBatch":
        """Returns the batch in page-locked memory; torch's data loader calls it."""
        return StaticBatch(StaticInputs(self.inputs.vector.pin_memory(), self.inputs.size), self.rows, self.answers)


def static_batch(rows: Sequence[TrainingRow], kept: int, copies: int) -> StaticBatch:
    """Returns the examples as one packed row.

    Args:
        rows: B examples.
        kept: K, at least the number of their answer tokens.
        copies: A.
    """
    prefix = shared_prompt(rows)
    lengths = [len(row.input_ids) - prefix for row in rows]
    used = prefix + sum(lengths)
    size = Size(token_bucket(used), kept, copies)
    inputs = StaticInputs(torch.zeros(sum(size.numbers().values()), dtype=torch.int32), size)
    extra = size.tokens - used

    ids = [rows[0].input_ids[:prefix], *(row.input_ids[prefix:] for row in rows), rows[-1].input_ids[-1:] * extra]
    inputs.ids_1T[0] = torch.from_numpy(np.concatenate([np.asarray(part, dtype=np.int32) for part in ids if part]))
    # Where each example begins in the row, and for each token where its own example begins (an extra one: itself).
    starts_B = prefix + np.cumsum([0, *lengths[:-1]])
    place_T = np.arange(size.tokens)
    begin_T = np.concatenate([np.zeros(prefix, int), np.repeat(starts_B, lengths), np.arange(used, size.tokens)])
    inputs.positions_1T[0] = torch.from_numpy(np.where(place_T < prefix, place_T, prefix + place_T - begin_T))
    queries_4T = inputs.ranges.queries_4M
    queries_4T[0], queries_4T[1] = torch.from_numpy(place_T), torch.from_numpy(begin_T)
    inputs.ranges.prefix_1.fill_(prefix)
    inputs.ranges.keys_2L.copy_(query_bounds(queries_4T, size.tokens, prefix))

    # The token before each answer token predicts it. Extra ones read the last token of the row.
    answers = [len(row.input_ids) - row.answer_start for row in rows]
    predicting = np.concatenate(
        [
            np.arange(start + row.answer_start - 1 - prefix, start + length - 1)
            for start, length, row in zip(starts_B, lengths, rows, strict=True)
        ]
    )
    kept_K = np.full(kept, size.tokens - 1)
    kept_K[: len(predicting)] = predicting
    inputs.kept_K.copy_(torch.from_numpy((np.arange(copies)[:, None] * size.tokens + kept_K).ravel()))
    inputs.last_ranges.queries_4M.copy_(queries_4T[:, kept_K])
    inputs.last_ranges.keys_2L.copy_(query_bounds(inputs.last_ranges.queries_4M, size.tokens, prefix))
    inputs.targets_K[: len(predicting)] = inputs.ids_1T[0, predicting + 1]
    weights = np.repeat([row.weight for row in rows], answers).astype(np.float32)
    inputs.weights_K[: len(predicting)] = torch.from_numpy(weights)
    held_out = np.repeat([row.held_out for row in rows], answers).astype(np.int32)
    inputs.held_out_K[: len(predicting)] = torch.from_numpy(held_out)
    return StaticBatch(inputs, rows, len(predicting))


def token_bucket(count: int) -> int:
    """Returns `count` rounded up to a multiple of 32; of 64 above 512, of 128 above 1,024, and so on.

    Up to an eighth of the tokens is extra, and few sizes occur: a captured step is kept for each.
    """
    step: int = max(32, 2 ** (count.bit_length() - 4))
    return -(-count // step) * step
