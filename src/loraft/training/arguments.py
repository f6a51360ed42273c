"""The arguments of TRL's trainer, from the `train` section of the config."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from peft import PeftModel
from trl import SFTConfig

from loraft import distributed
from loraft.config.schema import TrainConfig
from loraft.engine import prefix_attention
from loraft.engine.collator import TrainingRow
from loraft.errors import Note
from loraft.evaluation.choosing import gain, key_of
from loraft.training import memory, trackers


def sft_config(
    section: TrainConfig, *, learning_rate: float, output_dir: str, seed: int, on_cpu: bool, fp16: bool
) -> SFTConfig:
    """Returns TRL's arguments for this section; everything that would reach a network is off.

    Args:
        section: the `train` section of the config.
        learning_rate: the section's, or the one that follows the backbone's size.
        output_dir: of the checkpoints.
        seed: of the order of rows and of dropout.
        on_cpu: train on the CPU.
        fp16: the backbone's weights are fp16, so the loss is scaled, or small gradients would become zero.
    """
    return SFTConfig(
        output_dir=output_dir,
        num_train_epochs=section.num_train_epochs,
        max_steps=section.max_steps,
        per_device_train_batch_size=section.per_device_train_batch_size,
        gradient_accumulation_steps=section.gradient_accumulation_steps,
        learning_rate=learning_rate,
        lr_scheduler_type=section.lr_scheduler_type,
        warmup_steps=section.warmup_steps,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
        optim=section.optim,
        activation_checkpointing=section.gradient_checkpointing,
        logging_steps=section.logging_steps,
        logging_nan_inf_filter=False,  # a loss that is not finite must be seen
        eval_strategy="steps",
        eval_steps=section.eval_steps,
        save_strategy="steps",
        save_steps=section.eval_steps,
        save_total_limit=section.save_total_limit,
        load_best_model_at_end=section.keep == "best",
        metric_for_best_model=key_of(section.metric) if section.keep == "best" else None,  # None: no best is noted
        greater_is_better=gain(key_of(section.metric), 1) > 0,
        report_to=[one for one in section.report_to if one not in trackers.KINDS],  # those get the lines of the log
        run_name=Path(output_dir).parent.name,
        router_aux_loss_coef=0.0,  # routers are frozen; TRL would have them balanced, and that refuses packed rows
        seed=seed,
        use_cpu=on_cpu,
        fp16=fp16,
        bf16=False,  # the backbone's weights already are where the hardware multiplies bf16; no autocast on top
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,  # every adapter weight is used at every step
        ddp_broadcast_buffers=False,  # they never change
        dataloader_pin_memory=not on_cpu,
        disable_tqdm=True,
        log_level="error",
    )


def fitted_batches(
    section: TrainConfig, model: PeftModel, rows: Sequence[TrainingRow], adapters: int, *, at_most: int | None = None
) -> TrainConfig:
    """Returns the section with the largest batches that the free memory holds; a note says where it is short.

    The rows of a step, their weights in the loss and the number of steps stay the same: the rows of a step are divided
    evenly among more or fewer batches. Where batches share a prefix, all rows of a step are one batch if they fit, so
    that the prompt is computed once. Where not even one row fits, its activations are computed again in the backward
    pass (`gradient_checkpointing`), again in the largest batches that fit.

    Args:
        section: the `train` section of the config.
        model: with its adapters.
        rows: of the training.
        adapters: that train at once.
        at_most: rows of a batch that are known not to be too many; None where nothing is known.
    """
    if distributed.is_distributed():  # several processes could decide differently
        return section
    batch, checkpointing = section.per_device_train_batch_size, section.gradient_checkpointing
    window, packed = batch * section.gradient_accumulation_steps, section.shared_prefix == "auto"
    # An unknown architecture may fall back to padded batches; checkpointing is asked for where memory is short.
    whole = packed and prefix_attention.supports(model.get_base_model()) and not checkpointing
    for recompute in sorted({checkpointing, True}):
        largest = min(window if whole else batch, at_most or window)
        sizes = [size for size in range(largest, 0, -1) if window % size == 0]
        size = memory.largest_fit(model, rows, sizes, adapters, packed=packed, recompute=recompute)
        if size is not None:
            break
        whole = False
    size = size or 1  # the estimate is a careful one
    if (size < batch and at_most is None) or recompute > checkpointing:
        how = "; activations are computed twice (train.gradient_checkpointing)" if recompute > checkpointing else ""
        warnings.warn(
            f"training: a batch of {batch} rows may not fit into the free memory; {size} at a time, {window} a step as"
            f" asked for{how}, which is slower",
            Note,
            stacklevel=2,
        )
    changes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": window // size}
    return section.model_copy(update={**changes, "gradient_checkpointing": recompute})
