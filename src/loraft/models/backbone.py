"""The backbone: find and load its tokenizer and its weights, in full precision or NF4, and identify it by hashes."""

import hashlib
import re
from functools import lru_cache
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
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)
from transformers.utils import logging as transformers_logging

from loraft import distributed
from loraft.config.schema import ModelConfig, QuantConfig
from loraft.engine.quantized_linear import is_4bit, keep_dense, keeps_dense
from loraft.errors import BackboneError
from loraft.models import sharding, spreading
from loraft.models.causality import check_causal
from loraft.models.device import pick_device, pick_dtype
from loraft.models.own_code import refuse_kernels
from loraft.models.quantization import (
    cache_weights,
    check_nf4,
    check_share,
    keep_nf4_layout,
    nf4_config,
    no_compiler,
    warn_of_widths,
)
from loraft.models.source import loading, pretrained
from loraft.progress import Stage

transformers_logging.disable_progress_bar()  # transformers would draw one for each file of weights, at every start

SHOWN_KEYS = 3  # in a message, of each kind
CHUNK = 2**16  # words of 32 bits that `weights_hash` sums up; as 64-bit products they fit into a CPU's cache
CHUNKS_AT_ONCE = 64  # on an accelerator, where the products of one kernel then take 32 MiB
# Buffers that old checkpoints hold and that the architectures compute themselves now: masks and rotary frequencies.
OLD_BUFFERS = re.compile(r"(rotary_emb\.inv_freq|attn\.(masked_)?bias|attention\.(masked_)?bias)$")


