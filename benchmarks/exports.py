"""Exports of a run beside `loraft predict`: the same labels and log-probabilities, and rows a second, all in fp32.

    python benchmarks/exports.py RUN FILE [--column sentence] [--rows N] [--threads 2]

Prints for the plain pipeline of transformers on the classifier, and for onnxruntime on the ONNX files, how many labels
are those of loraft, the largest change of a log-probability in nats, and the speed over the same sentences. Sentences
come in the order of their lengths and in batches of 16 where a program does not sort and batch by itself.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from transformers import pipeline

import loraft
from loraft.cli.console import results_follow, say, start_command
from loraft.data.columns import given_sentence
from loraft.data.readers import input_rows
from loraft.data.records import Example, Row
from loraft.delivery.export import Target, export
from loraft.delivery.export_classifier import BATCH, log_probs
from loraft.delivery.export_onnx import read_onnx
from loraft.display import table
from loraft.runs.bundle import config_of
from loraft.runs.run import Run

WARM_UP = 32  # sentences before the clock starts


def sentences(file: Path, column: str, most: int | None) -> list[str]:
    """The file's usable sentences, the shortest first."""
    rows = (given_sentence(row.columns[column], 1) for row in input_rows(file, "auto", column) if isinstance(row, Row))
    texts = [row.text for row in rows if isinstance(row, Example)][:most]
    return sorted(texts, key=len)


def by_pipeline(folder: Path, labels: Sequence[str]) -> Callable[[Sequence[str]], np.ndarray]:
    """The log-probabilities of the plain pipeline, as its user gets them."""
    asked = pipeline("text-classification", str(folder), device="cpu", batch_size=BATCH)

    def scored(texts: Sequence[str]) -> np.ndarray:
        found: list[list[dict[str, Any]]] = asked(list(texts), top_k=None, truncation=True)
        rows = [{one["label"]: one["score"] for one in answer} for answer in found]
        return np.log([[row[label] for label in labels] for row in rows])

    return scored


def main(
    run: str,
    file: Path,
    column: Annotated[str, typer.Option(help="Of the sentences.")] = "sentence",
    rows: Annotated[int | None, typer.Option(help="The first so many of the file.")] = None,
    threads: Annotated[int, typer.Option(help="Of every program.")] = 2,
) -> None:
    """Compare exports with the run that they were made from."""
    torch.set_num_threads(threads)
    own = config_of(Run.open(run))
    config = loraft.resolve(base=own, overrides=["model.dtype=fp32", "model.device=cpu", "quant.compute_dtype=auto"])
    start_command(config, False, adapter=Path(run), source=str(file))
    texts = sentences(file, column, rows)
    with tempfile.TemporaryDirectory() as place:
        kinds = {"classifier": Target("classifier"), "onnx": Target("onnx"), "int8": Target("onnx", int8=True)}
        for name, target in kinds.items():
            made = export(run, Path(place) / name, target, config=config, min_agreement=0.9)
            say(f"{name}: {made.compared}")
        classifier = loraft.load(run, config=config)
        programs: dict[str, Callable[[Sequence[str]], np.ndarray]] = {
            "loraft": lambda some: torch.as_tensor(classifier.log_probs(some)).log_softmax(-1).numpy(),
            "transformers pipeline": by_pipeline(Path(place) / "classifier", classifier.labels),
        }
        for name in ("onnx", "int8"):
            tokenizer, logits = read_onnx(Path(place) / name, torch.device("cpu"))
            programs[f"onnxruntime, {'fp32' if name == 'onnx' else name}"] = (
                lambda some, tokenizer=tokenizer, logits=logits: log_probs(tokenizer, logits, some)
            )
        shown = table.number_table(f"{len(texts)} rows of {file.name}", "labels equal", "largest change", "rows/s")
        first: np.ndarray | None = None
        for name, scored in programs.items():
            scored(texts[:WARM_UP])
            begun = time.perf_counter()
            found = scored(texts)
            speed = len(texts) / (time.perf_counter() - begun)
            first = found if first is None else first
            equal = int((found.argmax(1) == first.argmax(1)).sum())
            table.add_row(shown, name, str(equal), f"{np.abs(found - first).max():.1e}", f"{speed:,.0f}")
    results_follow()
    table.show([shown])


if __name__ == "__main__":
    typer.run(main)
