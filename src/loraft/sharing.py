"""One backbone for many trials: take an adapter off again, and prove that nothing of it stayed behind."""

import hashlib

import torch
from peft import PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from loraft.backbone import lora_config, resolve_name
from loraft.config import LoraSection, ModelConfig


def remove_adapter(model: PeftModel) -> PreTrainedModel:
    """Returns the bare backbone, frozen and in evaluation mode; the adapter's weights are dropped, not merged."""
    base: PreTrainedModel = model.unload()
    base.requires_grad_(False)
    base.eval()
    return base


def weights_hash(base: PreTrainedModel) -> str:
    """Returns SHA-256 over every weight, quantisation constant and buffer, with names, in hexadecimal.

    Equal hashes mean bit-identical backbones without any adapter. `backbone.fingerprint` is the quick one: it samples
    the embedding, to tell two backbones apart.
    """
    digest = hashlib.sha256(f"adapter: {hasattr(base, 'peft_config')}".encode())
    tensors = {**base.state_dict(), **dict(base.named_buffers())}
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        digest.update(flat.cpu().numpy().data)
    return digest.hexdigest()


def without_weights(section: ModelConfig) -> PreTrainedModel:
    """Returns the backbone with its shapes only.

    Raises:
        OSError, ValueError: its config cannot be read.
    """
    given = {"revision": section.revision, "cache_dir": section.cache_dir}
    config = AutoConfig.from_pretrained(
        resolve_name(section.name), **{key: value for key, value in given.items() if value is not None}
    )
    with torch.device("meta"):
        base: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return base


def count_trainable(base: PreTrainedModel, section: LoraSection) -> int:
    """Returns how many weights an adapter on this backbone trains; the backbone may be without weights, and stays bare.

    Raises:
        ValueError: peft finds no such target modules.
    """
    plain = section.model_copy(update={"init_lora_weights": "default"})  # other inits would compute on the weights
    adapted = get_peft_model(base, lora_config(plain), low_cpu_mem_usage=True)
    count = int(adapted.get_nb_trainable_parameters()[0])
    remove_adapter(adapted)
    return count
