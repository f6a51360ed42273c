"""LoRA adapters on a backbone, by peft: make, load and remove them, and count their weights.

Functions import peft inside: its import takes seconds, and evaluating a plain adapter does without it.

All trained weights are fp32, also on a bf16 backbone: low-rank matrices by peft, copies of whole modules
(`lora.modules_to_save`) here. bf16 has eight significant bits: a training step that changes a weight by less than 0.4 %
would be rounded away.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from loraft.config.schema import LoraSection
from loraft.errors import BackboneError, listed
from loraft.models.adapter_files import check_weights, errors_named, in_one_line, refuse_shapes
from loraft.models.adapter_targets import check_targets, refuse_endless, special_linears
from loraft.models.lora_hooks import attach
from loraft.models.quantization import decoder_matrices, no_compiler, quantised_share
from loraft.runs.peft_folder import AGAIN, CONFIG_FILE, read_peft_folder
from loraft.runs.run import MANIFEST_FILE

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

# These initialisations move a part of the backbone's weights into the adapter, when it is made and when it is loaded.
MOVING_INITS = ("pissa", "olora")
# peft makes these weights in the dtype of the backbone's weights; those of nf4 are integers.
UNQUANTISED_INITS = (*MOVING_INITS, "orthogonal")

# peft 0.21 refuses these modules in these architectures (`tuners_utils._check_lora_target_modules_mamba`): their
# fused kernels read the weights past an adapter.
MAMBA_TYPES = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
REFUSED_IN_MAMBA = ("out_proj", "conv1d")


def lora_config(section: LoraSection, base: PreTrainedModel | None = None) -> "LoraConfig":
    """Returns peft's config of the adapter; over the backbone, all-linear leaves out what peft refuses there."""
    with no_compiler():
        from peft import LoraConfig, TaskType

    targets = section.target_modules
    refused: list[str] = []
    if base is not None and targets == "all-linear":
        refused = sorted({name.rpartition(".")[2] for name in special_linears(base)})
        refused += REFUSED_IN_MAMBA if base.config.model_type in MAMBA_TYPES else ()
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=section.r,
        lora_alpha=section.alpha,
        lora_dropout=section.lora_dropout,
        target_modules=None if targets == "default" else targets,
        exclude_modules=refused or None,
        modules_to_save=section.modules_to_save or None,
        target_parameters=section.target_parameters or None,
        use_rslora=section.use_rslora,
        use_dora=section.use_dora,
        init_lora_weights=True if section.init_lora_weights == "default" else section.init_lora_weights,
    )


def add_adapter(base: PreTrainedModel, section: LoraSection, *, seed: int, empty: bool = False) -> "PeftModel":
    """Returns the backbone with a fresh adapter, initialised from the seed, its weights in fp32.

    Args:
        base: without adapter.
        section: of the config.
        seed: of the initialisation.
        empty: leave the weights on the meta device, but for `MOVING_INITS`; `PeftModel.load_adapter(...,
            low_cpu_mem_usage=True)` is to replace them.

    Raises:
        BackboneError: the backbone has an adapter already (peft would add a second one and only warn), or the
            initialisation does not work on quantised weights, or the backbone has not all that the section names, or
            peft refuses the settings.
    """
    with no_compiler():
        from peft import get_peft_model

    if hasattr(base, "peft_config"):
        raise BackboneError("adapter: the backbone has an adapter already; load a fresh backbone for each adapter")
    if section.init_lora_weights in UNQUANTISED_INITS and getattr(base, "is_loaded_in_4bit", False):
        raise BackboneError(
            f"lora.init_lora_weights: {section.init_lora_weights} does not work on weights that are quantised; use "
            "default or gaussian with --quant nf4, or --quant none"
        )
    check_targets(base, section)
    if section.init_lora_weights == "orthogonal" and base.dtype != torch.float32:
        warnings.warn(
            "lora.init_lora_weights: orthogonal matrices are rounded to the 16 bits of the backbone's weights, so that "
            "the adapter changes the scores before its first step; with model.dtype=fp32 it does not",
            stacklevel=2,
        )
    moving = section.init_lora_weights in MOVING_INITS
    torch.manual_seed(seed)
    try:
        with _no_wrong_warning():
            model = get_peft_model(base, lora_config(section, base), low_cpu_mem_usage=empty and not moving)
    except ValueError as error:
        raise BackboneError(
            f"lora: peft cannot build the adapter ({in_one_line(error)}); check lora.target_modules, lora.r and "
            "lora.init_lora_weights"
        ) from error
    _make_copies_fp32(model)
    _save_without_the_hub(model)
    return model