def load_tokenizer(section: ModelConfig) -> PreTrainedTokenizerBase:
    """Returns the backbone's tokenizer; where it has no pad token, the end-of-sequence token becomes the pad token.

    Raises:
        BackboneError: it cannot be loaded, or is not there; transformers makes an empty one for some architectures.
    """
    name, where = pretrained(section)
    with loading(section.name):
        tokenizer = AutoTokenizer.from_pretrained(name, **where)
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise BackboneError(
            f"model.name: {section.name} has no tokenizer (got {len(tokenizer)} tokens, all of them special); put its"
            " tokenizer.json beside its config.json"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if "gguf_file" in where:  # messages name the file, not its folder
        tokenizer.name_or_path = section.name
    return tokenizer


def load_backbone(model: ModelConfig, quant: QuantConfig) -> PreTrainedModel:
    """Returns the frozen backbone in evaluation mode, on its device, in full precision or in NF4.

    Raises:
        BackboneError: it cannot be loaded or quantised as `quant` asks, its weights are not those of its architecture,
            or it is an adapter or an encoder.
    """
    device = pick_device(model.device)
    place = torch.device("cpu") if distributed.is_sharded() else device  # it may be too large for one device
    kwargs: dict[str, Any] = {"dtype": pick_dtype(model, quant, device), "device_map": {"": place}}
    if model.device_map == "auto":
        kwargs["device_map"] = spreading.device_map()
    kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # for `check_keys`, which refuses them
    name, where = pretrained(model)
    if "gguf_file" not in where and (Path(name) / "adapter_config.json").exists():
        raise BackboneError(
            f"model.name: {model.name} is an adapter, not a backbone; name the backbone it was trained with"
        )
    load_config(model)  # what it refuses must not reach transformers
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # `check_keys` says what transformers would report
    try:
        with loading(model.name), Stage(f"loading {model.label}"), sharding.without_accelerates_own():
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
        warn_of_widths(base)
        cache_weights(base, quant)
    base.requires_grad_(False)  # `from_pretrained` has put it into evaluation mode
    if hasattr(base.config, "rescale_every"):
        # In evaluation RWKV would divide some weights, but no adapter's, and quantise them again in another format.
        base.config.rescale_every = 0
    check_causal(model.name, base)
    spreading.refuse_offloaded(base)
    if distributed.is_sharded():
        sharding.shard(base, device)
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
        None,
        config=whole.config,
        state_dict=whole.state_dict(),
        trust_remote_code=False,
        **kwargs,
        quantization_config=settings,
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
            if keeps_dense(layer):
                keep_dense(layer)
    base.config.dtype = dtype


def load_config(section: ModelConfig) -> PreTrainedConfig:
    """Returns the backbone's own config.

    Raises:
        BackboneError: it cannot be read, or asks for a kernel of the hub, see `own_code.refuse_kernels`.
    """
    name, where = pretrained(section)
    with loading(section.name):
        if "gguf_file" not in where:
            refuse_kernels(section.name, PreTrainedConfig.get_config_dict(name, **where)[0])
        config: PreTrainedConfig = AutoConfig.from_pretrained(name, **where)
    return config


def check_architecture(section: ModelConfig) -> None:
    """Refuses encoders and encoder-decoders by their config, before a tokenizer or weights are loaded.

    transformers would load some of them as causal models; what it lists as a masked model is one, unless its config
    makes it a decoder.

    Raises:
        BackboneError: the config cannot be read, or is that of such a model.
    """
    config = load_config(section)
    kind = config.model_type
    remote = getattr(config, "auto_map", None) or {}
    causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or "AutoModelForCausalLM" in remote
    masked = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    if config.is_encoder_decoder or masked or not causal:
        raise BackboneError(
            f"model.name: {section.name} is no causal language model (got model_type {kind!r}); choose a decoder, such"
            " as Llama, Qwen or Gemma"
        )


def without_weights(section: ModelConfig) -> PreTrainedModel:
    """Returns the backbone on the meta device: its layers have shapes, but no weights.

    Raises:
        BackboneError: its config cannot be read, or is that of no causal language model.
    """
    check_architecture(section)
    config = load_config(section)
    with loading(section.name), torch.device("meta"):
        base: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=section.trust_remote_code)
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
        weight = sharding.whole(plain[name])
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        flat = weight.detach().flatten()
        digest.update(flat[:: max(1, flat.numel() // 64)].to("cpu").contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def weights_hash(base: PreTrainedModel) -> str:
    """Returns a hash of all weights, quantisation constants and buffers with their names, in hexadecimal.

    Equal hashes mean that two backbones without adapter are bit-identical, but for a chance of 2^-32 for accidental
    changes; one changed word is always seen. `fingerprint` reads a sample of the weights only. The weights are summed
    on their own device, and the sums of all tensors go to the CPU in one transfer.
    """
    digest = hashlib.sha256(f"adapter: {hasattr(base, 'peft_config')}".encode())
    sums: list[torch.Tensor] = []
    for name, value in sorted(_frozen_state(base).items()):
        is_tensor = isinstance(value, torch.Tensor)
        digest.update(f"{name} {(value.dtype, tuple(value.shape)) if is_tensor else value};".encode())
        sums += _word_sums(value.detach()) if is_tensor else []
    digest.update(torch.cat([some.to(base.device) for some in sums]).cpu().numpy().data)
    return digest.hexdigest()


def _frozen_state(base: PreTrainedModel) -> dict[str, Any]:
    """Weights and buffers by name, tied ones once, and all attributes of the quantisation of 4-bit weights.

    `state_dict` would copy a constant of every 4-bit layer to the CPU, and leaves some buffers out.
    """
    state: dict[str, Any] = {**dict(base.named_parameters()), **dict(base.named_buffers())}
    quantised = {name: vars(value.quant_state) for name, value in state.items() if hasattr(value, "quant_state")}
    for name, settings in quantised.items():
        nested = settings.get("state2")  # of the block scales, with double quantisation
        levels = {"quant_state": settings, "quant_state.state2": {} if nested is None else vars(nested)}
        for level, values in levels.items():
            state |= {f"{name}.{level}.{key}": value for key, value in values.items() if key != "state2"}
    return state


def _word_sums(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Returns for each `CHUNK` of 32-bit words the sum of word times random factor, modulo 2^64, as int64 vectors.

    Sums of different chunks agree with a probability of at most 2^-32 over the choice of the factors, which are odd, so
    that a single changed word always changes the sum. Nothing but a block of words is copied: on a CPU one chunk, which
    fits into its cache, on an accelerator many, since each takes three kernels.

    Source: MULTILINEAR in Lemire & Kaser 2014, "Strongly universal string hashing is fast", arXiv:1202.4961, section 3.
    """
    flat = tensor.contiguous().view(-1).view(torch.uint8)
    if flat.storage_offset() % 4:
        flat = flat.clone()  # a view that begins inside a word
    words = flat if flat.numel() % 4 else flat.view(torch.int32)  # odd sizes are read byte by byte
    factors = _factors(tensor.device)
    whole = words.numel() // CHUNK * CHUNK
    blocks = words[:whole].view(-1, CHUNK).split(1 if tensor.device.type == "cpu" else CHUNKS_AT_ONCE)
    rest = words[None, whole:]
    return [block.long().mul_(factors[: block.shape[1]]).sum(1) for block in (*blocks, rest) if block.numel()]


@lru_cache
def _factors(device: torch.device) -> torch.Tensor:
    """Returns `CHUNK` odd pseudo-random 64-bit numbers."""
    whole_range = torch.randint(-(2**63), 2**63 - 1, (CHUNK,), generator=torch.Generator().manual_seed(0))
    return (whole_range | 1).to(device)
