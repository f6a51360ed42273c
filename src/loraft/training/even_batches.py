"""Batches of several processes: as many for each, so that a step's rows are those that one process would take."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset
from torch.utils.data import BatchSampler, Sampler

from loraft import distributed
from loraft.engine.collator import TrainingRow
from loraft.training.whole_checkpoints import CheckpointedTrainer

FILLER = -1  # in place of a row's index: a row whose loss does not count


def indices_of(rows: Sequence[TrainingRow]) -> Dataset:
    """A data set of the rows' indices, and behind them `FILLER`, which no sampler draws."""
    return Dataset.from_dict({"row": np.append(np.arange(len(rows)), FILLER)})


def rows_at(indices: Sequence[int], rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    """The rows of these indices; `FILLER` stands for a row without a weight."""
    return [rows[n] if n != FILLER else replace(rows[0], weight=0.0) for n in indices]


class FilledBatches(Sampler[list[int]]):
    """An epoch's batches, all full and as many for each process: its last step has the rows that are left, once.

    accelerate would repeat rows of the epoch's beginning in their place.

    Args:
        batches: of all processes, which take turns.
        processes: how many there are.
        filler: what fills up batches.
    """

    def __init__(self, batches: BatchSampler, processes: int, filler: int) -> None:
        self.batches, self.processes, self.filler = batches, processes, filler
        self.sampler = batches.sampler  # whose epoch the data loader sets

    def __len__(self) -> int:
        return -(-len(self.batches) // self.processes) * self.processes

    def __iter__(self) -> Iterator[list[int]]:
        size = self.batches.batch_size
        for batch in self.batches:
            yield [*batch, *[self.filler] * (size - len(batch))]
        for _ in range(len(self) - len(self.batches)):
            yield [self.filler] * size


class EvenTrainer(CheckpointedTrainer):
    """A trainer over `indices_of` rows, each of whose processes gets as many batches; counts their tokens."""

    tokens_seen = 0  # that went through the model in training, in all processes

    def get_train_dataloader(self) -> Any:
        """Loads the batches of this process."""
        loader = super().get_train_dataloader()
        shard = loader.batch_sampler
        if isinstance(shard, BatchSamplerShard):
            shard.batch_sampler = FilledBatches(shard.batch_sampler, shard.num_processes, len(self.train_dataset) - 1)
        return loader

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Counts the answer tokens that the processes train on in an accumulation window."""
        if self.args.world_size == 1:
            return super()._get_num_items_in_batch(batch_samples, device)
        answers = sum(int(batch["weights"].count_nonzero()) for batch in batch_samples)
        answers, tokens = distributed.sums(answers, sum(batch["input_ids"].numel() for batch in batch_samples))
        self.tokens_seen += tokens
        return torch.tensor(answers, device=device)
