"""Runs on the hub: `hf:owner/name[@revision]` is downloaded into the hub's cache and used like a folder.

Only files that a bundle is read from are downloaded: weights as safetensors or GGUF, JSON and text. They are checked as
those of any bundle: hashes of the files, fingerprint of the backbone, prompt and labels.
"""

import re
import sys
import warnings
from pathlib import Path

from loraft.config.names import show
from loraft.errors import Note, RunError, first_line
from loraft.hub import Kind, answers_otherwise, ask

HUB = "hf:"
HUB_RUN = Kind("run", "what follows @", "model", "loraft.json")
ADAPTER_FILES = (HUB_RUN.file, "adapter_config.json", "adapter_model.safetensors", "validation_scores.json")
WEIGHTS_FILES = (
    "*.gguf", "config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json",
    "tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
    "*.model", "chat_template.jinja",
)  # fmt: skip


def short_name(run: str) -> str:
    """The name of a run by its path, or by its reference on the hub: without owner and revision."""
    return Path(run.partition("@")[0] if run.startswith(HUB) else run).name


def fetched(reference: str) -> Path:
    """The folder in the hub's cache with the files of a run; what was downloaded before is there without a network.

    Args:
        reference: `hf:owner/name`, or with the branch, tag or commit after `@`.

    Raises:
        RunError: it is no such reference, the hub refuses it, or it can neither be reached nor is it in the cache; or
            the repository holds no `loraft.json`.
    """
    found = re.fullmatch(rf"{HUB}([\w.-]+/[\w.-]+)(?:@(\S+))?", reference, re.ASCII)
    if found is None:
        raise RunError(f"{show(reference)}: is no run on the hub; allowed: hf:owner/name or hf:owner/name@revision")
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    answer = ask(HUB_RUN, found[1], found[2])
    if answer.problem and answer.reached:
        raise RunError(f"{reference}: cannot be loaded: {answer.problem}; {answer.way}")
    patterns = [*ADAPTER_FILES, *WEIGHTS_FILES]
    cached = not answer.reached
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        folder = snapshot_download(found[1], revision=found[2], allow_patterns=patterns, local_files_only=cached)
    except Exception as error:  # the hub's client and its transport have a dozen types
        why = (answer.problem, answer.way) if cached else (first_line(error), "run the same command again")
        if answers_otherwise(error):
            why = (f"{constants.ENDPOINT} answers otherwise than a hub does ({why[0]})", "check HF_ENDPOINT")
        raise RunError(f"{reference}: cannot be loaded: {'; '.join(why)}") from error
    if not (Path(folder) / HUB_RUN.file).is_file():
        raise RunError(f"{reference}: holds no {HUB_RUN.file}, so it was not pushed by loraft; give --adapter FOLDER")
    where = "in the cache" if cached else "on the hub"
    warnings.warn(f"{reference} is commit {Path(folder).name} {where}", Note, stacklevel=3)
    return Path(folder)
