"""Which trials of a sweep can be trained in one pass, and that pass: from their configs to reports and best weights.

    runs/<sweep>/joint-<id>/  members.json  log-<number>.jsonl  checkpoints/  best/  joint.json

The folder is there from the start of a pass until all its trials are ordinary runs. A pass that was interrupted goes on
from it; one whose training is over is not trained again for the trials that it was interrupted in concluding.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from loraft.config.schema import Config
from loraft.engine.collator import Row
from loraft.models.adapter import (
    MOVING_INITS,
    add_adapters,
    count_trainable,
    parameter_counts,
    remove_adapter,
    weights_of,
)
from loraft.models.encoder import Encoder
from loraft.runs.files import write_json, write_text
from loraft.runs.folders import Joint
from loraft.runs.run import Run
from loraft.studies.sweep.grid import Trial
from loraft.studies.sweep.shared_backbone import Workbench
from loraft.training import memory
from loraft.training.callbacks import ProgressCallback, SaveOnInterrupt, Spent
from loraft.training.checkpoints import best_weights, finished_training, newest_checkpoint, read_best, step_of
from loraft.training.dataset import Material, prepare
from loraft.training.joint_trainer import JointTrainer
from loraft.training.memory import most_adapters, packed_size
from loraft.training.trainer import build_trainer

IDLE_STEP = 2.5e10  # operations of a CPU step (4 a weight and token) that are mostly overhead; see docs/log.md
PREFIX, MEMBERS = "joint-", "members.json"
OWN = {  # what may differ between the trials of one pass
    "lora": ("r", "lora_alpha", "alpha_per_rank", "use_rslora", "init_lora_weights"),
    "train": ("learning_rate",),
}


def obstacle(config: Config) -> str | None:
    """Why a trial has to be trained alone, None if it can be trained together with others."""
    if config.lora.use_dora:
        return "DoRA"
    if config.lora.init_lora_weights in MOVING_INITS:
        return f"{config.lora.init_lora_weights} moves weights out of the backbone"
    if config.train.early_stopping_patience is not None:
        return "early stopping"
    return None


def passes(trials: Sequence[Trial]) -> list[list[Trial]]:
    """The trials that can be trained together, two or more, by pass; the smaller ranks first."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        if obstacle(trial.config) is None:
            groups.setdefault(_common(trial.config), []).append(trial)
    return [sorted(group, key=lambda t: t.config.lora.r) for group in groups.values() if len(group) > 1]


def wins(base: PreTrainedModel, rows: Sequence[Row], batch: int) -> bool:
    """Whether one pass for all is expected to be faster: where a step alone leaves the device idle between products."""
    if base.device.type != "cpu":
        return True
    tokens, _ = packed_size(rows, batch)
    return 4 * base.num_parameters() * tokens <= IDLE_STEP


def train_what_can(
    waiting: Sequence[Trial],
    folder: Path,
    bench: Workbench,
    *,
    forced: bool,
    quiet: bool,
) -> None:
    """Trains in one pass what can be; what cannot, or fails there, is left to be trained by itself.

    Args:
        waiting: the trials that are no runs yet.
        folder: of the sweep.
        bench: what the trials share; it is told each decision.
        forced: also where no time is won.
    """
    for group in passes(waiting):
        left = [trial for trial in group if fitted(folder, trial) is None]
        if len(left) < 2:
            continue
        config = left[0].config
        try:
            encoder, base = bench.built(config)
            data = bench.splits(config)
            material = prepare(config, encoder, data["train"], data["validation"])
            if not (forced or wins(base, material.rows, config.train.per_device_train_batch_size)):
                bench.tell("one adapter after the other: here one pass for all is hardly faster (--joint on)")
                continue
            bench.tell(f"{len(left)} adapters in one pass: {', '.join(trial.name for trial in left)}")
            train_jointly(left, folder, encoder, base, material, quiet=quiet)
        except Exception as error:  # one that diverges must not take the others with it
            bench.tell(f"the pass failed ({type(error).__name__}: {error}); one adapter after the other")
    for trial in waiting:
        if forced and (reason := obstacle(trial.config)) is not None:
            bench.tell(f"{trial.name} is trained by itself: {reason}")


def train_jointly(
    trials: Sequence[Trial],
    folder: Path,
    encoder: Encoder,
    base: PreTrainedModel,
    material: Material,
    *,
    quiet: bool,
) -> None:
    """Trains the trials in as few passes as memory allows; the backbone is bare again afterwards.

    Each pass leaves the reports of its trials in its folder, as `fitting.fit` gives them, with `joint` (`adapters` of
    the pass and `seconds` of the whole of it; a trial's own `seconds` are its share of them).
    """
    batch = trials[0].config.train.per_device_train_batch_size
    left = list(trials)
    while left:
        together = _begun(folder, left)
        if together is None:
            weights = [count_trainable(base, trial.config.lora) for trial in left]
            packed = trials[0].config.train.shared_prefix == "auto"
            together = left[: most_adapters(base, material.rows, batch, weights, packed=packed)]
        _one_pass(together, folder, encoder, base, material, quiet=quiet)
        left = [trial for trial in left if trial not in together]


