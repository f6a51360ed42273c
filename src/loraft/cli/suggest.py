"""The command `loraft suggest`: the unlabelled rows that are most worth labelling, for a person to fill in."""

import shlex
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loraft.cli.console import results_stream, say, start_command
from loraft.cli.finished_run import finished_run
from loraft.cli.inputs import TextColumn, file_settings, number_of_rows
from loraft.cli.options import Output, RunName, Sets, Verbose
from loraft.data.readers import input_rows, unlabelled
from loraft.errors import ConfigError, LoraftError, first_line
from loraft.progress import ROWS, Stage, remove

if TYPE_CHECKING:
    from loraft.runs.run import Run

FORMATS = (".csv", ".jsonl")  # which a person can fill in


def suggest(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, TSV, JSONL, Parquet, Excel, text, .gz of text.")],
    n: Annotated[int, typer.Option("--n", min=1, max=10_000, help="Rows to suggest.")] = 100,
    run: RunName = None,
    text_column: TextColumn = None,
    output_file: Annotated[
        Path | None, typer.Option(help="Where to write them: .csv or .jsonl.", show_default="stdout")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output file.")] = False,
    sets: Sets = None,
    output: Output = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a row, with margin and probabilities.")] = False,
    verbose: Verbose = False,
) -> None:
    """List the unlabelled rows that are most worth labelling.

    Those the run is least sure of, no two of them alike. They come as CSV with an empty label column; filled in,
    loraft train --from RUN --add FILE trains on them.

    Examples:
        loraft suggest rows.csv --n 50
        loraft suggest rows.csv --output-file to-label.csv
    """
    from loraft.config.diagnostics import checked
    from loraft.evaluation import suggestion
    from loraft.evaluation.output_file import check_output
    from loraft.runs.atomic_files import to_json
    from loraft.runs.output_paths import writing

    if json and output_file is not None:
        raise ConfigError(f"--json and --output-file: two forms of the result (got {output_file}); give one of them")
    path, resolved = finished_run(run, output, sets or (), {})
    several, texts = resolved.prompt.kind == "multilabel", resolved.output.texts
    if output_file is not None:
        if several and output_file.suffix.lower() == ".csv":
            raise ConfigError(
                f"--output-file: an empty cell of a CSV means a row with none of the labels here (got {output_file},"
                " prompt.kind=multilabel); name a .jsonl file, where null waits for an answer"
            )
        check_output(output_file, file, force=force, formats=FORMATS, own=False)
    column = text_column or resolved.data.text_column
    column = checked(column, "data", "text_column", "--text-column")
    settings = file_settings(resolved.data, sets or ())
    rows = input_rows(file, "auto", column, settings)
    first = list(islice(rows, 1))  # a missing file or column is told before a backbone is loaded
    start_command(resolved, verbose, adapter=path, source=str(file))

    from loraft.evaluation import predict as prediction
    from loraft.models import manifest
    from loraft.runs.run import Run

    trained = Run.open(path)
    label_column = resolved.data.label_column or resolved.prompt.label_column or "label"
    bad, notes = 0, Counter[str]()

    def told() -> Iterator[prediction.Prediction]:
        nonlocal bad
        read = (unlabelled(row, column) for row in chain(first, rows))
        asked = suggestion.worth_asking(read, label_column, known, notes)
        for found in prediction.predict(asked, run=path, config=resolved):
            if found.error is not None:
                bad += 1
                say(f"{file} row {found.row}: {found.error}")
            yield found

    known = _sentences_of(trained)
    labels, calibration = resolved.prompt.labels or [], manifest.calibration(trained.adapter, resolved)
    thresholds = manifest.thresholds(trained.adapter, len(labels), calibration) if several else ()
    with Stage("scoring rows", number_of_rows([], file, settings=settings), ROWS):
        chosen, looked_at = suggestion.suggest(told(), n, thresholds)
    remove()
    lines = suggestion.to_be_labelled(chosen, resolved.data.text_column, label_column, texts=texts or not output_file)
    if json:
        results_stream().writelines(to_json(vars(one), indent=None) + "\n" for one in chosen)
    elif chosen and output_file is None:
        suggestion.write_rows(lines, results_stream(), json_lines=several)
    elif chosen and output_file is not None:
        csv = output_file.suffix.lower() == ".csv"  # Excel knows UTF-8 by its mark only
        with (
            writing(output_file, "--output-file") as temporary,
            temporary.open("w", encoding="utf-8-sig" if csv else "utf-8", newline="") as to,
        ):
            suggestion.write_rows(lines, to, json_lines=several or output_file.suffix.lower() == ".jsonl")
    left = notes[suggestion.WITHOUT_LABEL] - looked_at
    counted = f"{len(chosen)} of {notes[suggestion.WITHOUT_LABEL]:,} {suggestion.WITHOUT_LABEL}"
    counted += f" in {output_file}" if chosen and output_file else ""
    say(counted + (f"; {left:,} known or repeated left out" if left else ""))
    if len(chosen) < min(n, looked_at):
        say(f"note: {n} were asked for; the others that the run is unsure of are much like these")
    filled = shlex.quote(str(output_file)) if output_file else "FILE"
    way = f"fill in {label_column!r}"
    if json:
        way = "the same command without --json, whose rows are as training reads them"
    elif output_file is not None and not texts:
        say("note: output.texts=false leaves the sentences out; 'row' is the number of the row")
        way += f", put the sentences into {resolved.data.text_column!r}"
    if chosen:
        say(f"next: {way}" + ("" if json else f", then loraft train --from {shlex.quote(str(path))} --add {filled}"))
    if bad:
        say(f"{bad} {'row' if bad == 1 else 'rows'} could not be read")
        raise typer.Exit(1)


def _sentences_of(run: "Run") -> list[str]:
    """The sentences that a run was trained and measured on; none, with a note, where they cannot be read any more."""
    from loraft.evaluation.known_rows import rows_of

    try:
        return [text for split in rows_of(run).values() for text in split.texts]
    except LoraftError as error:
        say(f"note: the run's own rows cannot be read, so that suggestions may repeat them ({first_line(error)})")
        return []
