"""Load a backbone with the encoder of a task: bare, with the adapter of a finished run, or with another adapter."""

import copy
import warnings
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from loraft.config.schema import Config
from loraft.data.prompt import Task
from loraft.errors import BackboneError, Note, RunError
from loraft.models import manifest
from loraft.models.adapter import apply_adapter, load_adapter
from loraft.models.backbone import cast, check_architecture, fingerprint, load_backbone, load_tokenizer
from loraft.models.device import DTYPE_NAMES, pick_compute_dtype, pick_dtype
from loraft.models.encoder import Encoder
from loraft.models.lora_hooks import INITS
from loraft.models.positions import NO_LIMIT, check_positions, longest_prompt, positions_of_prompts
from loraft.models.source import is_gguf, located, same_backbone
from loraft.runs.peft_folder import read_peft_folder, refuse_changed
from loraft.runs.run import MANIFEST_FILE, Bundle, Run


def build(config: Config) -> tuple[Encoder, PreTrainedModel]:
    """Returns the encoder of the config's task and the backbone without adapter."""
    return build_encoder(config), load_backbone(config.model, config.quant)


def build_encoder(config: Config, *, whole: bool = False) -> Encoder:
    """Returns the encoder of the config's task for the backbone's tokenizer; loads no weights.

    With `whole` it shortens no sentence; else to `prompt.max_length` and the backbone's positions.

    Raises:
        BackboneError, ConfigError, DataError: as `Encoder`, or the backbone has too few positions.
    """
    if not is_gguf(config.model.name):  # of which transformers knows decoders only
        check_architecture(config.model)
    section, task, tokenizer = config.prompt, Task.from_config(config.prompt), load_tokenizer(config.model)

    def encoder(most: int) -> Encoder:
        return Encoder(tokenizer, task, date_string=section.date_string, max_length=most)

    answer = 0  # with longer ones, prompts may be longer
    if whole or positions_of_prompts(config, answer) < section.max_length:
        unlimited = encoder(NO_LIMIT)
        answer = unlimited.longest_answer
        check_positions(config, unlimited.shortest, answer)  # before `longest_prompt` tells how long prompts may be
        if whole:
            return unlimited
    return encoder(longest_prompt(config, answer))


def load_peft(folder: Path, config: Config) -> tuple[Encoder, PreTrainedModel]:
    """Returns the encoder of the config's task and the config's backbone with an adapter that may be made elsewhere.

    An adapter that a run made has its `loraft.json` beside it, and is checked against it.

    Raises:
        BackboneError: the backbone or the adapter cannot be loaded, or they do not fit.
        RunError: a run trained the adapter with another backbone or prompt.
    """
    own, made_by_a_run = read_peft_folder(folder).backbone, (folder / MANIFEST_FILE).exists()
    try:
        encoder, base = _checked(folder, config) if made_by_a_run else build(config)
    except BackboneError as error:
        if own is None or not same_backbone(own, config.model.name):
            raise
        raise BackboneError(
            f"{folder}: its backbone cannot be loaded (got {own}: {error}); name it by --model"
        ) from error
    if own is not None and not made_by_a_run and not same_backbone(own, config.model.name):
        text = f"{folder}: was trained with the backbone {own}, and is used with {config.model.name}"
        warnings.warn(Note(text), stacklevel=2)
    return encoder, apply_adapter(base, folder)


def load_run(
    run: Run, config: Config, *, switchable: bool = True, bases: dict[Any, PreTrainedModel] | None = None
) -> tuple[Encoder, PreTrainedModel]:
    """Returns the encoder and the backbone with the run's adapter, after checking that they belong together.

    On every machine the backbone's weights are rounded to the dtype of the training, and quantised from that. Then they
    are cast to the dtype that `config.model.dtype` and this machine give.

    Args:
        run: a finished run, or a bundle; merged weights need no adapter.
        config: its `model`, `quant` and `prompt` sections must be those that the adapter was trained with.
        switchable: returns a PeftModel, whose adapter can be switched off; otherwise the backbone itself with the
            adapter built in, which loads faster.
        bases: backbones of earlier calls, which runs of the same backbone share; a new one is added.

    Raises:
        RunError: the run is not finished, or the adapter was trained with another backbone or prompt.
        BackboneError: the backbone or the adapter cannot be loaded.
    """
    encoder, base = load_base(run, config, bases)
    if _is_merged(run):
        return encoder, base
    return encoder, (load_adapter if switchable else apply_adapter)(base, run.adapter)


