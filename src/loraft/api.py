"""The commands as plain functions: train, evaluate, predict. Scripts and the command line call these."""

import json
import time
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import PreTrainedModel

from loraft import bundle, metrics, scoring
from loraft.arriving import groups
from loraft.backbone import add_adapter, apply_adapter, fingerprint, load_adapter, load_backbone, load_tokenizer
from loraft.config import Config
from loraft.data import BadRow, Example, Split, load_data, training_splits
from loraft.encoding import Encoder, warn_of_cuts
from loraft.errors import RunError
from loraft.machine import environment
from loraft.processes import is_first
from loraft.prompts import Task, parse_answer
from loraft.resolving import dump_yaml, load_resolved
from loraft.resuming import check_begun
from loraft.runs import Run, default_name, run_of, write_json, write_text
from loraft.studies import Beside

if TYPE_CHECKING:
    from peft import PeftModel

_told: set[tuple[str, str]] = set()
PREDICT_ROWS = 512  # rows scored together; bounds memory, not results


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
    _tell_notes(splits.values())
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
    from loraft import plots
    from loraft.fitting import fit, save_adapter
    from loraft.sharing import remove_adapter

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
        save_adapter(run, model, bundle.describe(config, encoder, weights, fingerprints, scores))
    finally:
        if keep_base:
            remove_adapter(model)
    write_text(run.predictions_path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    if figures:
        plots.of_run(run, after, encoder.task.labels)
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


def evaluate(
    *,
    config: Config | None = None,
    run: Path | None = None,
    split: str = "test",
    zero_shot: bool = False,
) -> dict[str, Any]:
    """Judges a finished run, or with `zero_shot` the bare backbone, on a split or a labelled file.

    Args:
        config: the run's own by default; with a run, what it says of data and evaluation counts.
        run: directory of a finished run; None only with `zero_shot`.
        split: train, validation, test, another split's name, or a file.

    Returns:
        Metrics as `metrics.full` gives them, with `labels`, `split`, `source` and `rows` (predictions).
    """
    if run is not None and zero_shot:
        raise RunError("eval: --run judges an adapter and --zero-shot a bare backbone; give one of them")
    if run is None and (config is None or not zero_shot):
        raise RunError("eval: no run and no backbone to judge; give --run, or --zero-shot for the bare backbone")
    trained = load_resolved(Run.open(run).config_path) if run is not None else None
    config = config or trained
    assert config is not None
    data = load_data(config, split)
    _tell_notes([data])
    encoder, model = (build(config) if run is None else load_run(Run.open(run), config, for_good=True))[:2]
    result, rows = judge(model, encoder, data, config)
    described = {"labels": list(encoder.task.labels), "split": split, "source": data.source, "notes": data.notes}
    return {**result, **described, "rows": rows}


def predict(
    inputs: Iterable[str | Example | BadRow],
    *,
    run: Path,
    min_confidence: float | None = None,
    config: Config | None = None,
    wait: float | None = None,
) -> Iterator[Prediction]:
    """Yields one prediction a row, in order; rows are scored together, a few first and then many at a time.

    Args:
        inputs: sentences or rows; a BadRow comes back as a prediction with its `error`.
        run: directory of a finished run.
        min_confidence: in [0, 1]; a row whose best label has a lower probability stays undecided (label None).
        config: the run's own by default.
        wait: seconds that a row waits for others to be scored with it, for inputs that come slowly; they are then read
            in a thread of their own. None waits until there are enough.
    """
    opened = Run.open(run)
    config = config or load_resolved(opened.config_path)
    encoder, model = load_run(opened, config, for_good=True)
    labels = encoder.task.labels
    rows = (
        Example(unicodedata.normalize("NFC", item), None, row) if isinstance(item, str) else item
        for row, item in enumerate(inputs, start=1)
    )
    for group in groups(rows, most=PREDICT_ROWS, wait=wait):
        good = [item for item in group if isinstance(item, Example)]
        prompts = encoder.encode([item.text for item in good])
        warn_of_cuts(prompts, "of these")
        ids = [prompt.ids for prompt in prompts]
        log_probs_NK = scoring.score(model, ids, encoder.completions_K, batch_tokens=config.eval.batch_tokens)
        probs = iter(scoring.to_probs(log_probs_NK))
        for item in group:
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


def load_run(run: Run, config: Config, *, for_good: bool = False) -> tuple[Encoder, PreTrainedModel]:
    """Returns the encoder and the backbone with the run's adapter, after checking that they belong together.

    Args:
        for_good: the adapter is never switched off again, which takes less to load; else the model is a PeftModel.
    """
    if not run.finished:
        raise RunError(f"{run.path}: the run is not finished (no metrics.json); {run.how_to_resume} finishes it")
    content = bundle.read(run.adapter)
    encoder, base = build(config)
    bundle.check(content, run.adapter, encoder, base)
    return encoder, (apply_adapter if for_good else load_adapter)(base, run.adapter)


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
            encoder.completions_K,
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


def _tell_notes(splits: Iterable[Split]) -> None:
    """Says what was found or left out when the rows were read; once, also where many trials read them."""
    for split in splits:
        if split.notes and (told := (split.source, str(split.notes))) not in _told:
            _told.add(told)
            found = ", ".join(f"{number} {what}" for what, number in split.notes.items())
            warnings.warn(f"{split.source}: {found}", stacklevel=3)
