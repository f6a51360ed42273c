"""`loraft push`: uploads a run's adapter, or weights made of it, with a model card, to a repository on the hub.

What is uploaded is chosen by name, and holds no path of this machine: an adapter names a backbone that others have, and
`loraft.json` what `--run hf:owner/name` needs to load and check it.
"""

import hashlib
import json
import os
import shlex
import shutil
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from loraft.bundled import bundled_backbones
from loraft.config.names import show
from loraft.config.schema import Config
from loraft.delivery.output_folder import written_aside
from loraft.errors import LoraftError, RunError, first_line
from loraft.hub import answers_otherwise
from loraft.models import manifest
from loraft.models.manifest import Manifest
from loraft.runs.atomic_files import to_json
from loraft.runs.bundle import config_of
from loraft.runs.from_hub import ADAPTER_FILES, WEIGHTS_FILES
from loraft.runs.hashes import hashes_of
from loraft.runs.peft_folder import AGAIN, refuse_changed
from loraft.runs.records import SCHEMA_VERSION, as_json, read_object
from loraft.runs.run import MANIFEST_FILE, Bundle, Run
from loraft.runs.validation_scores import VALIDATION_FILE
from loraft.training.model_card import CARD_FILE, WHAT, model_card
from loraft.training.results import RunResult

EXPORTED_FILES = ("*.onnx", "*.onnx.data")
# Keys under which loraft, peft and transformers may keep the path of a folder or file, also one of the root like /data.
PATHS = {
    "name", "source", "task", "split", "train_split", "validation_split", "test_split", "extra_train", "from_run",
    "run", "backbone", "_name_or_path", "name_or_path", "base_model_name_or_path",
}  # fmt: skip
# Keys of texts, which may look like a path and stay.
TEXTS = {
    "labels", "label_words", "label_names", "system", "template", "few_shot_template", "example_template", "yes_word",
    "answer_prefix", "no_word", "chat_template", "template_kwargs", "text_column", "label_column", "sheet", "content",
}  # fmt: skip
FORGOTTEN = {"cache_dir": None, "relative_path": None, "folder": "runs"}  # of use on this machine only
Content = Path | bytes  # of a file: as it is, or as it is rewritten


class HubError(LoraftError):
    """The hub refuses an upload, or cannot be reached."""


@dataclass(frozen=True)
class Pushed:
    """What was uploaded, or written by a dry run.

    Attributes:
        repository: owner/name.
        url: of the commit; of a dry run the folder.
        revision: the commit; None of a dry run.
        files: size of each in bytes.
        left_out: names in the folder that stay here.
        kind: of what was uploaded, a key of `model_card.WHAT`.
        deleted: names of weights, config and tokenizer files of an earlier push, which are no longer there.
    """

    repository: str
    url: str
    revision: str | None
    files: dict[str, int]
    left_out: tuple[str, ...]
    kind: str
    deleted: tuple[str, ...] = ()


def push(
    run: Run,
    repository: str,
    *,
    folder: Path | None = None,
    private: bool = False,
    branch: str | None = None,
    dry_run: Path | None = None,
) -> Pushed:
    """Uploads in one commit, or writes the same files to a folder.

    Args:
        run: finished; its results are on the card.
        repository: owner/name; made if it is not there.
        folder: of `loraft merge` or `loraft export` of that run, in place of its adapter.
        private: make the repository private; one that is public already is refused.
        branch: made if it is not there; by default the main one.
        dry_run: a new folder; nothing is sent.

    Raises:
        RunError: the run is not finished, the folder is not made of it, or its backbone is known here only.
        HubError: the hub refuses, or cannot be reached.
    """
    _refuse_name(repository)
    given, left_out, kind = contents(run, repository, folder)
    sizes = {name: one.stat().st_size if isinstance(one, Path) else len(one) for name, one in given.items()}
    if dry_run is not None:
        _write(given, dry_run)
        return Pushed(repository, str(dry_run), None, sizes, left_out, kind)
    url, revision, deleted = _upload(given, repository, private, branch, f"Upload of {run.name} by loraft")
    return Pushed(repository, url, revision, sizes, left_out, kind, deleted)


