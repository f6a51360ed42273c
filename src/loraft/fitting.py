"""One training from rows to a saved adapter: what `api.train` does between loading and judging."""

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from peft import PeftModel
from transformers import PreTrainedModel

from loraft import bundle, memory, metrics, scoring
from loraft.backbone import parameter_counts
from loraft.batching import make_rows
from loraft.config import Config
from loraft.data import Split
from loraft.encoding import Encoder, warn_of_cuts
from loraft.interrupting import SaveOnInterrupt, finished_training, load_best, newest_checkpoint
from loraft.runs import Run, write_json


def fit(
    config: Config,
    run: Run,
    encoder: Encoder,
    model: PeftModel,
    train_split: Split,
    validation: Split,
    *,
    resume: bool,
    quiet: bool,
) -> dict[str, Any]:
    """Trains; leaves the best checkpoint's adapter in the model and returns a report of the training."""
    from loraft.progress import ProgressCallback
    from loraft.training import build_trainer

    memory.reset_peak(model.device)
    prompts = encoder.encode(train_split.texts)
    rows = make_rows(
        [p.ids for p in prompts], train_split.labels.tolist(), encoder.completions_K, config.train.class_weights
    )
    validation_prompts = encoder.encode(validation.texts)
    validation_ids = [prompt.ids for prompt in validation_prompts]
    truncated = warn_of_cuts(prompts, "training")
    warn_of_cuts(validation_prompts, "validation")

    def evaluate_with(current: Any) -> dict[str, float]:
        log_probs_NK = scoring.score(
            current, validation_ids, encoder.completions_K, batch_tokens=config.eval.batch_tokens
        )
        probs_NK = scoring.to_probs(log_probs_NK)
        numbers = metrics.core(validation.labels, probs_NK.argmax(axis=1), len(encoder.task.labels))
        numbers["loss"] = metrics.log_loss(validation.labels, probs_NK)
        return numbers

    counts = parameter_counts(model)
    if not quiet:
        print(
            f"trainable params: {counts['trainable']:,} || all params: {counts['all']:,} || "
            f"trainable%: {100 * counts['trainable'] / counts['all']:.4f}; rank {config.lora.r}, "
            f"{config.lora.alpha_policy}; learning rate {config.train.learning_rate:g}, "
            f"{config.train.lr_scheduler_type}",
            file=sys.stderr,
        )
    progress = ProgressCallback(run.append_log, visible=not quiet)
    interrupt = SaveOnInterrupt()
    trainer = build_trainer(
        model,
        encoder.tokenizer,
        rows,
        config.train,
        output_dir=str(run.checkpoints),
        seed=config.seed,
        evaluate_with=evaluate_with,
        callbacks=[progress, interrupt],
    )
    progress.tokens_seen = lambda: trainer.tokens_seen
    started = time.perf_counter()
    checkpoint = newest_checkpoint(run.checkpoints) if resume else None
    over = None if checkpoint is None else finished_training(checkpoint)
    with interrupt, progress.bar:
        if checkpoint is not None and over is not None:
            load_best(model, checkpoint, over)
            trainer.state = over
        else:
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    seconds = time.perf_counter() - started
    model.eval()
    return {
        "seconds": round(seconds, 1),  # of this process, from the step that it resumed at
        "resumed_from_step": None if checkpoint is None else _step_of(str(checkpoint)),
        "steps": trainer.state.global_step,
        "best_step": _step_of(trainer.state.best_model_checkpoint),
        "validation_macro_f1": trainer.state.best_metric,
        "tokens_computed": trainer.tokens_seen,
        "truncated": truncated,
        "shared_prefix": trainer.shared_prefix,
        "peak_memory_mib": memory.peak_mib(model.device),
        "parameters": counts,
        "alpha_policy": config.lora.alpha_policy,
    }


def _step_of(checkpoint: str | None) -> int | None:
    return int(checkpoint.rsplit("-", 1)[-1]) if checkpoint else None


def save_adapter(run: Run, model: PreTrainedModel, content: dict[str, Any]) -> None:
    """Writes adapter and bundle beside the final place and renames, so that a half-written adapter never counts."""
    beside = run.adapter.with_name("adapter.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    model.save_pretrained(str(beside))
    _forget_local_path(beside, model.get_base_model().config._name_or_path, content["backbone"]["name"])
    write_json(beside / bundle.FILE, content)
    shutil.rmtree(run.adapter, ignore_errors=True)
    os.replace(beside, run.adapter)


def _forget_local_path(adapter: Path, path: str, name: str) -> None:
    """Writes the backbone's name where peft put the folder it was loaded from, which other machines do not have."""
    for file in (adapter / "adapter_config.json", adapter / "README.md"):
        if path not in ("", name) and file.exists():
            file.write_text(file.read_text(encoding="utf-8").replace(path, name), encoding="utf-8")


def draw(run: Run, after: dict[str, Any], test: Split, rows: list[dict[str, Any]], labels: tuple[str, ...]) -> None:
    """Draws the learning curve, the confusion matrix and the reliability diagram of a run."""
    from loraft import plots

    run.plots.mkdir(exist_ok=True)
    plots.learning_curve(run.read_log(), run.plots / "learning_curve.png")
    plots.confusion_matrix(after["confusion"], labels, run.plots / "confusion_matrix.png")
    if rows and "probs" in rows[0]:
        probs_NK = np.array([[row["probs"][label] for label in labels] for row in rows])
        plots.reliability_diagram(test.labels, probs_NK, run.plots / "reliability.png")
