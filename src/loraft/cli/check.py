"""`loraft check`: parses the flags and prints what `delivery.check` finds."""

from typing import Annotated

import typer

from loraft.cli.console import print_json, results_follow, say, start_command
from loraft.cli.options import ConfigFile, Data, Json, Model, Output, Preset, Quant, Rank, Seed, Sets, Task, dotted


def check(
    preset: Preset = None,
    config: ConfigFile = None,
    sets: Sets = None,
    model: Model = None,
    data: Data = None,
    task: Task = None,
    quant: Quant = None,
    rank: Rank = None,
    output: Output = None,
    seed: Seed = None,
    speed: Annotated[bool, typer.Option(help="Train some steps to measure rows a second.")] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for warnings, too.")] = False,
    json: Json = False,
) -> None:
    """Look for what would spoil a training: its config, rows, prompts and learning rate. Asks no hub.

    Exits with 1 where the result would be worth nothing: a label without training rows, most of a split cut away or
    also in train, a learning rate far too high, a backbone, prompt or loss that fails. Mistakes in the config: 2.
    """
    from loraft.config.resolve import resolve
    from loraft.display import table

    flags = dotted(model=model, data=data, task=task, quant=quant, rank=rank, output=output, seed=seed)
    resolved = resolve(preset=preset, config_file=config, overrides=sets or (), flags=flags)
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
