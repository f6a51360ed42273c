"""`loraft data`: parses the flags and prints the tables; `studies.dataset.statistics` does the work."""

import csv
import shlex
import sys
from typing import Annotated

import typer

from loraft.cli.console import say, start_command
from loraft.cli.options import ConfigFile, Data, Json, Model, Output, Preset, Sets, Task, dotted


def data(
    by: Annotated[str | None, typer.Option(help="Column for the table of shares; default: another task's.")] = None,
    tokens: Annotated[bool, typer.Option(help="Measure lengths with the backbone's tokenizer.")] = True,
    near: Annotated[bool, typer.Option(help="Search for near-duplicates between splits.")] = True,
    list_rows: Annotated[
        str | None,
        typer.Option("--list", metavar="KIND", help="Only print, as CSV: leaks, conflicts, duplicates or shortened."),
    ] = None,
    preset: Preset = None,
    config: ConfigFile = None,
    sets: Sets = None,
    model: Model = None,
    data: Data = None,
    task: Task = None,
    output: Output = None,
    json: Json = False,
) -> None:
    """Describe a data source: splits, label shares, lengths, duplicates, leaks, conflicting labels."""
    from loraft.config.resolve import resolve
    from loraft.display import table
    from loraft.runs.atomic_files import to_json
    from loraft.runs.records import as_json
    from loraft.studies.dataset import tables

    flags = dotted(model=model, data=data, task=task, output=output)
    resolved = resolve(preset=preset, config_file=config, overrides=sets or (), flags=flags)
    start_command(resolved, verbose=False)

    if list_rows is not None:
        from loraft.studies.dataset.listing import listed

        columns, rows = listed(resolved, list_rows)
        if json:
            print(to_json(rows))
        else:
            writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        say(f"{list_rows}: {len(rows):,} {'row' if len(rows) == 1 else 'rows'}")
        return

    from loraft.studies.dataset import statistics

    found = statistics.describe(resolved, by=by, tokens=tokens, near=near)
    if json:
        print(to_json(as_json(found)))
    else:
        table.show(tables.data_tables(found))
        legend = [tables.near_legend(found)] if found.leaks else []
        print("\n".join([*legend, tables.conflict_total(found), *tables.data_notes(found)]))
    say(f"figures and numbers: {found.path}")
    say(f"next: loraft report {shlex.quote(found.path)}")
