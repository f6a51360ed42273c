"""The commands as plain functions: train, evaluate, predict. Scripts and the command line call these."""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from loraft import bundle, metrics, scoring
from loraft.backbone import add_adapter, load_adapter, load_backbone, load_tokenizer
from loraft.config import Config
from loraft.data import BadRow, Example, Split, load_split
from loraft.encoding import Encoder, warn_of_cuts
from loraft.errors import RunError
from loraft.fitting import draw, fit, save_adapter
from loraft.prompts import Task, parse_answer
from loraft.resolving import dump_yaml, load_resolved
from loraft.runs import Run, environment, write_json, write_text
from loraft.sharing import remove_adapter

PREDICT_CHUNK = 512  # rows scored together; bounds memory, not results


@dataclass(frozen=True)
class Prediction:
    """One row's answer. `label` is None where the row is bad (`error` says why) or below the asked confidence."""

    row: int
    text: str
    label: str | None
    probs: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


def train(
    config: Config,
    *,
    force: bool = False,
    resume: bool = False,
    quiet: bool = False,
    built: tuple[Encoder, PreTrainedModel] | None = None,
    before: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Fine-tunes an adapter and judges it on the test split before and after.

    Args:
        config: everything that the result depends on.
        force: delete an earlier run of the same name.
        resume: go on with an interrupted one.
        quiet: draw no progress bar.
        built: what `build` returns for this config; the backbone is bare again afterwards, also after an error.
        before: the backbone's own metrics on the test split, where they are known.

    Returns:
        The run's metrics: `before` (backbone zero-shot) and `after` (with the adapter), each as `metrics.full` gives
        them; `train` (seconds, steps, tokens, peak memory, parameters); `run`, the directory; `labels`.

    Raises:
        LoraftError: for anything the user can mend; nothing half-written then counts as finished.
    """
    splits = {name: load_data(config, name) for name in ("train", "validation", "test")}
    run = Run.create(Path(config.output), config.name or default_name(config), force=force, resume=resume)
    _same_config(run, config, resume=resume)
    write_text(run.config_path, dump_yaml(config))
    write_json(run.environment_path, environment())
    encoder, base = built or build(config)
    test, validation = splits["test"], splits["validation"]
    before_path = run.path / "before.json"
    if resume and before is None and before_path.exists():
        before = json.loads(before_path.read_text(encoding="utf-8"))
    elif before is None:
        before, _ = judge(base, encoder, test, config)
    write_json(before_path, before)
    model = add_adapter(base, config.lora, seed=config.seed)
    try:
        report = fit(config, run, encoder, model, splits["train"], validation, resume=resume, quiet=quiet)
        after, rows = judge(model, encoder, test, config)
        scores = {key: after[key] for key in ("accuracy", "macro_f1")}
        fingerprints = {name: split.fingerprint for name, split in splits.items()}
        save_adapter(run, model, bundle.describe(config, encoder, base, fingerprints, scores))
    finally:
        if built is not None:
            remove_adapter(model)
    write_text(run.predictions_path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    draw(run, after, test, rows, encoder.task.labels)
    result = {
        "run": str(run.path),
        "labels": list(encoder.task.labels),
        "backbone": config.model.name,
        "data": {name: {"source": s.source, "rows": len(s), "notes": s.notes} for name, s in splits.items()},
        "before": before,
        "after": after,
        "train": report,
    }
    run.finish(result)
    return result


def evaluate(
    *,
    config: Config | None = None,
    run: Path | None = None,
    split: str = "test",
    zero_shot: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Judges a finished run, or with `zero_shot` the bare backbone, on a split or a labelled file.

    Args:
        config: the run's own by default; with a run, what it says of data and evaluation counts.
        run: directory of a finished run; None only with `zero_shot`.
        split: train, validation, test, another split's name, or a file.

    Returns:
        Metrics as `metrics.full` gives them, with `labels`, `split`, `source` and `rows` (predictions).
    """
    del quiet  # evaluation draws no bar
    if run is None and (config is None or not zero_shot):
        raise RunError("eval: no run and no backbone to judge; give --run, or --zero-shot for the bare backbone")
    trained = load_resolved(Run.open(run).config_path) if run is not None else None
    config = config or trained
    assert config is not None
    data = load_data(config, split)
    encoder, model = (build(config) if run is None else load_run(Run.open(run), config))[:2]
    result, rows = judge(model, encoder, data, config)
    return {**result, "labels": list(encoder.task.labels), "split": split, "source": data.source, "rows": rows}


def predict(
    inputs: Iterable[Example | BadRow], *, run: Path, min_confidence: float | None = None, config: Config | None = None
) -> Iterator[Prediction]:
    """Yields one prediction a row, in order, a chunk of rows at a time.

    Args:
        inputs: rows to label; a BadRow comes back as a prediction with its `error`.
        run: directory of a finished run.
        min_confidence: in [0, 1]; a row whose best label has a lower probability stays undecided (label None).
    """
    opened = Run.open(run)
    config = config or load_resolved(opened.config_path)
    encoder, model = load_run(opened, config)
    labels = encoder.task.labels
    iterator = iter(inputs)
    while chunk := list(islice(iterator, PREDICT_CHUNK)):
        good = [item for item in chunk if isinstance(item, Example)]
        prompts = [prompt.ids for prompt in encoder.encode([item.text for item in good])]
        log_probs_NK = scoring.score(model, prompts, encoder.completions_K, batch_tokens=config.eval.batch_tokens)
        probs = iter(scoring.to_probs(log_probs_NK))
        for item in chunk:
            if isinstance(item, BadRow):
                yield Prediction(item.row, "", None, error=item.reason)
                continue
            probs_K = next(probs)
            best = int(probs_K.argmax())
            sure = min_confidence is None or probs_K[best] >= min_confidence
            named = {label: float(p) for label, p in zip(labels, probs_K, strict=True)}
            yield Prediction(item.row, item.text, labels[best] if sure else None, named, item.extra)


def build(config: Config) -> tuple[Encoder, PreTrainedModel]:
    """Returns the encoder of the config's task and the bare backbone."""
    return build_encoder(config), load_backbone(config.model, config.quant)


def build_encoder(config: Config) -> Encoder:
    """Returns the encoder of the config's task for the backbone's tokenizer; loads no weights."""
    section, task = config.prompt, Task.from_config(config.prompt)
    return Encoder(load_tokenizer(config.model), task, date_string=section.date_string, max_length=section.max_length)


def load_run(run: Run, config: Config) -> tuple[Encoder, PreTrainedModel]:
    """Returns the encoder and the backbone with the run's adapter, after checking that they belong together."""
    if not run.finished:
        raise RunError(f"{run.path}: the run is not finished (no metrics.json); finish it with loraft train --resume")
    content = bundle.read(run.adapter)
    encoder, base = build(config)
    bundle.check(content, run.adapter, encoder, base)
    return encoder, load_adapter(base, run.adapter)


def judge(
    model: PreTrainedModel,
    encoder: Encoder,
    split: Split,
    config: Config,
    demonstrations: tuple[tuple[str, str], ...] = (),
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the metrics of a model on a split, and one row of predictions for each example."""
    started = time.perf_counter()
    prompts = encoder.encode(split.texts, demonstrations)
    ids = [prompt.ids for prompt in prompts]
    probs_NK: np.ndarray | None = None
    answers: list[str] | None = None
    if config.eval.decode == "score":
        log_probs_NK = scoring.score(model, ids, encoder.completions_K, batch_tokens=config.eval.batch_tokens)
        probs_NK = scoring.to_probs(log_probs_NK)
        predictions_N = probs_NK.argmax(axis=1)
    else:
        made = scoring.generate(
            model,
            ids,
            end_of_turn=encoder.end_of_turn,
            pad=encoder.tokenizer.pad_token_id,
            max_new_tokens=config.eval.max_new_tokens,
            batch_tokens=config.eval.batch_tokens,
        )
        answers = encoder.tokenizer.batch_decode(made, skip_special_tokens=True)
        parsed = [parse_answer(encoder.task, answer) for answer in answers]
        predictions_N = np.array([-1 if label is None else label for label in parsed])
    labels = encoder.task.labels
    result = metrics.full(
        split.labels,
        probs_NK,
        predictions_N,
        labels,
        bootstrap_samples=config.eval.bootstrap_samples,
        confidence=config.eval.confidence,
        seed=config.seed,
    )
    result["truncated"] = warn_of_cuts(prompts, split.name)
    result["decode"] = config.eval.decode
    rows: list[dict[str, Any]] = []
    for i, example in enumerate(split.examples):
        predicted = int(predictions_N[i])
        row: dict[str, Any] = {
            "row": example.row,
            "text": example.text,
            "label": labels[int(split.labels[i])],
            "predicted": labels[predicted] if predicted >= 0 else None,
        }
        if probs_NK is not None:
            row["probs"] = {label: float(p) for label, p in zip(labels, probs_NK[i], strict=True)}
        if answers is not None:
            row["answer"] = answers[i]
        rows.append(row)
    result["seconds"] = round(time.perf_counter() - started, 3)
    return result, rows


def default_name(config: Config) -> str:
    """Returns a name for the run directory that tells the settings people change apart."""
    source = Path(config.data.source).name
    backbone = Path(config.model.name).name
    method = "qlora" if config.quant.method == "nf4" else "lora"
    return f"{backbone}-{source}-{Path(config.prompt.task).stem}-{method}-r{config.lora.r}-s{config.seed}"


def _same_config(run: Run, config: Config, *, resume: bool) -> None:
    """Refuses to continue a run with another configuration than it was begun with."""
    if not resume or not run.config_path.exists():
        return
    begun = load_resolved(run.config_path).model_dump()
    now = config.model_dump()
    changed = [
        f"  {section}.{key}: {begun[section][key]} then, {now[section][key]} now"
        for section in now
        if isinstance(now[section], dict)
        for key in now[section]
        if begun[section][key] != now[section][key]
    ]
    changed += [f"  seed: {begun['seed']} then, {now['seed']} now"] if begun["seed"] != now["seed"] else []
    if changed:
        raise RunError(
            f"{run.path}: was begun with another configuration:\n" + "\n".join(changed) + "\n"
            f"resume it with --config {run.config_path}, or begin again with --force"
        )


def load_data(config: Config, name: str) -> Split:
    """Returns a split of the config's data: train, validation, test, another split's name, or a file."""
    labels = config.prompt.labels or []
    limits = {"train": config.data.max_train_rows, "validation": config.data.max_eval_rows}
    limit = limits.get(name, config.data.max_test_rows)
    return load_split(config.data, name, labels=labels, label_column=config.prompt.label_column or "label", limit=limit)
