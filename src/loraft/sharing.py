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


def trainable_without_weights(model: ModelConfig, lora: LoraSection) -> int:
    """Returns how many weights an adapter trains, counted on a backbone that has shapes but no weights.

    Raises:
        OSError, ValueError: the backbone's config cannot be read, or peft cannot build the adapter on it.
    """
    given = {"revision": model.revision, "cache_dir": model.cache_dir}
    config = AutoConfig.from_pretrained(resolve_name(model.name), **{k: v for k, v in given.items() if v is not None})
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config)
    plain = lora.model_copy(update={"init_lora_weights": "default"})  # other inits would compute on the weights
    adapted = get_peft_model(base, lora_config(plain), low_cpu_mem_usage=True)
    return int(adapted.get_nb_trainable_parameters()[0])
