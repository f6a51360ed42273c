"""`loraft compare`: prints the comparison and sets the exit code; `studies.compare.compare` does the work."""

from pathlib import Path
from typing import Annotated

import typer

from loraft.cli.console import print_json, say
from loraft.cli.options import Json, Output, complete_run

WORSE = 3  # exit code; 1 is for errors, 2 for wrong usage


def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN...",
            help="Names or paths; the others are compared with the first.",
            autocompletion=complete_run,
        ),
    ],
    rows: Annotated[int, typer.Option(min=0, max=10_000, help="Changed rows to show for each outcome.")] = 5,
    fail_if_worse: Annotated[
        bool, typer.Option("--fail-if-worse", help=f"Exit code {WORSE} if accuracy or macro F1 is lower beyond chance.")
    ] = False,
    output: Output = None,
    json: Json = False,
) -> None:
    """Compare finished runs with the first one, row by row.

    On the same test rows. Worse means that accuracy (McNemar's test) or macro F1 (paired permutation of the rows) is
    lower, with a p-value, Holm-corrected for all runs and scores, of at most 1 - eval.confidence.

    Examples:
        loraft compare run-a run-b --rows 10
        loraft compare run-a run-b --fail-if-worse
    """
    from loraft.runs.run import find_run

    found = [find_run(name, Path(output or "runs")) for name in names]

    from loraft.display import table
    from loraft.studies.compare import compare, tables

    result = compare.compare([run.path for run in found])
    if json:
        print_json(result)
    else:
        differing = [number for number, other in enumerate(result.others, start=2) if other.changed and rows]
        shown = [tables.changed(result, number, rows) for number in differing]
        left_out = table.show([tables.comparison(result), *tables.baselines(result), *shown])
        table.show_lines(tables.comparison_notes(result, left_out))
    if fail_if_worse and (worse := tables.worse(result)):
        say("\n".join(worse))
        raise typer.Exit(WORSE)
