"""`loraft check`: parses the flags and prints what `delivery.check` finds."""

from typing import Annotated

import typer

from loraft.cli.console import print_json, results_follow, say, start_command
from loraft.cli.options import ConfigFlags, Json, with_config_flags


@with_config_flags()
def check(
    given: ConfigFlags,
    speed: Annotated[bool, typer.Option(help="Train some steps to measure rows a second.")] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for warnings, too.")] = False,
    json: Json = False,
) -> None:
    """Look for what would spoil a training, before it.

    Its config, rows, prompts and learning rate; asks no hub. Exits with 1 where the result would be worth nothing: a
    label without training rows, most of a split cut away or also in train, a learning rate far too high, a backbone,
    prompt or loss that fails. Mistakes in the config: 2.

    Examples:
        loraft check --no-speed
        loraft check --task topic --strict
    """
    from loraft.display import table

    resolved = given.resolve(flags=given.keys())
    start_command(resolved, verbose=False)

    from loraft.delivery import check_tables
    from loraft.delivery.check import check as look

    found = look(resolved, speed=speed)
    results_follow()
    if json:
        print_json(found)
    else:
        table.show(check_tables.tables(found))
        table.show_texts([*check_tables.prompts(found), *check_tables.lines(found)])
    bad = found.count("error") + strict * found.count("warning")
    more = "next: loraft data --list lists rows, loraft config prints the whole config"
    say(more if bad else "next: loraft train, with the same flags")
    raise typer.Exit(int(bad > 0))
