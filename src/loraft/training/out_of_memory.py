"""Training in smaller batches where the device ran out of memory, although the estimate said that it would not."""

import gc
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftModel

from loraft import distributed
from loraft.errors import BackboneError, Note
from loraft.runs.run import Run
from loraft.training.trainer import LabelTrainer
from loraft.training.whole_checkpoints import newest_checkpoint


def train_halving(
    build: Callable[[int | None], LabelTrainer], model: PeftModel, checkpoints: Path, checkpoint: Path | None
) -> LabelTrainer:
    """Trains; where the device runs out of memory, goes on with half as many rows at a time.

    A step keeps its rows, so losses and weights are those of the larger batches but for rounding. The training goes on
    from its newest checkpoint, or from the adapter as it was at the beginning.

    Args:
        build: makes the trainer; takes the most rows of a batch, None for as many as the estimate allows.
        model: that it trains.
        checkpoints: folder of the trainer's checkpoints.
        checkpoint: to begin from; None for a new training.

    Returns:
        The trainer, whose training is over.

    Raises:
        BackboneError: the memory does not hold a single row.
    """
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    start = {name: weight.detach().to("cpu", copy=True) for name, weight in trained.items()}
    at_most: int | None = None
    while True:
        trainer = build(at_most)
        try:
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            return trainer
        except torch.OutOfMemoryError as error:
            size, cause = trainer.args.per_device_train_batch_size, str(error).partition(". ")[0]
        # Out here the exception is gone, and with it what referred to the tensors of the failed step.
        if size == 1 or distributed.is_distributed():  # several processes cannot change the size each by itself
            rows = "a single row" if size == 1 else f"a batch of {size} rows"
            raise BackboneError(
                f"training: the device's memory does not hold {rows} ({cause}); set quant.method=nf4, lower"
                " prompt.max_length, lora.r or train.per_device_train_batch_size, or end what else uses the device"
            )
        del trainer
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        for name, weight in start.items():
            trained[name].data.copy_(weight)
            trained[name].grad = None
        at_most, checkpoint = size // 2, newest_checkpoint(checkpoints, Run(checkpoints.parent).how_to_begin_again)
        warnings.warn(
            f"training: out of memory with {size} rows at a time ({cause}); going on with {at_most}, and as many rows a"
            " step as before, which is slower",
            Note,
            stacklevel=2,
        )
