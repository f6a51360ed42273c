"""What is read from a checkpoint, the best weights of a joint training, and the adapter that is saved at the end."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from peft import PeftConfig, PeftModel
from transformers import TrainerState

from loraft.models import manifest
from loraft.runs import validation_scores
from loraft.runs.records import read_object, record_from
from loraft.runs.run import Run
from loraft.runs.validation_scores import ValidationScores
from loraft.training.whole_checkpoints import write_hashes

BEFORE = ".before"  # suffix of the earlier best weights of an adapter while they are being replaced


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was saved, as its name says."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def finished_training(checkpoint: Path) -> TrainerState | None:
    """The trainer's state at a checkpoint after which no step was due: the last one, or an early stop; else None.

    The trainer itself would take one step too many from there.
    """
    path = checkpoint / "trainer_state.json"
    callbacks = json.loads(path.read_text(encoding="utf-8"))["stateful_callbacks"]
    if not callbacks["TrainerControl"]["args"]["should_training_stop"]:
        return None
    return TrainerState.load_from_json(str(path))


def load_best(model: PeftModel, checkpoint: Path, state: TrainerState) -> None:
    """Puts the adapter of the best checkpoint into the model, as the trainer does after its last step.

    Where none is noted as the best (`train.keep: last`), that of the checkpoint itself.
    """
    best = PureWindowsPath(state.best_model_checkpoint or checkpoint).name  # the run may come from another machine
    model.load_adapter(str(checkpoint.parent / best), model.active_adapter, is_trainable=True)


@dataclass(frozen=True)
class BestStep:
    """The step whose weights are kept: after which the adapter scored best on validation, or with keep=last the last.

    All is None where nothing was saved.

    Attributes:
        step: of the trainer.
        macro_f1: after that step, a fraction.
        score: `train.metric` after that step; None in files of earlier versions, where it is the macro F1.
    """

    step: int | None
    macro_f1: float | None
    score: float | None = None


def read_best(folder: Path) -> dict[str, BestStep]:
    """Returns where each adapter of a joint training scored best so far, by its name in peft.

    Raises:
        RunError: the file that says so is damaged.
    """
    for before in folder.glob(f"*{BEFORE}"):  # a process was killed between the two renames of `keep_best`
        if not before.with_suffix("").exists():
            before.rename(before.with_suffix(""))
    path = folder / "best.json"
    again = f"delete {folder.parent}, and the training begins again"
    found = read_object(path, again) if path.exists() else {}
    return {name: record_from(best, BestStep, path, again) for name, best in found.items()}


def keep_best(folder: Path, model: PeftModel, name: str, best: Mapping[str, BestStep]) -> None:
    """Writes an adapter's weights, and then what they reached; a process that is killed leaves the earlier ones."""
    beside, before = folder / f"{name}.tmp", folder / f"{name}{BEFORE}"
    for path in (beside, before):
        shutil.rmtree(path, ignore_errors=True)
    model.save_pretrained(str(beside), selected_adapters=[name])
    write_hashes(beside)
    if (folder / name).exists():
        (folder / name).rename(before)
    beside.rename(folder / name)
    text = folder / "best.json.tmp"
    text.write_text(json.dumps({key: vars(value) for key, value in best.items()}), encoding="utf-8")
    os.replace(text, folder / "best.json")
    shutil.rmtree(before, ignore_errors=True)


def best_weights(folder: Path, name: str) -> Path:
    """Returns the folder with the adapter_config.json of an adapter's best weights."""
    below = folder / name / name
    return below if below.is_dir() else folder / name


def save_adapter(
    run: Run, model: PeftModel, content: manifest.Manifest, scores: ValidationScores | None = None
) -> None:
    """Writes adapter and bundle beside the final place and renames, so that a half-written adapter never counts."""
    beside = run.adapter.with_name("adapter.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    model.save_pretrained(str(beside))
    (beside / "README.md").unlink(missing_ok=True)  # peft's empty card; the run's own follows when it is measured
    _sort_names(beside, model.peft_config[model.active_adapter])
    _forget_local_path(beside, model.get_base_model().config._name_or_path, content.backbone.name)
    if scores is not None:
        validation_scores.write(beside, scores)
    manifest.write(beside, content)
    shutil.rmtree(run.adapter, ignore_errors=True)
    os.replace(beside, run.adapter)


def _sort_names(adapter: Path, config: PeftConfig) -> None:
    """Sorts what peft writes in the order of a set, another one in each process: equal adapters, equal bytes."""
    path = adapter / "adapter_config.json"
    names = {key: sorted(value) for key, value in vars(config).items() if isinstance(value, set)}
    content = json.loads(path.read_text(encoding="utf-8")) | names
    path.write_text(json.dumps(content, indent=2, sort_keys=True), encoding="utf-8")


def _forget_local_path(adapter: Path, path: str, name: str) -> None:
    """Writes the backbone's name where peft put the folder it was loaded from, which other machines do not have."""
    if path in ("", name):
        return
    file = adapter / "adapter_config.json"
    text = file.read_text(encoding="utf-8")
    # JSON escapes backslashes and letters beyond ASCII: C:\\Users, m\u00f4-h\u00ecnh. Each spelling is replaced once:
    # the name of a GGUF file begins with the path of its folder.
    for old, new in {path: name, json.dumps(path)[1:-1]: json.dumps(name)[1:-1]}.items():
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")
