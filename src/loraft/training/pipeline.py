"""The commands as plain functions: train, evaluate, predict. Scripts and the command line call these."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from loraft.config.schema import Config
from loraft.config.yaml_io import dump_yaml
from loraft.data.dataset import Split, training_splits, warn_of_notes
from loraft.distributed import is_first
from loraft.evaluation.evaluate import judge
from loraft.models import manifest
from loraft.models.adapter import add_adapter, parameter_counts
from loraft.models.backbone import fingerprint
from loraft.models.encoder import Encoder
from loraft.models.load import build
from loraft.runs.environment import environment
from loraft.runs.files import write_json, write_text
from loraft.runs.resume import check_begun
from loraft.runs.run import Beside, Run, default_name, run_of
from loraft.training import memory
from loraft.training.callbacks import SaveOnInterrupt, Spent
from loraft.training.checkpoints import finished_training, load_best, newest_checkpoint, step_of
from loraft.training.dataset import prepare


def train(
    config: Config,
    *,
    force: bool = False,
    resume: bool = False,
    quiet: bool = False,
    built: tuple[Encoder, PreTrainedModel] | None = None,
    splits: Mapping[str, Split] | None = None,
    before: dict[str, Any] | None = None,
    fitted: Callable[[Run, "PeftModel"], dict[str, Any]] | None = None,
    figures: bool = True,
) -> dict[str, Any]:
    """Fine-tunes an adapter and judges it on the test split before and after.

    Args:
        config: everything that the result depends on.
        force: delete an earlier run of the same name.
        resume: go on with an interrupted one.
        quiet: draw no progress bar.
        built: what `build` returns for this config; the backbone is bare again afterwards, also after an error.
        splits: what `data.training_splits` returns for this config.
        before: the backbone's own metrics on the test split, where they are known.
        fitted: puts weights that were trained elsewhere into the fresh adapter and returns the report of their
            training, instead of training here; see `jointly`.
        figures: draw them; `loraft report` does it otherwise.

    Returns:
        The run's metrics: `before` (backbone zero-shot) and `after` (with the adapter), each as `metrics.full` gives
        them; `train` (seconds, steps, tokens, peak memory, parameters); `run`, the directory; `labels`.

    Raises:
        LoraftError: for anything the user can mend; nothing half-written then counts as finished.
    """
    splits = splits or training_splits(config)
    warn_of_notes(splits.values())
    if first := is_first():
        run_of(config).check(force=force, resume=resume)
    encoder, base = built or build(config)  # what cannot be loaded is told before a folder is made
    name = config.name or default_name(config)
    run = Run.create(Path(config.output), name, force=force, resume=resume) if first else Beside(run_of(config))
    try:
        return _train(config, run, encoder, base, splits, resume, quiet, built is not None, before, fitted, figures)
    except Exception:
        run.give_back()
        raise


def _train(
    config: Config,
    run: Run,
    encoder: Encoder,
    base: PreTrainedModel,
    splits: Mapping[str, Split],
    resume: bool,
    quiet: bool,
    keep_base: bool,
    before: dict[str, Any] | None,
    fitted: Callable[[Run, "PeftModel"], dict[str, Any]] | None,
    figures: bool,
) -> dict[str, Any]:
    """Trains and judges inside a run directory that is there; `keep_base` leaves the backbone bare."""
    from loraft.evaluation.figures import draw_run_figures
    from loraft.models.adapter import remove_adapter
    from loraft.training.checkpoints import save_adapter

    if resume:
        check_begun(run, config)
    write_text(run.config_path, dump_yaml(config))
    write_json(run.environment_path, environment())
    weights = fingerprint(base)  # before the adapter: pissa and olora move weights out of the backbone
    test, validation = splits["test"], splits["validation"]
    before_path = run.path / "before.json"
    if resume and before is None and before_path.exists():
        before = json.loads(before_path.read_text(encoding="utf-8"))
    elif before is None:
        before, _ = judge(base, encoder, test, config)
    write_json(before_path, before)
    model = add_adapter(base, config.lora, seed=config.seed)
    try:
        if fitted is not None:
            report = fitted(run, model)
        else:
            report = fit(config, run, encoder, model, splits["train"], validation, resume=resume, quiet=quiet)
        after, rows = judge(model, encoder, test, config)
        scores = {key: after[key] for key in ("accuracy", "macro_f1")}
        fingerprints = {name: split.fingerprint for name, split in splits.items()}
        save_adapter(run, model, manifest.describe(config, encoder, weights, fingerprints, scores))
    finally:
        if keep_base:
            remove_adapter(model)
    write_text(run.predictions_path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    if figures:
        draw_run_figures(run, after, encoder.task.labels)
    result = {
        "run": str(run.path),
        "labels": list(encoder.task.labels),
        "backbone": config.model.name,
        "backbone_fingerprint": weights,
        "data": {name: {"source": s.source, "rows": len(s), "notes": s.notes} for name, s in splits.items()},
        "before": before,
        "after": after,
        "train": report,
    }
    run.finish(result)
    return result


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
    from loraft.training.callbacks import ProgressCallback
    from loraft.training.trainer import build_trainer

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
