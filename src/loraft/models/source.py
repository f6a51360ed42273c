"""Find the files of a backbone by its name: a bundled one, a folder, a GGUF file, or a hub id."""

import importlib.util
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from loraft.bundled import bundled_backbones
from loraft.config.schema import Config, ModelConfig
from loraft.errors import BackboneError, first_line, listed
from loraft.hub import BACKBONE, ask
from loraft.models.own_code import needed, refuse_code_elsewhere
from loraft.runs.peft_folder import AGAIN
from loraft.runs.records import read_object
from loraft.runs.run import MANIFEST_FILE


def resolve_name(name: str) -> str:
    """Returns the folder of a bundled backbone, a local folder or GGUF file, or else the name as a hub id.

    A folder without config.json that holds exactly one GGUF file stands for that file.

    Raises:
        BackboneError: the folder holds no backbone, or the name is neither a bundled backbone nor a folder or GGUF file
            nor of the form owner/name.
    """
    bundled = bundled_backbones().get(name)
    if bundled is not None:
        return str(bundled)
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        files = sorted(file.name for file in path.iterdir() if is_gguf(file.name))
        if (path / "config.json").is_file():
            return str(path)
        if len(files) == 1:
            return str(path / files[0])
        if files:
            raise BackboneError(f"model.name: {name} holds several GGUF files ({listed(files)}); name one of them")
        raise BackboneError(
            f"model.name: {name} has no config.json and no GGUF file; name a folder saved by save_pretrained"
        )
    if path.is_file():
        if not is_gguf(name):
            raise BackboneError(f"model.name: {name} is a file, but no GGUF file; name its folder")
        return str(path)
    if name.startswith((".", "/", "~")) or is_gguf(name) or name.count("/") != 1:
        known = ", ".join(bundled_backbones())
        raise BackboneError(
            f"model.name: no such backbone (got {name!r}); bundled: {known}; else a folder, a GGUF file, or owner/name "
            "on the hub"
        )
    return name


def on_this_machine(section: ModelConfig) -> Path | None:
    """Returns the folder or GGUF file of a backbone, also in the hub's cache; None where it is not here. Asks no hub.

    Raises:
        BackboneError: as `resolve_name`.
    """
    from huggingface_hub import try_to_load_from_cache

    name = resolve_name(section.name)
    if os.path.exists(name):
        return Path(name)
    kept = try_to_load_from_cache(name, BACKBONE.file, cache_dir=section.cache_dir, revision=section.revision)
    return Path(kept).parent if isinstance(kept, str) else None


def same_backbone(one: str, other: str) -> bool:
    """Says whether two names mean one backbone here: a bundled name or relative path is also its absolute path."""
    places = []
    for name in (one, other):
        with suppress(BackboneError):  # a folder that is not here is equal to its own name only
            name = resolve_name(name)
        places.append(os.path.realpath(name) if os.path.exists(name) else name)
    return places[0] == places[1]


def is_gguf(name: str) -> bool:
    """Says whether this is the name of a GGUF file; some write it in capitals."""
    return name.lower().endswith(".gguf")


def recorded(adapter: Path) -> dict[str, Any]:
    """Returns what an adapter's `loraft.json` says about its backbone (`manifest.BackboneIdentity`); empty without one.

    Raises:
        RunError: the file is damaged, or was written by a later version.
    """
    path = adapter / MANIFEST_FILE
    found = read_object(path, AGAIN).get("backbone") if path.exists() else None
    return found if isinstance(found, dict) else {}


