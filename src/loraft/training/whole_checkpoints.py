"""Checkpoints are complete or absent: hashes of their files, written last, and which one a training goes on from.

`loraft-checkpoint.json` in a checkpoint has the SHA-256 of each of its files. It is written when all others are: a
process that is killed before leaves a checkpoint without it. One whose files differ from it is damaged.
"""

import json
import os
import warnings
import zipfile
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path, PureWindowsPath
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.trainer_utils import rotate_checkpoints
from trl import SFTTrainer

from loraft.errors import NewerFileError, Note, RunError, listed
from loraft.runs.atomic_files import write_text
from loraft.runs.folders import delete
from loraft.runs.hashes import differing, hashes_of
from loraft.runs.records import read_object, write_record
from loraft.runs.run import Run

HASHES_FILE = "loraft-checkpoint.json"
STATE_FILE = "trainer_state.json"
WEIGHTS = ("adapter_config.json", "adapter_model.safetensors")
LISTED = 3  # files or checkpoints that a message names
SYNCED_UP_TO = 64 * 2**20  # bytes of a file that is forced to the disk at once; for larger ones that takes seconds


class CheckpointedTrainer(SFTTrainer):
    """SFTTrainer whose checkpoints are complete or absent, and can be moved to another folder."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Saves as upstream does, but deletes older checkpoints only when the new one is whole."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()  # each process writes its own random state
        if self.args.should_save:
            folder = Path(self.args.output_dir)
            checkpoint = folder / f"checkpoint-{self.state.global_step}"
            _forget_folder(checkpoint)
            write_hashes(checkpoint)
            rotate_checkpoints(str(folder), limit, self.state.best_model_checkpoint)

    def _load_best_model(self) -> None:
        """Loads the best checkpoint after the last step, as upstream does, but not silently none.

        Raises:
            RunError: it is missing or damaged.
        """
        best = Path(self.state.best_model_checkpoint)
        if (damage := damage_of(best, WEIGHTS)) is not None:
            left = listed((f"checkpoint-{step}" for step in _steps(best.parent)), LISTED)
            raise RunError(
                f"{best}: the best checkpoint cannot be loaded ({damage}); checkpoints that are left: {left};"
                f" {Run(best.parent.parent).how_to_begin_again}"
            )
        super()._load_best_model()


def newest_checkpoint(folder: Path, again: str, *, with_best: bool = True) -> Path | None:
    """The whole checkpoint of the latest step; None if none was saved. A warning names those that are passed over.

    A training from an earlier checkpoint ends with the same weights. So does one from the first step where the only
    checkpoint was left half-written by a killed process.

    Args:
        folder: of the checkpoints.
        again: what to do where no checkpoint can be resumed, for the message.
        with_best: the training ends with the weights of its best checkpoint, which must be whole too.

    Raises:
        RunError: there are checkpoints, but none can be resumed.
    """
    found, damaged, lost = None, [], False
    for step in _steps(folder):
        checkpoint = folder / f"checkpoint-{step}"
        half_written = not (checkpoint / HASHES_FILE).exists() and not _reads(checkpoint / STATE_FILE)
        damage = "was not written to its end" if half_written else _obstacle(checkpoint, with_best=with_best)
        if damage is None:
            found = checkpoint
            break
        lost = lost or not half_written
        damaged.append(f"{checkpoint.name}: {damage}")
    told = listed(damaged, LISTED, "; ")  # each may list files
    if lost and found is None:
        raise RunError(f"{folder}: no checkpoint can be resumed ({told}); {again}")
    if damaged:
        start = f"from {found.name}" if found is not None else "at the first step"
        warnings.warn(f"{folder}: passed over {told}; the training goes on {start}", stacklevel=1)
    if found is not None and not (found / HASHES_FILE).exists():
        warnings.warn(f"{found}: has no hashes, as those of earlier versions; its files are there", Note, stacklevel=1)
    return found


def delete_later(folder: Path, checkpoint: Path | None) -> None:
    """Deletes the checkpoints that `newest_checkpoint` passed over: the training comes to their steps again."""
    first = -1 if checkpoint is None else int(checkpoint.name.removeprefix("checkpoint-"))
    for step in _steps(folder):
        if step > first:
            delete(folder / f"checkpoint-{step}")  # which may be a file or a symlink


def write_hashes(folder: Path) -> None:
    """Writes the hashes of all files of a checkpoint, which marks it as complete: call it last."""
    names = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != HASHES_FILE and not path.name.startswith(".")
    ]
    for name in names:  # the checkpoint before it is deleted next, which a power cut must not turn into none
        with suppress(OSError), (folder / name).open("rb+") as file:
            if os.fstat(file.fileno()).st_size <= SYNCED_UP_TO:
                os.fsync(file.fileno())
    write_record(folder / HASHES_FILE, {"files": hashes_of(folder, names)})


def damage_of(folder: Path, needed: Collection[str], *, only: bool = True) -> str | None:
    """What is wrong with files of a checkpoint, in words; None if nothing is.

    Args:
        folder: the checkpoint.
        needed: names of the files that must be there.
        only: look at these files alone, not at all that have a hash.
    """
    try:
        hashes = _hashes(folder)
        if hashes is None:  # of an earlier version
            state = {name: "is damaged" for name in needed if (folder / name).exists() and not _reads(folder / name)}
        else:
            looked_at = {name: value for name, value in hashes.items() if name in needed or not only}
            state = {name: f"has no hash in {HASHES_FILE}" for name in needed if name not in hashes}
            state |= {name: f"is {how}" for name, how in differing(folder, looked_at).items()}
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError:
        return f"{HASHES_FILE} is damaged"
    state |= {name: "is missing" for name in needed if not (folder / name).is_file()}
    if not folder.is_dir():
        return "is missing"
    told = [f"{name} {how}" for name, how in sorted(state.items())]
    return listed(told, LISTED) if told else None


def _obstacle(checkpoint: Path, *, with_best: bool) -> str | None:
    """Why a training cannot go on from a checkpoint to the same result; None if it can."""
    # Each process wrote one; where others go on, they draw dropout anew. Hashes name all that there were.
    random = sorted(path.name for path in checkpoint.glob("rng_state*.pth")) or ["rng_state.pth"]
    needed = (*WEIGHTS, "optimizer.pt", "scheduler.pt", STATE_FILE, *random)
    if (damage := damage_of(checkpoint, needed, only=False)) is not None:
        return damage
    state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    try:
        state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]
        best = state["best_model_checkpoint"]
    except (KeyError, TypeError):
        return f"{STATE_FILE} is damaged"
    if with_best and best is not None:
        name = PureWindowsPath(best).name
        if (damage := damage_of(checkpoint.parent / name, WEIGHTS)) is not None:
            return f"the best one before it, {name}, {damage}" if damage == "is missing" else f"its best: {damage}"
    return None


def _hashes(folder: Path) -> dict[str, str] | None:
    """The hashes of a checkpoint's files; None if there are none.

    Raises:
        ValueError: they are damaged.
        NewerFileError: they are of a later version.
    """
    path = folder / HASHES_FILE
    if not path.exists():
        return None
    try:
        files = read_object(path, "").get("files")
    except NewerFileError:
        raise
    except (RunError, RecursionError):
        files = None
    if not isinstance(files, dict) or not all(isinstance(value, str) for value in files.values()):
        raise ValueError(path)
    return files


def _steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a folder, the latest first."""
    names = [path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*")]
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def _reads(path: Path) -> bool:
    """Whether a file of a checkpoint without hashes can be read to its end."""
    try:
        if path.suffix == ".json":
            return isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return bool(file.keys())
        with zipfile.ZipFile(path) as archive:  # the format of torch.save
            return archive.testzip() is None
    except (OSError, ValueError, RecursionError, SafetensorError, zipfile.BadZipFile):
        return False


def _forget_folder(checkpoint: Path) -> None:
    """Writes the best checkpoint's name where upstream put its path, which a renamed or copied run does not have."""
    path = checkpoint / STATE_FILE
    state = json.loads(path.read_text(encoding="utf-8"))
    if state["best_model_checkpoint"] is not None:
        state["best_model_checkpoint"] = Path(state["best_model_checkpoint"]).name
        write_text(path, json.dumps(state, indent=2, sort_keys=True) + "\n")
