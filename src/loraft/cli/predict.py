"""The command `loraft predict`: labels of sentences, files or stdin, one a line on stdout."""

import math
import sys
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

import typer

from loraft.cli.console import say, start_command
from loraft.cli.finished_run import refuse_several, run_or_adapter
from loraft.cli.options import (
    Adapter,
    ConfigFile,
    Model,
    Output,
    Preset,
    Quant,
    RunName,
    Sets,
    Task,
    Verbose,
    dotted,
)
from loraft.data.columns import given_sentence
from loraft.data.readers import Format, read_inputs
from loraft.data.records import BadRow, Example
from loraft.errors import ConfigError

WAIT = 0.1  # seconds that a line on stdin waits for others: `tail -f` is answered, and a full pipe fills groups


def predict(
    texts: Annotated[list[str] | None, typer.Argument(help="Sentences; - or none reads stdin.")] = None,
    run: RunName = None,
    adapter: Adapter = None,
    file: Annotated[Path | None, typer.Option(help="Lines, JSONL, CSV, TSV or Parquet.")] = None,
    format: Annotated[str, typer.Option(help="auto, lines, jsonl, csv or tsv.")] = "auto",
    text_column: Annotated[str | None, typer.Option(help="Column of the sentence; else as in training.")] = None,
    min_confidence: Annotated[
        float | None, typer.Option(min=0, max=1, help="Leave a row undecided below this probability.")
    ] = None,
    preset: Preset = None,
    config: ConfigFile = None,
    sets: Sets = None,
    model: Model = None,
    task: Task = None,
    quant: Quant = None,
    output: Output = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a row, with probabilities.")] = False,
    verbose: Verbose = False,
) -> None:
    """Print one label a line, in the order of the rows.

    A row that is undecided or unreadable is an empty line. Unreadable rows are reported on stderr, the others go on,
    and the exit code is 1 at the end.
    """
    from loraft.runs.atomic_files import to_json

    if min_confidence is not None and math.isnan(min_confidence):  # passes every comparison with a bound
        raise ConfigError("--min-confidence: is no number (got nan); allowed is 0 to 1")
    refuse_several({"--run": run, "--adapter": adapter})
    flags = dotted(model=model, task=task, quant=quant)
    path, resolved = run_or_adapter(run, adapter, sets or (), flags, output=output, preset=preset, config_file=config)
    rows, source = _inputs(texts or [], file, format, text_column or resolved.data.text_column)
    start_command(resolved, verbose, adapter=path or adapter, source=source)

    from loraft.evaluation import predict as prediction

    bad = 0
    wait = WAIT if source == "stdin" else None
    for row in prediction.predict(
        rows, run=path, adapter=adapter, min_confidence=min_confidence, config=resolved, wait=wait
    ):
        if row.error is not None:
            bad += 1
            say(f"{source} row {row.row}: {row.error}")
        if json:
            print(to_json(_as_json(row), indent=None), flush=True)
        else:
            print("|".join(row.label) if isinstance(row.label, tuple) else row.label or "", flush=True)
    if bad:
        say(f"{bad} {'row' if bad == 1 else 'rows'} could not be read")
        raise typer.Exit(1)


def _inputs(
    texts: list[str], file: Path | None, format: str, text_column: str
) -> tuple[Iterable[Example | BadRow], str]:
    formats: tuple[Format, ...] = ("auto", "lines", "jsonl", "csv", "tsv")
    known = next((one for one in formats if one == format), None)
    if known is None:
        raise ConfigError(f"--format: unknown (got {format!r}); allowed: {', '.join(formats)}")
    if texts and file is not None:
        raise ConfigError(f"--file and sentences: two sources (got {file} and {texts[0]!r}); give one of them")
    if "-" in texts and len(texts) > 1:
        raise ConfigError("-: stdin and sentences are two sources (got both); give one of them")
    if texts and texts != ["-"]:
        sentences = (given_sentence(text, row) for row, text in enumerate(texts, start=1))
        return sentences, f"{len(texts)} {'sentence' if len(texts) == 1 else 'sentences'}"
    if file is not None:
        rows = read_inputs(file, known, text_column)
        # The first row is read now: a missing file or column is told before a backbone is loaded.
        return chain(list(islice(rows, 1)), rows), str(file)
    if sys.stdin is None or (not texts and sys.stdin.isatty()):
        raise ConfigError("predict: nothing to label; loraft predict 'câu phản hồi', --file FILE, or lines on stdin")
    return read_inputs(sys.stdin, known, text_column), "stdin"


def _as_json(row: Any) -> dict[str, Any]:
    if row.error is not None:
        return {"row": row.row, "label": None, "error": row.error}
    extra = {"extra": row.extra} if row.extra else {}
    # Each of several labels has a probability of its own, and an empty label set has none.
    confidence = {} if isinstance(row.label, tuple) else {"confidence": max(row.probs.values())}
    return {"row": row.row, "text": row.text, "label": row.label, **confidence, "probs": row.probs, **extra}
