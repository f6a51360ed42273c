"""The backbone: tokenizer, base model, quantisation and the adapter on top of it."""

import hashlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from loraft import processes
from loraft.bundled import bundled_backbones
from loraft.config import LoraSection, ModelConfig, QuantConfig
from loraft.errors import BackboneError
from loraft.plain_lora import attach

if TYPE_CHECKING:  # peft and bitsandbytes take their time to import: only the functions below that need them do
    from peft import LoraConfig, PeftModel

MOVING_INITS = ("pissa", "olora")  # they take weights out of the backbone into the adapter, and do so again on loading

transformers_logging.disable_progress_bar()  # a bar for each file of weights, at every start


def resolve_name(name: str) -> str:
    """Returns the folder of a bundled backbone, an existing local folder as it is, or the hub id.

    Raises:
        BackboneError: if the name looks like a path but no folder with a config.json is there.
    """
    bundled = bundled_backbones().get(name)
    if bundled is not None:
        return str(bundled)
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").exists():
            raise BackboneError(f"model.name: {name} holds no config.json; name a folder saved by save_pretrained")
        return str(path)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        known = ", ".join(bundled_backbones())
        raise BackboneError(
            f"model.name: no such backbone (got {name!r}); bundled: {known}; else a folder, or owner/name on the hub"
        )
    return name


def pick_device(wanted: str) -> torch.device:
    """Returns the device; `auto` takes the first accelerator there is, else the CPU."""
    if wanted == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        if found is None:
            return torch.device("cpu")
        return torch.device(found.type, processes.place()) if processes.several() else found
    available = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "xpu": torch.xpu.is_available}
    if wanted in available and not available[wanted]():
        raise BackboneError(f"model.device: {wanted} is not available here; use auto or cpu")
    return (
        torch.device(wanted, processes.place()) if wanted in available and processes.several() else torch.device(wanted)
    )


def has_bf16(device: torch.device) -> bool:
    """Says whether the device multiplies bf16 matrices natively."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        if platform.machine() in ("arm64", "aarch64"):
            return False
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return device.type == "xpu"


def load_tokenizer(section: ModelConfig) -> PreTrainedTokenizerBase:
    """Returns the backbone's tokenizer; the pad token is the end of sequence where there is none, as upstream."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(resolve_name(section.name), **_hub(section))
    except Exception as error:  # a damaged file fails in as many ways as there are formats
        raise BackboneError(_cannot_load(section.name, error)) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_backbone(model: ModelConfig, quant: QuantConfig) -> PreTrainedModel:
    """Returns the frozen base model in evaluation mode, on its device, in full precision or in NF4.

    Raises:
        BackboneError: if it cannot be loaded, or if it is an adapter already, or if quantisation did not take.
    """
    device = pick_device(model.device)
    bf16 = model.dtype == "bf16" or (model.dtype == "auto" and has_bf16(device))
    kwargs: dict[str, Any] = {"dtype": torch.bfloat16 if bf16 else torch.float32, "device_map": {"": device}}
    if quant.method == "nf4":
        # transformers' own defaults are fp4, no double quantisation and fp32 compute
        kwargs["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=quant.double_quant,
            bnb_4bit_compute_dtype=torch.bfloat16 if quant.compute_dtype == "bf16" else torch.float32,
        )
        if quant.compute_dtype == "bf16" and model.dtype == "auto":
            kwargs["dtype"] = torch.bfloat16
    folder = Path(resolve_name(model.name))
    if (folder / "adapter_config.json").exists():
        raise BackboneError(
            f"model.name: {model.name} is an adapter, not a backbone; name the base model it was trained on"
        )
    try:
        if quant.method == "nf4":
            with _no_compiler():
                import bitsandbytes  # noqa: F401  # before transformers does it
        base = AutoModelForCausalLM.from_pretrained(resolve_name(model.name), **_hub(model), **kwargs)
    except Exception as error:  # a damaged file fails in as many ways as there are formats
        raise BackboneError(_cannot_load(model.name, error)) from error
    if quant.method == "nf4":
        _keep_nf4_layout(base)
        check_nf4(base, double_quant=quant.double_quant)
    base.requires_grad_(False)
    base.eval()
    return base


def _keep_nf4_layout(model: torch.nn.Module) -> None:
    """Stops bitsandbytes from repacking CPU weights at the first evaluation.

    Its repacking rounds the block scales to bf16 and drops the double quantisation, so the frozen backbone would
    change between the first evaluation and the training after it, and scores with it.
    """
    import bitsandbytes as bnb

    for layer in model.modules():
        if isinstance(layer, bnb.nn.Linear4bit):
            layer.support_avx512bf16_for_cpu = False


