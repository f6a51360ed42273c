"""A folder with a LoRA adapter in peft's format, made by a run or elsewhere: its files, and the backbone it names.

Weights are read from safetensors only: `adapter_model.bin` is a pickle, and loading one can run code.
"""

import math
import shlex
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraft.config.names import show
from loraft.errors import BackboneError, Note, RunError, listed
from loraft.runs.hashes import differing
from loraft.runs.records import from_json, read_object, read_text
from loraft.runs.run import MANIFEST_FILE, Run

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
MOST_RANK = 2**20
AGAIN = "train again with --force, or copy or push the folder again"  # what mends a damaged adapter
# Kinds of LoRA whose layers read more than their own input: the tokens before it, other adapters, random numbers.
NOT_SCORED = ("alora_invocation_tokens", "arrow_config", "monteclora_config", "layer_replication")
MEGATRON = {
    "megatron_config": (None, {}),
    "megatron_core": (None, "megatron.core"),
}  # peft imports what the second names
PICKLE = "adapter_model.bin"
CONVERT = (
    "import torch, safetensors.torch as s; w = torch.load({old!r}, 'cpu', weights_only=True); "
    "s.save_file({{k: t.contiguous() for k, t in w.items()}}, {new!r})"
)


@dataclass(frozen=True)
class PeftFolder:
    """An adapter's folder; `backbone` and `revision` are what its config names, None where it does not.

    Attributes:
        settings: the content of adapter_config.json.
    """

    settings: dict[str, Any]

    @property
    def backbone(self) -> str | None:
        """The name or folder of the backbone that the adapter was trained with."""
        return self.settings.get("base_model_name_or_path") or None

    @property
    def revision(self) -> str | None:
        """The backbone's revision on the hub."""
        return self.settings.get("revision") or None


def refuse_changed(path: Path) -> None:
    """Refuses an adapter or merged model whose files are not those that its bundle names; tells if it names none.

    Raises:
        RunError: a file is missing or changed, or `loraft.json` is damaged or of a later version.
    """
    content = read_object(path / MANIFEST_FILE, AGAIN)
    files, merged = content.get("files"), content.get("merged") is not None
    if files is None:
        warnings.warn(
            f"{path}: {MANIFEST_FILE} holds no hashes, as those of earlier versions, so changed files are not noticed",
            Note,
            stacklevel=2,
        )
        return
    needed = set() if merged else {CONFIG_FILE, WEIGHTS_FILE}  # a GGUF file is a merged model by itself
    what, way = ("merged model", "merge again, or copy the folder again") if merged else ("adapter", AGAIN)
    if not isinstance(files, dict) or not files or not needed <= files.keys():
        raise RunError(f"{path / MANIFEST_FILE}: files must hold the hashes of the {what} (got {show(files)}); {way}")
    if changed := differing(path, files):
        told = listed(f"{name}: {state}" for name, state in changed.items())
        raise RunError(f"{path}: is not the {what} that its {MANIFEST_FILE} names (got {told}); {way}")


def read_peft_folder(path: Path) -> PeftFolder:
    """Returns what a folder's adapter_config.json says; reads no weights and asks no hub.

    Raises:
        BackboneError: there is no such folder, a file is missing or damaged, or it is another kind of adapter than LoRA
            for a causal language model.
    """
    if not path.is_dir():
        if path == Run(path.parent).adapter and Run(path.parent).config_path.is_file():
            raise BackboneError(f"{path}: the run's adapter is missing; {AGAIN}")
        raise BackboneError(f"{path}: no such folder; name the folder of a PEFT adapter, downloaded already")
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (path / name).is_file():
            way = "name a finished run, or the folder of a PEFT adapter"
            if (path / MANIFEST_FILE).is_file():
                way = AGAIN
            elif (path / PICKLE).is_file():
                code = CONVERT.format(old=str(path / PICKLE), new=str(path / WEIGHTS_FILE))
                way = f"{PICKLE} is a pickle, which is never read; convert it: python -c {shlex.quote(code)}"
            raise BackboneError(f"{path}: has no {name}; {way}")
    try:
        settings = from_json(read_text(path / CONFIG_FILE, AGAIN), path / CONFIG_FILE, AGAIN)
    except RunError as error:  # it need not be a run's
        raise BackboneError(str(error)) from None
    if not isinstance(settings, dict) or not isinstance(settings.get("peft_type"), str):
        raise BackboneError(f"{path / CONFIG_FILE}: names no peft_type (got {show(settings)}); {AGAIN}")
    kinds = {"peft_type": ("LORA",), "task_type": ("CAUSAL_LM", None)}
    for key, allowed in kinds.items():
        if settings.get(key) not in allowed:
            raise BackboneError(f"{path}: {key} cannot be used here (got {settings[key]}); allowed: {allowed[0]}")
    for key, harmless in MEGATRON.items():
        if settings.get(key) not in harmless:
            raise BackboneError(
                f"{path}: {key} in {CONFIG_FILE} makes peft import a package (got {show(settings[key])}); allowed: LoRA"
                " without it"
            )
    for key in NOT_SCORED:
        if settings.get(key):
            raise BackboneError(
                f"{path}: {key} is set, a kind of LoRA that cannot be used here; allowed: LoRA without it"
            )
    for key in ("base_model_name_or_path", "revision"):
        if not isinstance(settings.get(key), str | None):
            raise BackboneError(f"{path}: {key} in {CONFIG_FILE} is no text (got {show(settings[key])}); {AGAIN}")
    alpha = settings.get("lora_alpha", 1)
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha < math.inf:
        raise BackboneError(f"{path}: lora_alpha in {CONFIG_FILE} is no number above 0 (got {show(alpha)}); {AGAIN}")
    rank, targets = settings.get("r", 8), settings.get("target_modules")
    if not isinstance(rank, int) or isinstance(rank, bool) or not 0 < rank <= MOST_RANK:
        raise BackboneError(f"{path}: r in {CONFIG_FILE} is no rank (got {show(rank)}); allowed: 1 to {MOST_RANK:,}")
    if not isinstance(targets, str | list | None):
        raise BackboneError(f"{path}: target_modules in {CONFIG_FILE} are no names (got {show(targets)}); {AGAIN}")
    return PeftFolder(settings)
