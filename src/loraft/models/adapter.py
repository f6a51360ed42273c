"""The backbone: tokenizer, base model, quantisation and the adapter on top of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from loraft.config.schema import LoraSection
from loraft.errors import BackboneError
from loraft.models.lora_hooks import attach
from loraft.models.quantization import no_compiler

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel


MOVING_INITS = ("pissa", "olora")  # they take weights out of the backbone into the adapter, and do so again on loading


def lora_config(section: LoraSection) -> "LoraConfig":
    """Returns peft's config of the adapter."""
    with no_compiler():
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
    with no_compiler():
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
    with no_compiler():
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


def adapter_in_fp32(model: torch.nn.Module) -> None:
    """Keeps the adapter's own weights in fp32."""
    # bf16 keeps eight bits: an update smaller than 0.4 % of a weight would be lost
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()


def remove_adapter(model: "PeftModel") -> PreTrainedModel:
    """Returns the bare backbone, frozen and in evaluation mode; the adapter's weights are dropped, not merged."""
    base: PreTrainedModel = model.unload()
    base.requires_grad_(False)
    base.eval()
    return base


def count_trainable(base: PreTrainedModel, section: LoraSection) -> int:
    """Returns how many weights an adapter on this backbone trains; the backbone may be without weights, and stays bare.

    Raises:
        ValueError: peft finds no such target modules.
    """
    plain = section.model_copy(update={"init_lora_weights": "default"})  # other inits would compute on the weights
    with no_compiler():
        from peft import get_peft_model

    adapted = get_peft_model(base, lora_config(plain), low_cpu_mem_usage=True)
    count = int(adapted.get_nb_trainable_parameters()[0])
    remove_adapter(adapted)
    return count


def add_adapters(base: PreTrainedModel, sections: Sequence[LoraSection], *, seed: int) -> "tuple[PeftModel, list[str]]":
    """Returns the backbone with all adapters on it, each initialised as alone, and their names in peft.

    Args:
        sections: of the adapters, the smaller ranks first.
    """
    model = add_adapter(base, sections[0], seed=seed)
    names = [model.active_adapter]
    for number, section in enumerate(sections[1:], start=2):
        torch.manual_seed(seed)
        model.add_adapter(f"adapter{number}", lora_config(section))
        names.append(f"adapter{number}")
    adapter_in_fp32(model)
    model.base_model.set_adapter(names)
    return model, names


def weights_of(model: "PeftModel", name: str) -> list[torch.nn.Parameter]:
    """Returns the weights of one adapter, in the model's order."""
    return [parameter for key, parameter in model.named_parameters() if f".{name}." in key and "lora_" in key]
