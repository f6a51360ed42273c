"""Samplers: the order in which training reads its rows, balanced by label or grouped by length."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices

from loraft.config.schema import TrainConfig
from loraft.engine.collator import TrainingRow


class EpochSampler(Sampler[int]):
    """A draw of rows that depends on seed and epoch alone, so that a resumed training draws the same."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; the data loader calls it, also when a training is resumed."""
        self.epoch = epoch

    def generator(self) -> torch.Generator:
        """Returns the epoch's source of randomness."""
        return torch.Generator().manual_seed(self.seed + self.epoch)


class BalancedSampler(EpochSampler):
    """Draws with replacement so that every label comes as often."""

    def __init__(self, labels: Sequence[int] | np.ndarray, seed: int) -> None:
        super().__init__(seed)
        self.weights = torch.from_numpy(1.0 / np.bincount(labels)[np.asarray(labels)])

    def __len__(self) -> int:
        return len(self.weights)

    def __iter__(self) -> Iterator[int]:
        yield from torch.multinomial(self.weights, len(self), replacement=True, generator=self.generator()).tolist()


class LengthSampler(EpochSampler):
    """Every row once, in random windows within which rows of like length stand together."""

    def __init__(self, lengths: Sequence[int], window: int, seed: int) -> None:
        super().__init__(seed)
        self.lengths = lengths
        self.window = window

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        yield from get_length_grouped_indices(self.lengths, self.window, generator=self.generator())


def sampler_of(section: TrainConfig, rows: Sequence[TrainingRow], args: TrainingArguments) -> Sampler[int] | None:
    """Returns the sampler of `train.sampling`; None for upstream's own, which shuffles."""
    if section.sampling == "balanced":
        return BalancedSampler(np.fromiter((row.label for row in rows), np.int64), args.seed)
    if section.sampling == "by_length":
        window = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        return LengthSampler([len(row.input_ids) for row in rows], window, args.seed)
    return None
