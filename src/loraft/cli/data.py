"""`loraft data`: parses the flags and prints the tables; `studies.dataset.statistics` does the work."""

import csv
import io
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from loraft.cli.console import print_json, results_follow, say, start_command
from loraft.cli.options import ConfigFlags, Json, Source, choice, with_config_flags
from loraft.progress import Stage
from loraft.visible import visible

if TYPE_CHECKING:
    from loraft.config.schema import Config


@with_config_flags(without=("quant", "rank", "seed"))
def data(
    given: ConfigFlags,
    source: Source = None,
    by: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column for the table of shares.", show_default="another task's")
    ] = None,
    tokens: Annotated[bool, typer.Option(help="Measure lengths with the backbone's tokenizer.")] = True,
    near: Annotated[bool, typer.Option(help="Search for near-duplicates between splits.")] = True,
    list_rows: Annotated[
        str | None,
        choice(
            "leaks",
            "conflicts",
            "duplicates",
            "shortened",
            names=["--list"],
            show_default="none",
            help="Only print these rows, as CSV.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the description of another source or other splits.")
    ] = False,
    json: Json = False,
) -> None:
    """Describe a data source: splits, labels, lengths, leaks.

    Also duplicates and conflicting labels. Without --task, --config or --by, a source that is not the default task's is
    described as it is: columns, labels, lengths.

    Examples:
        loraft data feedback
        loraft data feedback --list conflicts
    """
    from loraft.display import table
    from loraft.studies.dataset import tables

    given = given.of_source(source)
    resolved, sets = given.resolve(flags=given.keys()), given.sets or []
    start_command(resolved, verbose=False)

    from loraft.studies.dataset import statistics

    asked = given.task or given.config or by or any(pair.strip().startswith("prompt.") for pair in sets)
    reason = None if asked else statistics.misfit(resolved)
    if list_rows is not None:
        from loraft.studies.dataset.listing import listed

        if reason is not None:
            resolved = _guessed(resolved, reason)
        columns, rows = listed(resolved, list_rows)
        results_follow()
        if json:
            print_json(rows)
        else:
            text = io.StringIO()
            writer = csv.DictWriter(text, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            print(visible(text.getvalue()) if sys.stdout.isatty() else text.getvalue(), end="")
        say(f"{list_rows}: {len(rows):,} {'row' if len(rows) == 1 else 'rows'}")
        return

    if reason is not None:
        _overview(resolved, reason, sets, json=json)
        return
    with Stage(f"describing {resolved.data.source}"):
        found = statistics.describe(resolved, by=by, tokens=tokens, near=near, force=force)
    results_follow()
    if json:
        print_json(found)
    else:
        table.show(tables.data_tables(found))
        legend = [tables.near_legend(found)] if found.leaks else []
        table.show_lines([*legend, tables.conflict_total(found), *tables.data_notes(found)])
    say(f"figures and numbers: {found.path}")
    say(f"next: loraft report {shlex.quote(found.path)}")


def _guessed(config: "Config", reason: str) -> "Config":
    """The config for a source that is not the task's, with guessed columns and labels; says so."""
    from loraft.studies.dataset import new_task, overview

    found = new_task.guessed(config, overview.survey(config))
    say(f"listed as it is, not as rows of task {config.prompt.task}: {reason}")
    say(f"text column: {found.data.text_column}; label column: {found.data.label_column}; --set data.text_column=NAME"
        " and data.label_column=NAME name others")  # fmt: skip
    return found


def _overview(config: "Config", reason: str, sets: Sequence[str], *, json: bool) -> None:
    """Prints what is in a source that is not the task's, and why it is not."""
    from loraft.display import table
    from loraft.studies.dataset import overview

    with Stage(f"describing {config.data.source}"):
        found = overview.survey(config)
    results_follow()
    if json:
        print_json(found)
    else:
        table.show(overview.overview_tables(found))
        table.show_lines(overview.overview_lines(found))
    say(f"described as it is, not as rows of task {config.prompt.task}: {reason}")
    command, given = ["task", "new", "--data", found.source], [*sets]
    if found.undecodable and not found.vietnamese:  # no row shows that the file is UTF-8 for the most part
        command, given = ["data", found.source], [*sets, "data.encoding=cp1258"]
    say("next: " + shlex.join(["loraft", *command, *(word for one in given for word in ("--set", one))]))