def _save_without_the_hub(model: "PeftModel") -> None:
    """Makes the model save without its frozen embeddings, unless they are adapted, as peft does by itself.

    peft would ask the hub at every save of every adapter whether the vocabulary was resized, which never happens here.
    """
    from peft.utils.other import EMBEDDING_LAYER_NAMES

    targets = model.peft_config[model.active_adapter].target_modules
    if not isinstance(targets, str) and not set(EMBEDDING_LAYER_NAMES) & set(targets or ()):
        vars(model)["save_pretrained"] = partial(model.save_pretrained, save_embedding_layers=False)


def add_adapters(base: PreTrainedModel, sections: Sequence[LoraSection], *, seed: int) -> "tuple[PeftModel, list[str]]":
    """Returns the backbone with several active adapters, each initialised as if it were alone, and their peft names.

    Args:
        base: without adapter.
        sections: of the adapters, in ascending order of rank.
        seed: of every initialisation.
    """
    model = add_adapter(base, sections[0], seed=seed)
    names = [model.active_adapter]
    for number, section in enumerate(sections[1:], start=2):
        torch.manual_seed(seed)
        with _no_wrong_warning():
            model.add_adapter(f"adapter{number}", lora_config(section, base))
        names.append(f"adapter{number}")
    model.base_model.set_adapter(names)
    return model, names


def load_adapter(base: PreTrainedModel, folder: Path) -> "PeftModel":
    """Returns the backbone with the saved adapter, frozen, in evaluation mode; it may be any LoRA that peft wrote.

    peft only warns of keys that are missing, and ignores those that belong nowhere; both are errors here.

    Raises:
        BackboneError: the folder has no adapter that can be read and belongs to this backbone.
    """
    settings = read_peft_folder(folder).settings
    with no_compiler():
        from peft import LoraConfig, PeftModelForCausalLM
        from peft.utils import get_peft_model_state_dict
    unknown = [key for key, value in settings.items() if value and key not in LoraConfig.__dataclass_fields__]
    if unknown:
        raise BackboneError(
            f"{folder}: this version of peft does not know {listed(unknown)}; install the one that made the adapter "
            f"(got {settings.get('peft_version', 'no peft_version')})"
        )
    saved, place = check_weights(folder), str(folder.absolute())  # peft takes a relative path for a hub id
    _refuse_endless(base, folder, settings)
    with errors_named(folder, "cannot be read", AGAIN):
        config = LoraConfig.from_pretrained(place)
    # The adapter of a run was checked against its backbone, so that only damage is left.
    way = AGAIN if (folder / MANIFEST_FILE).is_file() else "name its backbone by --model, or copy the folder again"
    with errors_named(folder, "does not fit the backbone", way), _no_wrong_warning():
        config.inference_mode = True
        model = PeftModelForCausalLM(base, config)
        _make_copies_fp32(model)
        # Biases and copies of modules; for low-rank matrices `load_adapter` says what is missing.
        wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
        missing = sorted(key for key in wanted.keys() - saved.keys() if ".lora_" not in key)
        unexpected: list[str] = []
        if not missing:
            mapping = getattr(base, "_checkpoint_conversion_mapping", {})  # as `PeftModel.from_pretrained` does
            try:
                missing, unexpected = model.load_adapter(place, model.active_adapter, key_mapping=mapping)
            except RuntimeError:
                refuse_shapes(folder, saved, wanted)
                raise
    for what, keys in (("misses", missing), ("has no place for", unexpected)):
        if keys:
            raise BackboneError(f"{folder}: the adapter does not fit the backbone, which {what} {listed(keys)}; {way}")
    return model


