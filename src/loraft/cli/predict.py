"""The command `loraft predict`: labels of sentences, files or stdin, one a line on stdout, or in a file of columns."""

import math
import os
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from loraft.cli.console import results_on_screen, results_stream, say, start_command
from loraft.cli.finished_run import refuse_several, run_or_adapter
from loraft.cli.inputs import InputFile, InputFormat, Sentences, TextColumn, file_settings, given_rows, number_of_rows
from loraft.cli.options import Adapter, ConfigFlags, Raw, RunName, Verbose, choice, uncalibrated, with_config_flags
from loraft.cli.predict_ray import (
    Address,
    Engine,
    GpusPerWorker,
    OutputFormat,
    ShardRows,
    Workers,
    predict_on_ray,
    refuse_others,
    say_counts,
)
from loraft.config.names import show
from loraft.data.columns import TOO_LONG
from loraft.data.readers import Format, input_rows, unlabelled
from loraft.data.records import BadRow, Example, Row
from loraft.errors import ConfigError
from loraft.progress import ROWS, Stage, remove

if TYPE_CHECKING:
    from loraft.evaluation.output_file import PredictedInput

WAIT = 0.1  # seconds that a line on stdin waits for others: `tail -f` is given, and a full pipe fills groups


@with_config_flags(without=("data", "rank", "seed"))
def predict(
    given: ConfigFlags,
    context: typer.Context,
    texts: Sentences = None,
    run: RunName = None,
    adapter: Adapter = None,
    file: InputFile = None,
    format: InputFormat = "auto",
    text_column: TextColumn = None,
    output_file: Annotated[
        Path | None,
        typer.Option(help="Input columns and predictions: .csv, .jsonl or .parquet.", show_default="stdout"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an output file without predictions.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an --output-file that was interrupted.")] = False,
    min_confidence: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Leave a row undecided below this probability.", show_default="off"),
    ] = None,
    max_error: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Leave rows undecided so that at most this share of the labels is wrong.",
            show_default="off",
        ),
    ] = None,
    coverage: Annotated[
        float | None,
        typer.Option(
            "--sets",
            help="Also a set of labels, which holds the right one in this share of the rows: 0.9.",
            show_default="off",
        ),
    ] = None,
    sets_by: Annotated[
        str, choice("all", "label", help="Where --sets holds: over all rows, or for each label.")
    ] = "all",
    prior: Annotated[
        str | None,
        typer.Option(
            metavar="SHARES|estimate",
            help="Label shares of these rows: negative=0.5,... for each label.",
            show_default="those of the training",
            autocompletion=lambda: ["estimate"],
        ),
    ] = None,
    raw: Raw = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a row, with probabilities.")] = False,
    engine: Engine = "local",
    address: Address = None,
    workers: Workers = None,
    gpus_per_worker: GpusPerWorker = None,
    shard_rows: ShardRows = None,
    output_format: OutputFormat = None,
    verbose: Verbose = False,
) -> None:
    """Print the label of each sentence, or write a file.

    One label a line, in the order of the rows; with --output-file nothing. With --sets a tab and the labels of the set
    follow, with | between them. A row that is undecided or unreadable is an empty line, and a row without label in the
    file. Unreadable rows are reported on stderr, the others go on, and the exit code is 1 at the end.

    Examples:
        loraft predict "thầy giảng rất dễ hiểu" --json
        loraft predict --input rows.csv --output-file labels.csv
    """
    from loraft.config.diagnostics import checked
    from loraft.evaluation import priors
    from loraft.evaluation.output_file import (
        check_output,
        header_without_text,
        without_column,
        without_text,
        write_predictions,
    )
    from loraft.evaluation.partial_file import INPUT, PartialFile, partial_path, settings_of
    from loraft.runs.atomic_files import to_json
    from loraft.runs.hashes import sha256_of
    from loraft.runs.lock import locked_file
    from loraft.runs.run import Run

    if min_confidence is not None and math.isnan(min_confidence):  # passes every comparison with a bound
        raise ConfigError("--min-confidence: is no number (got nan); allowed is 0 to 1")
    if sets_by not in ("all", "label") or (sets_by == "label" and coverage is None):
        raise ConfigError(
            f"--sets-by: all or label, of --sets (got {show(sets_by)}, --sets {coverage}); such as --sets 0.9"
        )
    if prior == "estimate" and (file is None or not file.exists() or file.is_fifo()) and (texts or ["-"]) == ["-"]:
        raise ConfigError("--prior estimate: reads the rows twice (got stdin or a pipe); give --input FILE, or shares")
    shares = None if prior in (None, "estimate") else priors.parsed(str(prior))
    priors.refuse_void(prior is not None, coverage, sets_by == "label", max_error)
    of_ray = {"--address": address, "--workers": workers, "--gpus-per-worker": gpus_per_worker is not None}
    of_ray |= {"--shard-rows": shard_rows, "--output-format": output_format}
    refuse_others(engine, file, of_ray, {"--json": json, "--prior estimate": prior == "estimate", "sentences": texts})
    if json and output_file is not None:
        raise ConfigError(f"--json and --output-file: two forms of the result (got {output_file}); give one of them")
    again = file is not None and os.path.isfile(file)  # a pipe cannot be read a second time
    if resume and (output_file is None or not (again or engine == "ray")):
        raise ConfigError(
            f"--resume: goes on with a file (got --output-file {output_file}, --input {file}); give the files of both"
        )
    if output_file is not None and engine == "local":
        check_output(output_file, file, force=force)
        if resume and output_file.exists() and not partial_path(output_file).exists():
            say(f"{output_file} is finished already (not compared with the input); delete it to predict again")
            return
    refuse_several({"--run": run, "--adapter": adapter})
    path, resolved = run_or_adapter(run, adapter, given, given.keys(calibrate=uncalibrated(raw)))
    if shares is not None and resolved.prompt.labels:
        priors.given(shares, resolved.prompt.labels)
    text_column = (
        resolved.data.text_column
        if text_column is None
        else checked(text_column, "data", "text_column", "--text-column")
    )
    header: list[str] = []
    settings = file_settings(resolved.data, given.sets or ())
    decisions: dict[str, Any] = {} if coverage is None else {"sets": coverage, "sets_by_label": sets_by == "label"}
    made = Run.open(path).adapter if path is not None else cast(Path, adapter)
    if engine == "ray":
        decisions |= {} if shares is None else {"prior": shares}
        predict_on_ray(
            context, resolved, path, made, address=address, workers=workers, gpus=gpus_per_worker,
            shard_rows=shard_rows, file=file, format=format, text_column=text_column, settings=settings,
            output=output_file, output_format=output_format, min_confidence=min_confidence, max_error=max_error,
            decisions=decisions, resume=resume, force=force, verbose=verbose,
        )  # fmt: skip
        return
    rows, source = given_rows("predict", texts or [], file, format, text_column, settings, header)
    start_command(resolved, verbose, adapter=path or adapter, source=source, prints=output_file is None)
    if max_error is not None:
        from loraft.evaluation.guarantee import least_confidence

        min_confidence = least_confidence(made, resolved, min_confidence, max_error)
    partial = None
    if output_file is not None:
        context.with_resource(locked_file(partial_path(output_file)))  # until the command ends
        origin = None
        if file is not None and again:
            options = {"format": format, "text column": text_column, "min_confidence": min_confidence}
            asked: dict[str, Any] = {"--sets": coverage, "--sets-by": coverage and sets_by, "--prior": shares or prior}
            options |= {flag: value for flag, value in asked.items() if value is not None}
            origin = {INPUT: sha256_of(file), **settings_of(made, resolved, {**options, **asdict(settings)})}
        partial = PartialFile(output_file, origin, resume=resume)

    from loraft.evaluation import predict as prediction
    from loraft.evaluation.shift import Progress

    waiting: deque[dict[str, Any]] = deque()  # the columns, kept where they cannot be read again, of rows in work

    def inputs() -> Iterator[Example | BadRow]:
        for item in rows if partial is None else islice(rows, partial.rows, None):
            row = unlabelled(item, text_column)
            if partial is not None and not again:
                kept = item.columns if isinstance(item, Row) and row != BadRow(item.row, TOO_LONG) else {}
                waiting.append(kept if resolved.output.texts else without_column(kept, text_column))
            yield row

    def once_more() -> Iterator[Example | BadRow]:
        for item in given_rows("predict", texts or [], file, format, text_column, settings, [])[0]:
            yield unlabelled(item, text_column)

    bad = labelled = count = 0
    progress: dict[str, Any] = {} if partial is None else {"progress": Progress(**partial.state)}
    decisions |= {} if prior is None else {"prior": once_more() if shares is None else shares}
    wait = WAIT if source == "stdin" else None
    screen = output_file is None and results_on_screen()
    total = None if screen else number_of_rows(texts or [], file, format, settings)
    stage = nullcontext() if screen else Stage("predicting", total, ROWS, done=0 if partial is None else partial.rows)
    with partial or nullcontext(), stage:
        for row in prediction.predict(
            inputs(),
            run=path,
            adapter=adapter,
            min_confidence=min_confidence,
            config=resolved,
            wait=wait,
            **decisions,
            **progress,
        ):
            if screen:
                remove()
            count += 1
            labelled += row.label is not None
            if row.error is not None:
                bad += 1
                say(f"{source} row {row.row}: {row.error}")
            if partial is not None:
                partial.add(row, waiting.popleft() if waiting else {}, progress["progress"])
            elif json:
                _print_line(to_json(_as_json(row), indent=None))
            else:
                inside = "" if row.set is None else "\t" + "|".join(row.set)
                _print_line(("|".join(row.label) if isinstance(row.label, tuple) else row.label or "") + inside)
        if partial is not None and output_file is not None:
            count, labelled = partial.rows, sum(one.prediction.label is not None for one in partial.read(None))
            bad, format_read, done = partial.bad, cast(Format, format), partial
            read_again = (lambda: input_rows(file, format_read, text_column, settings)) if file and again else None

            def written() -> Iterator["PredictedInput"]:
                for one in done.read(read_again):
                    yield one if resolved.output.texts else without_text(one, text_column)

            write_predictions(
                output_file, written, file,
                header=header if resolved.output.texts else header_without_text(header, text_column),
                labels=resolved.prompt.labels or [], several=resolved.prompt.kind == "multilabel",
                sets=coverage is not None,
            )  # fmt: skip
            say(f"{partial.rows} {'row' if partial.rows == 1 else 'rows'} in {output_file}")
    say_counts(count, bad, labelled, max_error)


def _print_line(text: str) -> None:
    """Prints a line in one piece, so that a killed process leaves whole lines."""
    results_stream().write(text + "\n")
    results_stream().flush()


def _as_json(row: Any) -> dict[str, Any]:
    if row.error is not None:
        return {"row": row.row, "label": None, "error": row.error}
    extra = {"extra": row.extra} if row.extra else {}
    inside = {} if row.set is None else {"set": row.set}
    # Each of several labels has a probability of its own, and an empty label set has none.
    confidence = {} if isinstance(row.label, tuple) else {"confidence": max(row.probs.values())}
    return {"row": row.row, "text": row.text, "label": row.label, **inside, **confidence, "probs": row.probs, **extra}