def contents(run: Run, repository: str, folder: Path | None = None) -> tuple[dict[str, Content], tuple[str, ...], str]:
    """Returns the files of an upload by name, the card among them, the names of what stays here, and the kind.

    Raises:
        RunError: as in `push`.
    """
    if isinstance(run, Bundle):
        raise RunError(
            f"{run.path}: holds no results for the model card (got a bundle); name the run that it was made of, with"
            f" --folder {shlex.quote(str(run.path))}"
        )
    config, result, place = config_of(run), RunResult.of(run), folder or run.adapter
    kind, bundle = "adapter", manifest.read(run.adapter)
    if folder is None:
        _refuse_local_backbone(run, config)
    else:
        kind, bundle = _made_of(bundle, run, folder)
    refuse_changed(place)
    known = ADAPTER_FILES if kind == "adapter" else (*WEIGHTS_FILES, *EXPORTED_FILES, VALIDATION_FILE)
    found = sorted(path for path in place.iterdir() if path.name not in (CARD_FILE, MANIFEST_FILE))
    named = {path.name for path in found} if bundle.files is None else bundle.files.keys()  # None: earlier versions
    taken = [path for path in found if path.name in named and any(fnmatch(path.name, one) for one in known)]
    for path in taken:
        if path.is_symlink() or not path.is_file():
            raise RunError(f"{path}: is no plain file; put a copy of the file in its place")
    given: dict[str, Content] = {path.name: _shared_file(path) for path in taken}
    hashes = bundle.files or hashes_of(place, given)
    files = {name: hashlib.sha256(one).hexdigest() if isinstance(one, bytes) else hashes[name]
             for name, one in given.items()}  # fmt: skip
    shared = _shared({**as_json(bundle), "config": config.model_dump()})
    content = {"schema_version": SCHEMA_VERSION, **shared, "files": files}
    given[MANIFEST_FILE] = (to_json(content) + "\n").encode()
    made = shared["merged"] if kind != "adapter" else None
    given[CARD_FILE] = model_card(run, config, result, repository, kind, made=made).encode()
    return dict(sorted(given.items())), tuple(path.name for path in found if path not in taken), kind


def _made_of(own: Manifest, run: Run, folder: Path) -> tuple[str, Manifest]:
    """Returns what a folder holds, a key of `model_card.WHAT`, and its `loraft.json`.

    Raises:
        RunError: it is no folder of a merge or an export, or of another run.
    """
    if not (folder / MANIFEST_FILE).is_file():
        raise RunError(f"--folder: has no {MANIFEST_FILE} (got {folder}); loraft merge and loraft export write it")
    bundle = manifest.read(folder)
    kind = bundle.merged.get("to", "merged") if bundle.merged is not None else None
    if kind not in WHAT:
        raise RunError(f"--folder: is of no merge or export (got {folder}); without it, the run's adapter is pushed")
    compared = {
        "labels": (own.labels, bundle.labels),
        "data": (own.data.fingerprints, bundle.data.fingerprints),
        "weights of the adapter": [manifest.adapter_hash(place, one) for place, one in
                                   ((run.adapter, own), (folder, bundle))],
    }  # fmt: skip
    differing = [what for what, (one, other) in compared.items() if one != other]
    if differing:
        raise RunError(f"--folder: was not made of {run.path} (got {folder}, with other {differing[0]}); name its run")
    return str(kind), bundle


def _refuse_local_backbone(run: Run, config: Config) -> None:
    name = os.path.expanduser(config.model.name)
    bundled = {os.path.realpath(path) for path in bundled_backbones().values()}
    if os.path.realpath(name) not in bundled and (os.path.isabs(name) or name.startswith(".")):
        raise RunError(
            f"{run.path}: its backbone is a folder or file of this machine, which others do not have (got {name});"
            f" merge it: loraft merge {shlex.quote(str(run.path))}, and push the merged folder with --folder"
        )