def check_nf4(model: torch.nn.Module, *, double_quant: bool) -> int:
    """Returns how many linear layers are stored in NF4.

    Raises:
        BackboneError: if none is, or if one is of another type or not nested although `double_quant` asks for it.
    """
    import bitsandbytes as bnb

    layers = {name: m for name, m in model.named_modules() if isinstance(m, bnb.nn.Linear4bit)}
    if not layers:
        raise BackboneError("quant.method: nf4 quantised no layer of this backbone; use --quant none")
    for name, layer in layers.items():
        state = layer.weight.quant_state
        if state is None or state.quant_type != "nf4" or bool(state.nested) != double_quant:
            raise BackboneError(f"quant: {name} is not stored as asked (nf4, double_quant={double_quant})")
    return len(layers)


@contextmanager
def _no_compiler() -> Iterator[None]:
    """Keeps torch.compile from doing anything meanwhile, by the switch that torch has for it.

    bitsandbytes, which peft imports too, hands helpers to it while it is imported, and torch imports its whole
    compiler for that. They stand in where a device or a shape has no kernel, and then run as they are written.
    """
    switch = "TORCHDYNAMO_DISABLE"
    before = os.environ.get(switch)
    os.environ[switch] = "1"
    try:
        yield
    finally:
        os.environ.pop(switch)
        if before is not None:
            os.environ[switch] = before


def lora_config(section: LoraSection) -> "LoraConfig":
    """Returns peft's config of the adapter."""
    with _no_compiler():
        from peft import LoraConfig, TaskType

    targets = section.target_modules
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=section.r,
        lora_alpha=section.alpha,
        lora_dropout=section.lora_dropout,
        target_modules=None if targets == "default" else targets,
        use_rslora=section.use_rslora,
        use_dora=section.use_dora,
        init_lora_weights=True if section.init_lora_weights == "default" else section.init_lora_weights,
    )


def add_adapter(base: PreTrainedModel, section: LoraSection, *, seed: int) -> "PeftModel":
    """Returns the backbone with a fresh adapter, initialised from the seed, its weights in fp32.

    Raises:
        BackboneError: if the backbone carries an adapter already (peft would stack a second one and only warn), or if
            the init reads full-precision weights that a quantised backbone does not have.
    """
    with _no_compiler():
        from peft import get_peft_model

    if hasattr(base, "peft_config"):
        raise BackboneError("adapter: the backbone carries an adapter already; load a fresh backbone for each adapter")
    if section.init_lora_weights in MOVING_INITS and getattr(base, "is_loaded_in_4bit", False):
        raise BackboneError(
            f"lora.init_lora_weights: {section.init_lora_weights} changes the backbone's own weights, which nf4 has "
            "rounded already; use default, gaussian or orthogonal with --quant nf4, or --quant none"
        )
    torch.manual_seed(seed)
    try:
        model = get_peft_model(base, lora_config(section))
    except ValueError as error:
        raise BackboneError(f"lora: peft cannot build the adapter ({error}); check lora.target_modules") from error
    adapter_in_fp32(model)
    return model


def load_adapter(base: PreTrainedModel, folder: Path) -> "PeftModel":
    """Returns the backbone with the saved adapter, frozen, in evaluation mode."""
    with _no_compiler():
        from peft import PeftModel

    with _readable(folder):
        model = PeftModel.from_pretrained(base, str(folder))
    adapter_in_fp32(model)
    model.eval()
    return model


def apply_adapter(base: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Returns the backbone answering with the saved adapter, for good; what `load_adapter` returns gives the same bits.

    A plain adapter needs no peft, whose import is a noticeable part of a cold start.
    """
    with _readable(folder):
        plain = attach(base, folder)
    return base if plain else load_adapter(base, folder)


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    if not (folder / "adapter_config.json").exists():
        raise BackboneError(f"{folder}: holds no adapter_config.json; name a finished run (loraft train makes one)")
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:  # ValueError: no JSON, or of another backbone
        first = str(error).strip().partition("\n")[0]
        raise BackboneError(f"{folder}: the adapter cannot be read ({first}); train again with --force") from error


def parameter_counts(model: "PeftModel") -> dict[str, int]:
    """Returns trainable and all parameters as peft prints them (a 4-bit weight counts as the weights it packs)."""
    trainable, total = model.get_nb_trainable_parameters()
    return {"trainable": trainable, "all": total}


def fingerprint(model: PreTrainedModel) -> str:
    """Returns a hash that tells two backbones apart: the shape and 64 evenly spaced values of every weight.

    An adapter on top does not count; the same weights in another quantisation or dtype are another backbone.
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


def adapter_in_fp32(model: torch.nn.Module) -> None:
    """Keeps the adapter's own weights in fp32."""
    # bf16 keeps eight bits: an update smaller than 0.4 % of a weight would be lost
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()


def _hub(section: ModelConfig) -> dict[str, Any]:
    kwargs: dict[str, Any] = {}
    if section.revision is not None:
        kwargs["revision"] = section.revision
    if section.cache_dir is not None:
        kwargs["cache_dir"] = section.cache_dir
    return kwargs


def _cannot_load(name: str, error: Exception) -> str:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") == "1" else ""
    return (
        f"model.name: cannot load {name}{offline}: {first}; check the name, log in with `hf auth login` where the "
        "model is gated, or start with the bundled one: --model loraft-vi-tiny"
    )
