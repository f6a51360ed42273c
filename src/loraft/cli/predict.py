"""The command `loraft predict`: labels of sentences, files or stdin, one a line on stdout, or in a file of columns."""

import math
import sys
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from loraft.cli.console import results_stream, say, start_command
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
from loraft.data.readers import Format, input_rows, unlabelled
from loraft.data.records import BadRow, Example, FileSettings, Row
from loraft.errors import ConfigError

if TYPE_CHECKING:
    from loraft.config.data_section import DataConfig

WAIT = 0.1  # seconds that a line on stdin waits for others: `tail -f` is answered, and a full pipe fills groups


def predict(
    texts: Annotated[list[str] | None, typer.Argument(help="Sentences; - or none reads stdin.")] = None,
    run: RunName = None,
    adapter: Adapter = None,
    file: Annotated[
        Path | None, typer.Option("--input", "--file", help="CSV, TSV, JSONL, Parquet, Excel, text, .gz of text.")
    ] = None,
    format: Annotated[
        str, typer.Option(help="auto, lines, jsonl, csv, tsv, or text: a file, or each of a folder, is one text.")
    ] = "auto",
    text_column: Annotated[str | None, typer.Option(help="Column of the sentence; else as in training.")] = None,
    output_file: Annotated[
        Path | None, typer.Option(help="The input's columns with the predictions: .csv, .jsonl or .parquet.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an output file without predictions.")] = False,
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
    """Print one label a line, in the order of the rows; or write a file and print nothing.

    A row that is undecided or unreadable is an empty line, and a row without label in the file. Unreadable rows are
    reported on stderr, the others go on, and the exit code is 1 at the end.
    """
    from loraft.evaluation.output_file import PredictedInput, check_output, write_predictions
    from loraft.runs.atomic_files import to_json

    if min_confidence is not None and math.isnan(min_confidence):  # passes every comparison with a bound
        raise ConfigError("--min-confidence: is no number (got nan); allowed is 0 to 1")
    if json and output_file is not None:
        raise ConfigError(f"--json and --output-file: two forms of the result (got {output_file}); give one of them")
    if output_file is not None:
        check_output(output_file, file, force=force)
    refuse_several({"--run": run, "--adapter": adapter})
    flags = dotted(model=model, task=task, quant=quant)
    path, resolved = run_or_adapter(run, adapter, sets or (), flags, output=output, preset=preset, config_file=config)
    text_column = unicodedata.normalize("NFC", text_column or resolved.data.text_column)  # as all column names
    header: list[str] = []
    rows, source = _inputs(texts or [], file, format, text_column, _settings(resolved.data, sets or ()), header)
    start_command(resolved, verbose, adapter=path or adapter, source=source)

    from loraft.evaluation import predict as prediction

    waiting: deque[Row | BadRow] = deque()  # rows whose prediction is still to come

    def inputs() -> Iterator[Example | BadRow]:
        for item in rows:
            waiting.append(item)
            yield unlabelled(item, text_column)

    bad = 0
    wait = WAIT if source == "stdin" else None
    written: list[PredictedInput] = []
    for row in prediction.predict(
        inputs(), run=path, adapter=adapter, min_confidence=min_confidence, config=resolved, wait=wait
    ):
        item = waiting.popleft()
        if row.error is not None:
            bad += 1
            say(f"{source} row {row.row}: {row.error}")
        if output_file is not None:
            written.append(PredictedInput(_columns(item, text_column, texts=resolved.output.texts), row))
        elif json:
            print(to_json(_as_json(row), indent=None), file=results_stream(), flush=True)
        else:
            print(
                "|".join(row.label) if isinstance(row.label, tuple) else row.label or "",
                file=results_stream(),
                flush=True,
            )
    if output_file is not None:
        several = resolved.prompt.kind == "multilabel"
        labels = resolved.prompt.labels or []
        if not resolved.output.texts:
            header = ["row", *(name for name in header if name != text_column)]
        write_predictions(output_file, written, file, labels=labels, header=header, several=several)
        say(f"{len(written)} {'row' if len(written) == 1 else 'rows'} in {output_file}")
    if bad:
        say(f"{bad} {'row' if bad == 1 else 'rows'} could not be read")
        raise typer.Exit(1)


def _columns(item: Row | BadRow, text_column: str, *, texts: bool) -> Mapping[str, Any]:
    """The columns of a row that an output file has; without `texts` the row's number in place of the sentence."""
    columns = item.columns if isinstance(item, Row) else {}
    return columns if texts else {"row": item.row} | {key: columns[key] for key in columns if key != text_column}


def _settings(data: "DataConfig", sets: Sequence[str]) -> FileSettings:
    """How the input is read: by what `--set` says. The run's own settings were for the files of its training."""
    given = {item.partition("=")[0].strip() for item in sets}
    own = [field.name for field in fields(FileSettings) if f"data.{field.name}" in given]
    return FileSettings(**{name: getattr(data, name) for name in own})


def _inputs(
    texts: list[str], file: Path | None, format: str, text_column: str, settings: FileSettings, header: list[str]
) -> tuple[Iterable[Row | BadRow], str]:
    formats: tuple[Format, ...] = get_args(Format)
    known = next((one for one in formats if one == format), None)
    if known is None:
        raise ConfigError(f"--format: unknown (got {format!r}); allowed: {', '.join(formats)}")
    if texts and file is not None:
        raise ConfigError(f"--input and sentences: two sources (got {file} and {texts[0]!r}); give one of them")
    if "-" in texts and len(texts) > 1:
        raise ConfigError("-: stdin and sentences are two sources (got both); give one of them")
    if texts and texts != ["-"]:
        sentences = (Row(row, {text_column: text}) for row, text in enumerate(texts, start=1))
        return sentences, f"{len(texts)} {'sentence' if len(texts) == 1 else 'sentences'}"
    if file is not None:
        rows = input_rows(file, known, text_column, settings, header)
        # The first row is read now: a missing file or column is told before a backbone is loaded.
        return chain(list(islice(rows, 1)), rows), str(file)
    if sys.stdin is None or (not texts and sys.stdin.isatty()):
        raise ConfigError("predict: nothing to label; loraft predict 'câu phản hồi', --input FILE, or lines on stdin")
    return input_rows(sys.stdin, known, text_column, settings, header), "stdin"


def _as_json(row: Any) -> dict[str, Any]:
    if row.error is not None:
        return {"row": row.row, "label": None, "error": row.error}
    extra = {"extra": row.extra} if row.extra else {}
    # Each of several labels has a probability of its own, and an empty label set has none.
    confidence = {} if isinstance(row.label, tuple) else {"confidence": max(row.probs.values())}
    return {"row": row.row, "text": row.text, "label": row.label, **confidence, "probs": row.probs, **extra}