def apply_adapter(base: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Returns the backbone with the saved adapter, which cannot be removed; same scores to the bit as `load_adapter`.

    A plain LoRA adapter is added by hooks (see `lora_hooks`), which saves the import of peft; any other one by peft.

    Raises:
        BackboneError: as in `load_adapter`.
    """
    _refuse_endless(base, folder, read_peft_folder(folder).settings)
    check_weights(folder)
    with errors_named(folder, "cannot be read", AGAIN):
        plain = attach(base, folder)
    return base if plain else load_adapter(base, folder)


def _refuse_endless(base: PreTrainedModel, folder: Path, settings: Mapping[str, Any]) -> None:
    refuse_endless(f"{folder / CONFIG_FILE}: ", settings, [name for name, _ in base.named_modules() if name])


def remove_adapter(model: "PeftModel") -> PreTrainedModel:
    """Returns the backbone without adapters, frozen, in evaluation mode; their weights are dropped, not merged."""
    for parent, name, wrapper in _wrappers(model):
        setattr(parent, name, wrapper.original_module)  # `unload` would leave the trained copy there
    base: PreTrainedModel = model.unload()  # frozen: peft trains the adapters' weights only
    base.eval()
    return base


def weights_of(model: "PeftModel", name: str) -> list[torch.nn.Parameter]:
    """Returns the weights of the adapter with that peft name, in the model's order."""
    return [parameter for key, parameter in model.named_parameters() if f".{name}." in key and "lora_" in key]


def parameter_counts(model: "PeftModel") -> tuple[int, int]:
    """Returns the numbers of trainable and of all weights, counted as peft does: 4-bit weights one by one."""
    trainable, total = model.get_nb_trainable_parameters()
    return trainable, total


def coverage(model: "PeftModel") -> list[str]:
    """Returns lines that say what is quantised and what is adapted; none for a plain backbone without experts.

    Experts are stacked matrices, not linear layers: nf4 leaves them out, and for gpt-oss `all-linear` does, too.
    """
    from peft.tuners.lora.layer import LoraLayer, ParamWrapper

    base = model.get_base_model()
    counts = decoder_matrices(base)  # names with peft's own parts in them
    # Copies of whole modules and the originals that they stand for, such as the head, are not the layers' matrices.
    extra = ("lora_", ".modules_to_save.", ".original_module.")
    frozen = {name: count for name, count in counts.items() if not any(part in name for part in extra)}
    total = sum(frozen.values())
    # Names do not tell: peft wraps the whole module of experts, also where it adapts one of two stacked matrices.
    layers = [layer for layer in base.modules() if isinstance(layer, LoraLayer)]
    ids = {id(one.get_param() if isinstance(one, ParamWrapper) else one.get_base_layer().weight) for one in layers}
    adapted = {name for name, weight in base.named_parameters() if id(weight) in ids}
    lines = []
    if getattr(base, "is_loaded_in_4bit", False):
        lines.append(f"nf4: {quantised_share(base, frozen):.0%} of the weights in the layers are stored in 4 bits")
    experts = {name: count for name, count in frozen.items() if "experts" in name and not name.endswith("bias")}
    if not experts.keys() <= adapted:
        share = sum(count for name, count in frozen.items() if name in adapted) / total
        of_experts = sum(count for name, count in experts.items() if name in adapted) / sum(experts.values())
        lines.append(f"the adapter covers {share:.0%} of the weights in the layers, {of_experts:.0%} of the experts'")
    return lines


def count_trainable(base: PreTrainedModel, section: LoraSection) -> int:
    """Returns the number of weights that an adapter on this backbone would train; the backbone stays without adapter.

    Args:
        base: may be on the meta device, see `backbone.without_weights`.
        section: of the adapter.

    Raises:
        ValueError: peft finds no such target modules.
    """
    plain = section.model_copy(update={"init_lora_weights": "default"})  # other inits would compute on the weights
    with no_compiler():
        from peft import get_peft_model

    with _no_wrong_warning():
        adapted = get_peft_model(base, lora_config(plain, base), low_cpu_mem_usage=True)
    count = int(adapted.get_nb_trainable_parameters()[0])
    remove_adapter(adapted)
    return count


def _wrappers(model: "PeftModel") -> list[tuple[torch.nn.Module, str, Any]]:
    """Parent, name and wrapper of each module that the adapter trains whole."""
    from peft.utils.other import AuxiliaryTrainingWrapper

    return [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, AuxiliaryTrainingWrapper)
    ]


def _make_copies_fp32(model: "PeftModel") -> None:
    """Gives copies of whole modules fp32 weights, and forward methods that take and return the backbone's dtype."""
    for _, _, wrapper in _wrappers(model):
        for copy in getattr(wrapper, "modules_to_save", {}).values():
            # The frozen layer's dtype counts: a tied copy shares its weight with one that is in fp32 already.
            for layer, frozen in zip(copy.modules(), wrapper.original_module.modules(), strict=True):
                own = next(frozen.parameters(recurse=False), None)
                if own is not None and own.dtype != torch.float32:
                    layer.forward = _in_fp32(layer.forward, own.dtype)
                    layer.float()


def _in_fp32(forward: Callable[..., torch.Tensor], dtype: torch.dtype) -> Callable[..., torch.Tensor]:
    """Returns a forward method that computes in fp32 and rounds to the dtype of its input; of token ids, to `dtype`."""

    def rounded(x: torch.Tensor) -> torch.Tensor:
        return forward(x.float()).to(x.dtype) if x.is_floating_point() else forward(x).to(dtype)

    return rounded


@contextmanager
def _no_wrong_warning() -> Iterator[None]:
    """Silences peft 0.21's warning that it ignored a rank which it gave Mixtral's fused experts itself, and uses."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", r"The following (rank|alpha)_pattern keys .*\.gate_up_proj'\]", RuntimeWarning
        )
        yield
