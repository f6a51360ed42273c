"""The commands as plain functions: train, evaluate, predict. Scripts and the command line call these."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from loraft.config.resolve import load_resolved
from loraft.config.schema import Config
from loraft.data.dataset import Split, load_data, warn_of_notes
from loraft.data.prompt import parse_answer
from loraft.engine import scorer
from loraft.errors import RunError
from loraft.evaluation import classification_report
from loraft.models.encoder import Encoder, warn_of_cuts
from loraft.models.load import build, load_run
from loraft.runs.run import Run


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
    warn_of_notes([data])
    encoder, model = (build(config) if run is None else load_run(Run.open(run), config, for_good=True))[:2]
    result, rows = judge(model, encoder, data, config)
    described = {"labels": list(encoder.task.labels), "split": split, "source": data.source, "notes": data.notes}
    return {**result, **described, "rows": rows}


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
        log_probs_NK = scorer.score(model, ids, encoder.completions_K, batch_tokens=config.eval.batch_tokens)
        probs_NK = scorer.to_probs(log_probs_NK)
        predictions_N = probs_NK.argmax(axis=1)
    else:
        made = scorer.generate(
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
    result = classification_report.full(
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
