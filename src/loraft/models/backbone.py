"""The backbone: find and load its tokenizer and its weights, in full precision or NF4, and identify it by hashes."""

import hashlib
import re
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GgufConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from loraft.config.schema import ModelConfig, QuantConfig
from loraft.engine import prefix_attention
from loraft.engine.quantized_linear import is_4bit
from loraft.errors import BackboneError, first_line
from loraft.models.device import pick_device, pick_dtype
from loraft.models.quantization import check_nf4, check_share, keep_nf4_layout, nf4_config, no_compiler
from loraft.models.source import loading, pretrained

transformers_logging.disable_progress_bar()  # transformers would draw one for each file of weights, at every start

SHOWN_KEYS = 3  # in a message, of each kind
# A causal model's largest change of an earlier logit, as a share of the largest logit: experts that get another number
# of tokens round in another way. Encoders change by 0.1 and more.
ROUNDING = {torch.float32: 1e-4}
ROUNDING_BELOW_FP32 = 5e-2
# Buffers that old checkpoints hold and that the architectures compute themselves now: masks and rotary frequencies.
OLD_BUFFERS = re.compile(r"(rotary_emb\.inv_freq|attn\.(masked_)?bias|attention\.(masked_)?bias)$")


def load_tokenizer(section: ModelConfig) -> PreTrainedTokenizerBase:
    """Returns the backbone's tokenizer; where it has no pad token, the end-of-sequence token becomes the pad token.

    Raises:
        BackboneError: it cannot be loaded.
    """
    name, where = pretrained(section)
    with loading(section.name):
        tokenizer = AutoTokenizer.from_pretrained(name, **where)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_backbone(model: ModelConfig, quant: QuantConfig) -> PreTrainedModel:
    """Returns the frozen backbone in evaluation mode, on its device, in full precision or in NF4.

    Raises:
        BackboneError: it cannot be loaded or quantised as `quant` asks, its weights are not those of its architecture,
            or it is an adapter or an encoder.
    """
    device = pick_device(model.device)
    kwargs: dict[str, Any] = {"dtype": pick_dtype(model, quant, device), "device_map": {"": device}}
    kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # for `check_keys`, which refuses them
    name, where = pretrained(model)
    if "gguf_file" not in where and (Path(name) / "adapter_config.json").exists():
        raise BackboneError(
            f"model.name: {model.name} is an adapter, not a backbone; name the backbone it was trained with"
        )
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # `check_keys` says what transformers would report
    try:
        with loading(model.name):
            if quant.method == "nf4":
                with no_compiler():
                    import bitsandbytes  # noqa: F401  # here, or transformers would import it with the compiler on
            base, info = _load(name, where, kwargs, nf4_config(model, quant, device) if quant.method == "nf4" else None)
    finally:
        transformers_logging.set_verbosity(verbosity)
    check_keys(model.name, info)
    if quant.method == "nf4":
        keep_nf4_layout(base)
        check_nf4(base, double_quant=quant.double_quant)
        check_share(base, allow_partial=quant.allow_partial)
    base.requires_grad_(False)  # `from_pretrained` has put it into evaluation mode
    check_causal(model.name, base)
    return base


