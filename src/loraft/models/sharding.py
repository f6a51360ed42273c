"""FSDP: the weights of a backbone's layers in shards, one on each process's device, for backbones too large for one.

The layers' weights are frozen, so that they are gathered for a forward or a backward pass and never change. Everything
else stays whole on each device: embeddings, final norm, LM head, and the adapter, whose gradients the trainer averages
(`LabelTrainer`), as with DDP. The adapter is then saved, resumed and stepped as in any other training.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from loraft import distributed
from loraft.config.schema import Config
from loraft.engine.quantized_linear import is_4bit
from loraft.errors import BackboneError, ConfigError

# Attributes of bitsandbytes' 4-bit weights.
DESCRIBING = ("quant_state", "quant_type", "compress_statistics", "quant_storage", "blocksize", "bnb_quantized")


def refuse_unsharded(config: Config) -> None:
    """Refuses what needs whole weights outside a layer's forward pass, where the launcher asks for FSDP.

    Raises:
        ConfigError: a key asks for such a thing, or the launcher's own settings do.
    """
    if not distributed.is_sharded():
        return
    lora, wanted = config.lora, os.environ.get("FSDP_VERSION", "1")
    if wanted != "2":
        raise ConfigError(f"accelerate: fsdp_version has to be 2 (got {wanted}); see configs/accelerate/fsdp2.yaml")
    problems = {
        "fsdp_offload_params=true": os.environ.get("FSDP_OFFLOAD_PARAMS", "false") == "true",
        f"lora.init_lora_weights={lora.init_lora_weights}": lora.init_lora_weights not in ("default", "gaussian"),
        "lora.use_dora=true": lora.use_dora,
        f"lora.modules_to_save={lora.modules_to_save}": bool(lora.modules_to_save),
        f"lora.target_parameters={lora.target_parameters}": bool(lora.target_parameters),
        "quant.cache=on": config.quant.method == "nf4" and config.quant.cache == "on",
    }
    if found := [name for name, holds in problems.items() if holds]:
        raise ConfigError(
            f"FSDP: needs a backbone whose layers hold their own shard only (got {', '.join(found)}); leave it out, or"
            " train without FSDP"
        )


def shard(base: PreTrainedModel, device: torch.device) -> None:
    """Leaves this process its share of the weights of every decoder layer; the rest moves to the device whole.

    Args:
        base: frozen, whole, in the host's memory; the same in every process.
        device: of this process.

    Raises:
        BackboneError: transformers does not name the layers of this architecture.
    """
    from accelerate import PartialState
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    names = base._no_split_modules or ()
    layers = [module for module in base.modules() if type(module).__name__ in names]
    if not layers:
        raise BackboneError(
            f"FSDP: the layers of {base.config.model_type} are not known (got {type(base).__name__} without"
            " _no_split_modules); train without FSDP"
        )
    state = PartialState(cpu=device.type == "cpu")  # connects the processes
    mesh = init_device_mesh(device.type, (state.num_processes,))
    again = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true") == "true"
    packed = {part: dict(vars(part.weight)) for part in base.modules() if is_4bit(part)}
    sharded: set[torch.nn.Parameter] = set()
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=again)
        sharded.update(layer.parameters())
    # The layers' common root holds no shards: with it, the next layer is gathered while one computes.
    whole = {parameter for parameter in base.parameters() if parameter not in sharded}
    fully_shard(base.base_model, mesh=mesh, ignored_params=whole)
    base.to(device)
    for part, described in packed.items():  # peft and the fingerprint ask the weight how it is quantised
        for key in DESCRIBING:
            if key in described:
                setattr(part.weight, key, described[key])
    base._is_accelerate_prepared = True  # else accelerate would refuse shards under DDP


def whole(weight: torch.Tensor) -> torch.Tensor:
    """Returns a weight, gathered from all processes if it is in shards; all of them must ask for it."""
    gathered: torch.Tensor = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
    return gathered


@contextmanager
def without_accelerates_own() -> Iterator[None]:
    """Inside the block accelerate and transformers do not see that FSDP is asked for.

    They would load no weights in processes other than the first, shard the adapter too, and save the whole backbone.
    """
    before = os.environ.pop(distributed.FSDP, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[distributed.FSDP] = before


def average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Replaces the gradients of weights that each process holds whole by their mean over all processes.

    Does nothing where no backbone is in shards: DDP averages there.
    """
    if not distributed.is_sharded():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch._utils._flatten_dense_tensors(gradients)
    torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()
    for gradient, mean in zip(gradients, torch._utils._unflatten_dense_tensors(flat, gradients), strict=True):
        gradient.copy_(mean)