def load_base(
    run: Run, config: Config, bases: dict[Any, PreTrainedModel] | None = None
) -> tuple[Encoder, PreTrainedModel]:
    """Returns what `load_run` does, and raises what it does, but the backbone is still without the adapter."""
    if not run.finished:
        raise RunError(f"{run.path}: the run is not finished (no {run.results_file}); {run.way_on}")
    if _is_merged(run):
        return _checked(run.path, config, bases)
    settings = read_peft_folder(run.adapter).settings  # a damaged one is told before the backbone is loaded
    if settings.get("init_lora_weights", True) not in INITS:
        bases = None  # it changes the backbone's weights
    return _checked(run.adapter, located(run.adapter, config, needed=True), bases)


def _is_merged(run: Run) -> bool:
    return isinstance(run, Bundle) and manifest.read(run.path).merged is not None


def _checked(
    adapter: Path, config: Config, bases: dict[Any, PreTrainedModel] | None = None
) -> tuple[Encoder, PreTrainedModel]:
    """Returns the encoder and the backbone of an adapter that has a `loraft.json`, checked, in this machine's dtype."""
    content = manifest.read(adapter)
    refuse_changed(adapter)
    manifest.check_code(content, adapter, config.model)
    for key, now in config.quant.model_dump(include={"method", "double_quant"}).items():
        then = content.backbone.quant.get(key, now)
        if then != now:
            way = f"--quant {then}" if key == "method" else f"--set quant.{key}={str(then).lower()}"
            raise RunError(f"{adapter}: was trained with quant.{key}={then} (got {now}); add {way}")
    same = (content.backbone.fingerprint, config.model.device, config.model.dtype, config.quant.model_dump_json())
    encoder, base = build_encoder(config), None if bases is None else bases.get(same)
    if base is not None:  # the key has the fingerprint of its weights, which may have been cast since
        manifest.check(content, adapter, encoder, None)
        return encoder, over_the_same_weights(base)
    base = _load_as_trained(config, content.backbone)
    manifest.check(content, adapter, encoder, base)
    dtype = pick_dtype(config.model, config.quant, base.device)
    if base.dtype != dtype:
        warnings.warn(
            f"the adapter was trained over {DTYPE_NAMES[base.dtype]} weights and is computed in {DTYPE_NAMES[dtype]}"
            " here (model.dtype); a label that was nearly tied can change",
            Note,
            stacklevel=2,
        )
        cast(base, dtype, pick_compute_dtype(config.model, config.quant, base.device))
    if bases is None:
        return encoder, base
    bases[same] = base
    return encoder, over_the_same_weights(base)


def over_the_same_weights(base: PreTrainedModel) -> PreTrainedModel:
    """Returns a model with modules of its own over the same weights in memory: an adapter on it leaves `base` as is."""
    weights: list[Any] = list(base.parameters())
    for module in base.modules():  # of 4-bit layers also the scales, and what `quantized_linear.keep_dense` keeps
        weights += [vars(module)[name] for name in ("quant_state", "kept_dense") if name in vars(module)]
    return copy.deepcopy(base, {id(weight): weight for weight in weights})


def _load_as_trained(config: Config, trained: manifest.BackboneIdentity) -> PreTrainedModel:
    """Returns the backbone with its weights in the dtype of the training.

    Earlier versions did not write that dtype; there it is the one that gives the fingerprint.
    """
    for dtype in [trained.dtype] if trained.dtype else [config.model.dtype, "bf16", "fp32"]:
        base = load_backbone(config.model.model_copy(update={"dtype": dtype}), config.quant)
        if fingerprint(base) == trained.fingerprint:
            break
    return base