def located(adapter: Path, config: Config, *, needed: bool = False) -> Config:
    """Returns the config of a run's adapter with the present path of its backbone, where that was moved with the run.

    Raises:
        BackboneError: it is needed, and is a folder or file that is in none of the places where it may be.
    """
    name = config.model.name
    if name in bundled_backbones() or os.path.exists(os.path.expanduser(name)):
        return config
    relatives = (recorded(adapter).get("relative_path"), name)
    looked = [os.path.normpath(adapter.absolute() / ".." / relative) for relative in relatives if relative]
    for path in filter(os.path.exists, looked):
        return config.model_copy(update={"model": config.model.model_copy(update={"name": path})})
    if needed and (os.path.isabs(name) or name.startswith(".")):
        places = " and ".join(dict.fromkeys([name, *looked]))
        run = adapter.parent
        beside = f"--adapter {shlex.quote(str(adapter))} --config {shlex.quote(str(run / 'config.yaml'))}"
        raise BackboneError(
            f"{run}: its backbone is not there any more (looked for {places}); put it back there, or name its present "
            f"folder to predict or eval: {beside} --model FOLDER"
        )
    return config


def pretrained(section: ModelConfig) -> tuple[str, dict[str, Any]]:
    """Returns the name and the keyword arguments with which transformers' `from_pretrained` finds this backbone.

    `trust_remote_code` is always among them: without it transformers asks on stdin.

    Raises:
        BackboneError: there is no such backbone, or it is a GGUF file and the package that reads these is missing.
    """
    found = resolve_name(section.name)
    if is_gguf(found):
        if importlib.util.find_spec("gguf") is None:
            raise BackboneError(f"model.name: {section.name} is a GGUF file, which needs a package: pip install gguf")
        from transformers import modeling_gguf_pytorch_utils as reader

        reader.tqdm = lambda tensors, **_: tensors  # its progress bar has no other switch
        return str(Path(found).parent), {"gguf_file": Path(found).name, "trust_remote_code": False}
    given = {"revision": section.revision, "cache_dir": section.cache_dir}
    where: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if not os.path.exists(found):
        where |= _from_hub(found, section)
    if section.trust_remote_code:
        refuse_code_elsewhere(section.name, found, where)
    return found, {**where, "trust_remote_code": section.trust_remote_code}


def _from_hub(name: str, section: ModelConfig) -> dict[str, Any]:
    """Returns what tells transformers to ask the hub no more than it has to, which retries for minutes.

    Raises:
        BackboneError: the hub refuses the backbone, or cannot be reached and the cache has no such backbone.
    """
    from huggingface_hub import try_to_load_from_cache

    answer = ask(BACKBONE, name, section.revision)
    if not answer.problem:
        return {}
    if not answer.reached:
        place: dict[str, Any] = {"cache_dir": section.cache_dir, "revision": section.revision}
        if isinstance(try_to_load_from_cache(name, BACKBONE.file, **place), str):
            return {"local_files_only": True}
    raise BackboneError(
        f"model.name: cannot load {name}, which is no folder here: {answer.problem}; {answer.way}, name a folder, or"
        " start with the bundled one: --model loraft-vi-tiny"
    )


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Turns any error inside the block into one that names the backbone; damaged files raise errors of many types.

    Raises:
        BackboneError: something in the block failed.
    """
    try:
        yield
    except BackboneError:
        raise
    except Exception as error:
        raise BackboneError(
            needed(name, error) or _pickled(name, error) or _cannot_load(name, first_line(error))
        ) from error


def _pickled(name: str, error: Exception) -> str | None:
    """The message for a pickle with more than tensors in it, for which torch advises to run it; else None."""
    if "weights_only" not in str(error):
        return None
    what = "a file of its weights is a pickle that holds more than weights, and is not read"
    return f"model.name: cannot load {name}: {what}; get the backbone's model.safetensors"


def _cannot_load(name: str, first: str) -> str:
    if os.path.exists(name):
        return (
            f"model.name: cannot load {name}: {first}; the files are damaged or of an architecture that transformers "
            "does not know; get them again, or start with the bundled backbone: --model loraft-vi-tiny"
        )
    return f"model.name: cannot load {name}: {first}; check the name, or start with: --model loraft-vi-tiny"
