"""Choose how the batches of a training go through the model, from its architecture, the config and the device."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from peft import PeftModel

from loraft import distributed
from loraft.config.schema import TrainConfig
from loraft.engine import fused_layer, lora_linear, prefix_attention
from loraft.engine.architecture import longest_fast_row, rope_limit
from loraft.engine.collator import TrainingRow
from loraft.engine.layout import is_spread
from loraft.engine.loss import BatchMethod
from loraft.errors import BackboneError, Note

STATIC_DEVICES = {"cuda"}  # where a step over batches of a fixed size (`captured_step`) pays


def choose_method(model: PeftModel, section: TrainConfig, arguments: Any, rows: Sequence[TrainingRow]) -> BatchMethod:
    """Returns the fastest method that the architecture is known to suit; `check_first_batch` may replace it.

    Args:
        model: with its adapter.
        section: the `train` section of the config.
        arguments: of the trainer; activation checkpointing may be on there where memory is short.
        rows: of the training.
    """
    (longest, reason), longest_row = longest_fast_row(model), max(len(row.input_ids) for row in rows)
    if distributed.is_sharded() and longest_row > rope_limit(model):  # a batch may take several passes
        raise BackboneError(f"FSDP: {reason} (got {longest_row:,}); lower prompt.max_length, or train without FSDP")
    if section.shared_prefix == "off":
        return BatchMethod.PADDED
    if longest_row > longest:
        warnings.warn(
            f"training: {reason}; their batches are padded and do not share the prompt, which is slower",
            Note,
            stacklevel=2,
        )
    if longest == 0:
        return BatchMethod.PADDED
    if not prefix_attention.supports(model.get_base_model()):
        return BatchMethod.PADDED if distributed.is_sharded() else BatchMethod.MASK  # it would have to be checked
    # With activation checkpointing transformers' own layers run: they support recomputing their activations.
    fused = fused_layer.supports(model) and lora_linear.supports(model) and not arguments.activation_checkpointing
    return BatchMethod.FUSED if fused else BatchMethod.ATTENTION


def suits_static_steps(model: PeftModel, section: TrainConfig, arguments: Any, method: BatchMethod) -> bool:
    """Says whether training can run `captured_step`; where a GPU would profit from it, a note says why not.

    Args:
        model: with its adapter.
        section: the `train` section of the config.
        arguments: of the trainer.
        method: of the training's batches.
    """
    if arguments.device.type not in STATIC_DEVICES or method is BatchMethod.PADDED:
        return False
    reasons = {
        f"train.optim={section.optim}": not section.optim.startswith("adamw_torch"),
        "activation checkpointing": arguments.activation_checkpointing,
        "several devices": distributed.is_distributed() or arguments.n_gpu > 1 or is_spread(model),
    }
    why = [reason for reason, holds in reasons.items() if holds]
    if why:
        warnings.warn(
            f"training: with {' and '.join(why)} the kernels of a step are launched one by one, which is slower",
            Note,
            stacklevel=2,
        )
    return not why


@contextmanager
def enabled(model: PeftModel, method: BatchMethod, adapters: Sequence[str] | None) -> Iterator[None]:
    """Gives the model the layers, the attention and the LoRA products of a method, until the end of the block.

    Shared-prefix attention is enabled for fused layers as well: layers that are called without a layout use it, in the
    check of the first batch and where that check falls back.

    Args:
        model: with its adapters.
        method: of the training's batches.
        adapters: names of those that are trained in one pass; None for the active one alone.

    Raises:
        BackboneError: several adapters are trained, and a layer of them is no plain LoRA linear layer.
    """
    shared = method in (BatchMethod.FUSED, BatchMethod.ATTENTION)
    # peft's own layers would add all adapters of a joint training to every row
    own_lora_products = method is not BatchMethod.PADDED or adapters is not None
    layers = fused_layer.enabled(model, adapters) if method is BatchMethod.FUSED else nullcontext()
    attention = prefix_attention.enabled(model.get_base_model()) if shared else nullcontext()
    lora_products = lora_linear.enabled(model, adapters) if own_lora_products else nullcontext()
    with layers, attention, lora_products as all_layers:
        if adapters is not None and not all_layers:
            raise BackboneError(
                "joint training: an adapter layer is not a plain LoRA linear layer (DoRA, bias, merged ...); use"
                " --joint off"
            )
        yield