def _load(
    name: str, where: dict[str, Any], kwargs: dict[str, Any], settings: BitsAndBytesConfig | None
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Returns the backbone, quantised by these settings if there are any, and transformers' loading info.

    transformers takes one quantisation config, and a GGUF file needs its own. So the file is dequantised in the CPU's
    memory first, and its weights are quantised from there.
    """
    if "gguf_file" not in where:
        base, info = AutoModelForCausalLM.from_pretrained(name, **where, **kwargs, quantization_config=settings)
        return base, info
    whole_kwargs = {**kwargs, "device_map": {"": "cpu"} if settings else kwargs["device_map"]}
    whole, info = AutoModelForCausalLM.from_pretrained(
        name, **where, **whole_kwargs, quantization_config=GgufConfig(dequantize=True)
    )
    if settings is None:
        return whole, info
    base, more = type(whole).from_pretrained(
        None, config=whole.config, state_dict=whole.state_dict(), **kwargs, quantization_config=settings
    )
    base.name_or_path = base.config.name_or_path = name
    return base, {kind: [*info[kind], *more[kind]] for kind in info}


def check_keys(name: str, info: dict[str, Any]) -> None:
    """Checks that a checkpoint holds the weights of its architecture, all and no others; tied weights count once.

    transformers would give missing weights random values, and leave others out.

    Args:
        name: of the backbone, for the message.
        info: what `from_pretrained` returns as its loading info.

    Raises:
        BackboneError: it does not; the message counts the weights and names the first few.
    """
    problems = {
        "missing": sorted(info["missing_keys"]),
        "of another shape": sorted(key for key, *_ in info["mismatched_keys"]),
        "unexpected": sorted(key for key in info["unexpected_keys"] if not OLD_BUFFERS.search(key)),
    }
    said = [
        f"{len(keys)} {what} ({', '.join(keys[:SHOWN_KEYS])}{', ...' if len(keys) > SHOWN_KEYS else ''})"
        for what, keys in problems.items()
        if keys
    ]
    if said:
        raise BackboneError(
            f"model.name: the weights of {name} do not fit its architecture: {'; '.join(said)}; get the whole "
            "checkpoint again, and one of a causal language model"
        )


@torch.inference_mode()
def check_causal(name: str, base: PreTrainedModel) -> None:
    """Checks that a token does not see later ones: transformers loads encoders such as BERT as causal models, too.

    Runs two tokens, twice. Architectures that `prefix_attention` knows are causal.

    Args:
        name: of the backbone, for the message.
        base: in evaluation mode.

    Raises:
        BackboneError: another second token changes the logits of the first one, or the backbone cannot run.
    """
    if prefix_attention.supports(base):
        return
    size = base.get_input_embeddings().weight.shape[0]
    rows = [torch.tensor([[size // 2, last]], device=base.device) for last in (size // 3, size // 4)]
    try:
        one_V, other_V = (base(input_ids=row).logits[0, 0].float() for row in rows)
    except Exception as error:  # an architecture may want other inputs, and say so in any way
        raise BackboneError(
            f"model.name: {name} cannot run two tokens ({type(base).__name__}: {first_line(error)}); try --set "
            "model.dtype=fp32, or choose a causal language model"
        ) from error
    if float((one_V - other_V).abs().max() / one_V.abs().max()) > ROUNDING.get(base.dtype, ROUNDING_BELOW_FP32):
        raise BackboneError(
            f"model.name: {name} is no causal language model: its tokens see later ones (got {type(base).__name__}); "
            "choose a decoder, such as Llama, Qwen or Gemma"
        )


def cast(base: PreTrainedModel, dtype: torch.dtype, compute_dtype: torch.dtype) -> None:
    """Rounds the weights that are not quantised to a dtype, in place, and makes 4-bit layers dequantise to it.

    Products of 4-bit layers are then computed in `compute_dtype`.

    Buffers, such as the frequencies of rotary embeddings, and weights that transformers keeps in fp32 stay as they are.
    """
    before = base.dtype
    for parameter in base.parameters():
        if parameter.dtype == before:
            parameter.data = parameter.data.to(dtype)
    for layer in base.modules():
        if is_4bit(layer):
            layer.weight.quant_state.dtype, layer.compute_dtype = dtype, compute_dtype
    base.config.dtype = dtype


def load_config(section: ModelConfig) -> PreTrainedConfig:
    """Returns the backbone's own config.

    Raises:
        BackboneError: it cannot be read.
    """
    name, where = pretrained(section)
    with loading(section.name):
        config: PreTrainedConfig = AutoConfig.from_pretrained(name, **where)
    return config


def without_weights(section: ModelConfig) -> PreTrainedModel:
    """Returns the backbone on the meta device: its layers have shapes, but no weights.

    Raises:
        BackboneError: its config cannot be read.
    """
    config = load_config(section)
    with torch.device("meta"):
        base: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return base


def fingerprint(model: PreTrainedModel) -> str:
    """Returns a hash that identifies a backbone: of name, shape, dtype and 64 or more spread values of every weight.

    An adapter on the backbone does not change it. Another quantisation or dtype of the same weights does.
    """
    digest = hashlib.sha256()
    plain = {
        name.removeprefix("base_model.model.").replace(".base_layer", ""): p for name, p in model.named_parameters()
    }
    for name in sorted(name for name in plain if "lora_" not in name):
        weight = plain[name]
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        flat = weight.detach().flatten()
        digest.update(flat[:: max(1, flat.numel() // 64)].to("cpu").contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def weights_hash(base: PreTrainedModel) -> str:
    """Returns the SHA-256 of all weights, quantisation constants and buffers with their names, in hexadecimal.

    Equal hashes mean that two backbones without adapter are bit-identical. `fingerprint` is faster and reads a sample
    of the weights only.
    """
    digest = hashlib.sha256(f"adapter: {hasattr(base, 'peft_config')}".encode())
    tensors = {**base.state_dict(), **dict(base.named_buffers())}
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        digest.update(flat.cpu().numpy().data)
    return digest.hexdigest()
