"""The command `loraft explain`: what leaving out each word of a sentence does to its label."""

from typing import TYPE_CHECKING, Annotated

import typer

from loraft.cli.console import results_on_screen, results_stream, say, start_command
from loraft.cli.finished_run import finished_run
from loraft.cli.inputs import InputFile, InputFormat, Sentences, TextColumn, file_settings, given_rows, number_of_rows
from loraft.cli.options import Output, Raw, RunName, Sets, Verbose, dotted, uncalibrated
from loraft.data.labels import asked_label
from loraft.data.readers import unlabelled
from loraft.data.records import BadRow, Example
from loraft.errors import DataError
from loraft.progress import each, remove

if TYPE_CHECKING:
    from loraft.evaluation.explanation import Explanation

LEGEND = (
    "each number: by how many nats the log-odds of the label fall without that word; + speaks for the label, - against"
    " it (docs/explain.md: what that is not)"
)


def explain(
    texts: Sentences = None,
    run: RunName = None,
    file: InputFile = None,
    format: InputFormat = "auto",
    text_column: TextColumn = None,
    label: Annotated[
        str | None, typer.Option(metavar="NAME", help="Label to explain.", show_default="the predicted one")
    ] = None,
    raw: Raw = False,
    sets: Sets = None,
    output: Output = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a label, with each word's place.")] = False,
    verbose: Verbose = False,
) -> None:
    """Print each word's effect on the label of a sentence.

    What leaving out a word does to the label. It shows what the model goes by, not why a label is right: a sentence
    without a word may be one that nobody writes.

    Examples:
        loraft explain "thầy giảng rất dễ hiểu"
        loraft explain "phòng học nóng" --label negative
    """
    from loraft.config.diagnostics import checked

    path, resolved = finished_run(run, output, sets or (), dotted(calibrate=uncalibrated(raw)))
    label = None if label is None else asked_label(label, resolved.prompt.labels or [], "--label")
    column = resolved.data.text_column
    if text_column is not None:
        column = checked(text_column, "data", "text_column", "--text-column")
    settings = file_settings(resolved.data, sets or ())
    rows, source = given_rows("explain", texts or [], file, format, column, settings, [])
    start_command(resolved, verbose, adapter=path, source=source, prints=True)

    from rich.console import Console

    from loraft.evaluation.classifier import load
    from loraft.evaluation.tables import explained
    from loraft.runs.atomic_files import to_json
    from loraft.runs.records import as_json

    classifier = load(path, config=resolved)
    console = Console(file=results_stream(), highlight=False, markup=False, soft_wrap=True)
    if not json:
        say(LEGEND)
    bad, printed, screen = 0, 0, results_on_screen()
    total = None if screen else number_of_rows(texts or [], file, format, settings)
    for item in rows if screen else each(rows, "explaining", "sentences", total=total):
        row = unlabelled(item, column)
        found: list[Explanation] = []
        if isinstance(row, Example):
            try:
                found = classifier.explain(row, label)
            except DataError as error:
                row = BadRow(row.row, str(error).removeprefix(f"row {row.row}: "))  # which is said below
        if isinstance(row, BadRow):
            bad += 1
            say(f"{source} row {row.row}: {row.reason}")
        if screen:
            remove()
        for one in found:
            if not json:
                console.print(*[""] * bool(printed), explained(one, console.width, likeliest=label is None), sep="\n")
            printed += 1
        if json:
            errors = [{"row": row.row, "label": None, "error": row.reason}] if isinstance(row, BadRow) else []
            for line in [*map(as_json, found), *errors]:
                results_stream().write(to_json(line, indent=None) + "\n")
        results_stream().flush()
    if bad:
        say(f"{bad} {'row' if bad == 1 else 'rows'} could not be read")
        raise typer.Exit(1)
