"""One training from rows to a saved adapter: what `api.train` does between loading and judging."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel, TrainerCallback
from transformers.trainer_callback import ExportableState

from loraft import bundle, memory, metrics, scoring
from loraft.backbone import parameter_counts
from loraft.batching import Row, make_rows
from loraft.config import Config
from loraft.data import Split
from loraft.encoding import Encoder, warn_of_cuts
from loraft.interrupting import SaveOnInterrupt, finished_training, load_best, newest_checkpoint, step_of
from loraft.processes import is_first
from loraft.runs import Run, write_json


@dataclass(frozen=True)
class Material:
    """What a training works on: its rows, how an adapter is judged on validation, and how many rows were shortened."""

    rows: list[Row]
    evaluate_with: Callable[[Any], dict[str, float]]
    truncated: int


def prepare(config: Config, encoder: Encoder, train_split: Split, validation: Split) -> Material:
    """Encodes the rows of a training."""
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

    return Material(rows, evaluate_with, truncated)


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
    """Trains; leaves the best checkpoint's adapter in the model and returns a report of the training.

    Its `seconds` and `tokens_computed` are those of all the steps that the adapter rests on, whichever process made
    them; what was thrown away, for an interrupted process had not saved it, is not in them.
    """
    from loraft.progress import ProgressCallback
    from loraft.training import build_trainer

    peak = memory.Peak(model.device)
    material = prepare(config, encoder, train_split, validation)
    counts = parameter_counts(model)
    quiet = quiet or not is_first()
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
    checkpoint = newest_checkpoint(run.checkpoints) if resume else None
    spent = Spent(checkpoint)
    trainer = build_trainer(
        model,
        encoder.tokenizer,
        material.rows,
        config.train,
        output_dir=str(run.checkpoints),
        seed=config.seed,
        evaluate_with=material.evaluate_with,
        callbacks=[progress, interrupt, spent],
    )
    progress.tokens_seen = spent.tokens_seen = lambda: trainer.tokens_seen
    over = None if checkpoint is None else finished_training(checkpoint)
    with interrupt, progress.bar:
        if checkpoint is not None and over is not None:
            load_best(model, checkpoint, over)
            trainer.state = over
        else:
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    model.eval()
    best = trainer.state.best_model_checkpoint
    return {
        "seconds": round(spent.seconds(), 1),
        "resumed_from_step": None if checkpoint is None else step_of(checkpoint),
        "steps": trainer.state.global_step,
        "best_step": None if best is None else step_of(Path(best)),
        "validation_macro_f1": trainer.state.best_metric,
        "tokens_computed": spent.tokens(),
        "truncated": material.truncated,
        "shared_prefix": trainer.shared_prefix,
        "peak_memory_mib": peak.mib(),
        "parameters": counts,
        "alpha_policy": config.lora.alpha_policy,
    }


class Spent(TrainerCallback, ExportableState):
    """Seconds and tokens that a training took up to now; every checkpoint holds what it took up to there.

    Args:
        checkpoint: where this process goes on; None at the beginning.
    """

    def __init__(self, checkpoint: Path | None) -> None:
        self.tokens_seen: Callable[[], int] = lambda: 0  # by this process
        self._started: float | None = None
        self._before: dict[str, Any] = {"seconds": 0.0, "tokens": 0}
        if checkpoint is not None:
            state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
            self._before |= state["stateful_callbacks"].get(type(self).__name__, {}).get("attributes", {})

    def seconds(self) -> float:
        """Seconds of training, evaluations and checkpoints among them."""
        return float(self._before["seconds"]) + (time.perf_counter() - self._started if self._started else 0.0)

    def tokens(self) -> int:
        """Tokens that went through the model in training."""
        return int(self._before["tokens"]) + self.tokens_seen()

    def state(self) -> dict[str, Any]:
        """What the trainer writes into a checkpoint."""
        return {"args": {}, "attributes": {"seconds": self.seconds(), "tokens": self.tokens()}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the clock."""
        self._started = time.perf_counter()
        state.stateful_callbacks[type(self).__name__] = self.state()  # the trainer expects an entry to replace


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
