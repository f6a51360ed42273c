"""`loraft data`: parses the flags and prints the tables; `studies.dataset.statistics` does the work."""

import shlex
from typing import Annotated

import typer

from loraft.cli.console import say, start_command
from loraft.cli.options import ConfigFile, Data, Json, Model, Output, Preset, Sets, Task, dotted


def data(
    by: Annotated[str | None, typer.Option(help="Column for the table of shares; default: another task's.")] = None,
    tokens: Annotated[bool, typer.Option(help="Measure lengths with the backbone's tokenizer.")] = True,
    near: Annotated[bool, typer.Option(help="Search for near-duplicates between splits.")] = True,
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