def fitted(folder: Path, trial: Trial) -> Callable[[Run, PeftModel], dict[str, Any]] | None:
    """What `api.train` needs instead of training: for a trial whose pass is over; None if there is no such pass."""
    for joint in _passes_in(folder):
        members = _members(joint)
        if joint.finished and members.get(trial.name) == _fingerprint(trial):
            report = joint.read_metrics().get(trial.name)  # none of an adapter that diverged: alone it says so itself
            log = joint.log_of(list(members).index(trial.name)).log_path
            return None if report is None else partial(_put_best, joint, log, report)
    return None


def _put_best(joint: "Joint", log: Path, report: dict[str, Any], run: Run, model: PeftModel) -> dict[str, Any]:
    """Puts the best weights of a pass into a fresh adapter, and what was logged of them into the run."""
    model.load_adapter(str(best_weights(joint.best, report["joint"]["name"])), model.active_adapter, is_trainable=True)
    model.eval()
    write_text(run.log_path, log.read_text(encoding="utf-8"))
    return report


def clear(folder: Path) -> None:
    """Removes the passes of a sweep whose trials are runs by now."""
    for joint in _passes_in(folder):
        shutil.rmtree(joint.path)


def _one_pass(
    trials: Sequence[Trial],
    folder: Path,
    encoder: Encoder,
    base: PreTrainedModel,
    material: Material,
    *,
    quiet: bool,
) -> None:
    members = {trial.name: _fingerprint(trial) for trial in trials}
    joint = Joint(folder / f"{PREFIX}{hashlib.sha256(json.dumps(members).encode()).hexdigest()[:8]}")
    joint.best.mkdir(parents=True, exist_ok=True)
    write_json(joint.path / MEMBERS, members)
    config = trials[0].config
    peak = memory.Peak(base.device)
    model, names = add_adapters(base, [trial.config.lora for trial in trials], seed=config.seed)
    try:
        checkpoint = newest_checkpoint(joint.checkpoints)
        spent, interrupt = Spent(checkpoint), SaveOnInterrupt()
        progress = ProgressCallback(lambda line: None, visible=not quiet)

        def report(number: int, line: dict[str, Any]) -> None:
            joint.log_of(number).append_log({**line, "seconds": round(spent.seconds(), 3)})

        trainer = build_trainer(
            model,
            encoder.tokenizer,
            material.rows,
            config.train,
            output_dir=str(joint.checkpoints),
            seed=config.seed,
            evaluate_with=material.evaluate_with,
            callbacks=[progress, interrupt, spent],
            kind=JointTrainer,
            names=names,
            learning_rates=[trial.config.train.learning_rate for trial in trials],
            best=joint.best,
            report=report,
        )
        progress.tokens_seen = spent.tokens_seen = lambda: trainer.tokens_seen
        with interrupt, progress.bar:
            if checkpoint is None or finished_training(checkpoint) is None:
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            else:
                trainer.state.global_step = step_of(checkpoint)
        best = read_best(joint.best)
        counts = [sum(weight.numel() for weight in weights_of(model, name)) for name in names]
        frozen = parameter_counts(model)["all"] - sum(counts)
        reports = {
            trial.name: {
                "seconds": round(spent.seconds() / len(trials), 1),
                "resumed_from_step": None if checkpoint is None else step_of(checkpoint),
                "steps": trainer.state.global_step,
                "best_step": best[name]["step"],
                "validation_macro_f1": best[name]["macro_f1"],
                "tokens_computed": spent.tokens(),
                "truncated": material.truncated,
                "shared_prefix": trainer.shared_prefix,
                "peak_memory_mib": peak.mib(),
                "parameters": {"trainable": count, "all": frozen + count},
                "alpha_policy": trial.config.lora.alpha_policy,
                "joint": {"name": name, "adapters": len(trials), "seconds": round(spent.seconds(), 1)},
            }
            for trial, name, count in zip(trials, names, counts, strict=True)
            if name in best and name not in trainer.diverged
        }
    finally:
        remove_adapter(model)
    joint.finish(reports)


def _passes_in(folder: Path) -> list[Joint]:
    return [Joint(path) for path in sorted(folder.glob(f"{PREFIX}*")) if (path / MEMBERS).is_file()]


def _members(joint: Joint) -> dict[str, str]:
    return dict(json.loads((joint.path / MEMBERS).read_text(encoding="utf-8")))


def _begun(folder: Path, trials: Sequence[Trial]) -> list[Trial] | None:
    """The trials of a pass that was interrupted, if all of them are among these."""
    waiting = {trial.name: trial for trial in trials}
    for joint in _passes_in(folder):
        members = _members(joint)
        if not joint.finished and all(
            name in waiting and _fingerprint(waiting[name]) == print_ for name, print_ in members.items()
        ):
            return [waiting[name] for name in members]
    return None


def _fingerprint(trial: Trial) -> str:
    values = trial.config.model_dump(exclude={"output", "name", "fewshot", "sweep"})
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _common(config: Config) -> str:
    """What the trials of one pass have in common."""
    values = config.model_dump(exclude={"output", "name", "fewshot", "sweep", "preset"})
    for section, keys in OWN.items():
        values[section] = {key: value for key, value in values[section].items() if key not in keys}
    return json.dumps(values, sort_keys=True)