def _shared_file(path: Path) -> Content:
    """Returns a file as it is; JSON that names a folder of this machine is written anew."""
    if path.suffix != ".json" or path.name in ("tokenizer.json", "vocab.json"):
        return path
    content = read_object(path, AGAIN)
    shared = _shared(content)
    return path if shared == content else json.dumps(shared, indent=2, ensure_ascii=False, sort_keys=True).encode()


def _shared(value: Any, key: str = "") -> Any:
    """Returns JSON content with the last part in place of each path of this machine; texts and hashes stay."""
    if isinstance(value, dict) and key not in TEXTS:
        return {name: FORGOTTEN[name] if name in FORGOTTEN else _shared(item, name) for name, item in value.items()}
    if not isinstance(value, str) or key in TEXTS or not os.path.isabs(os.path.expanduser(value)):
        return value
    return os.path.basename(value.rstrip("/")) if key in PATHS or value.strip("/").count("/") else value


def _write(given: dict[str, Content], folder: Path) -> None:
    """Writes the files beside a new folder, and then renames it.

    Raises:
        RunError: something is there already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"--dry-run: exists already (got {folder}); name a new folder")
    with written_aside(folder) as beside:
        for name, one in given.items():
            if isinstance(one, Path):
                shutil.copyfile(one, beside / name)
            else:
                (beside / name).write_bytes(one)


def _refuse_name(repository: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
        fits = repository.count("/") == 1
    except HFValidationError:
        fits = False
    if not fits:
        raise RunError(f"--to: is no name of a repository (got {show(repository)}); allowed: owner/name, no accents")


def _upload(
    given: dict[str, Content], repository: str, private: bool, branch: str | None, message: str
) -> tuple[str, str, tuple[str, ...]]:
    """Returns address and hash of the commit, and the names of the files of an earlier push that it deletes.

    `upload_folder` would make several commits of a large folder. An adapter beside merged weights would be applied
    twice, and old parts of weights be loaded with new ones.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise HubError("push: HF_HUB_OFFLINE is set; unset it, or write the files with --dry-run FOLDER")
    if get_token() is None:
        raise HubError("push: there is no token for the hub; log in with `hf auth login`, or set HF_TOKEN")
    api = HfApi()
    added = [CommitOperationAdd(name, one if isinstance(one, bytes) else str(one)) for name, one in given.items()]
    try:
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise HubError(
                f"{repository}: is there already and public (got --private); make it private in its settings, or name"
                " another one"
            )
        if branch is not None:
            api.create_branch(repository, branch=branch, exist_ok=True)
        ours = (*ADAPTER_FILES, *WEIGHTS_FILES, *EXPORTED_FILES)
        there = [name for name in api.list_repo_files(repository, revision=branch) if "/" not in name]
        old = tuple(name for name in there if name not in given and any(fnmatch(name, one) for one in ours))
        operations = [*added, *(CommitOperationDelete(name, is_folder=False) for name in old)]
        done = api.create_commit(repository, operations, commit_message=message, revision=branch)
    except HubError:
        raise
    except Exception as error:  # the hub's client and its transport have a dozen types
        raise HubError(f"{repository}: {_told(error)}") from error
    return str(done.commit_url), str(done.oid), old


def _told(error: Exception) -> str:
    """Returns what an error of the hub's client means, and what to do about it."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    if answers_otherwise(error):
        return f"{constants.ENDPOINT} answers otherwise than a hub does ({first_line(error)}); check HF_ENDPOINT"
    if isinstance(error, ValueError):  # of the card's metadata, or of its own checks
        return (
            f"the hub's client refuses ({' '.join(str(error).split())[:300]}); write with --dry-run and upload by hand"
        )
    if not isinstance(error, HfHubHTTPError):
        return f"the hub cannot be reached ({constants.ENDPOINT}: {first_line(error)}); check the network"
    status = error.response.status_code
    what, way = {
        401: ("the hub refuses the token", "log in again with `hf auth login`"),
        403: ("the token may not write there", "name a repository of your own, or use a token that may write"),
        404: ("the hub has no such repository or owner, or the token may not see it", "check the name"),
    }.get(status, ("the hub does not take it", "try again later"))
    return f"{what} (HTTP {status}); {way}"
