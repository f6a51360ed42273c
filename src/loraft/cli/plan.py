"""`loraft plan`: parses the flags and prints the tables; `delivery.plan` does the work."""

from pathlib import Path
from typing import Annotated

import typer

from loraft.cli.console import print_json, results_follow, start_command
from loraft.cli.options import ConfigFile, Data, Json, Model, Preset, Quant, Rank, Sets, Task, dotted


def plan(
    length: Annotated[
        int | None, typer.Option(min=1, metavar="TOKENS", help="Of every row; else the data's.", show_default=False)
    ] = None,
    calibrate: Annotated[
        bool, typer.Option(help="Train for ten seconds to tell the time, where the weights are there.")
    ] = True,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the memory of the three methods.")
    ] = None,
    quant_error: Annotated[
        bool,
        typer.Option(
            "--quant-error", help="Measure what nf4, fp4 and int8 lose, by layer type: root mean square error."
        ),
    ] = False,
    preset: Preset = None,
    config: ConfigFile = None,
    sets: Sets = None,
    model: Model = None,
    data: Data = None,
    task: Task = None,
    quant: Quant = None,
    rank: Rank = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --figure.")] = False,
    json: Json = False,
) -> None:
    """Tell what a training will need: weights, memory and batch on common cards, steps, time.

    The backbone's config.json is enough; nothing is downloaded but that file.
    """
    from loraft.config.resolve import resolve
    from loraft.display import table
    from loraft.runs.records import as_json

    flags = dotted(model=model, data=data, task=task, quant=quant, rank=rank)
    resolved = resolve(preset=preset, config_file=config, overrides=sets or (), flags=flags)
    start_command(resolved, verbose=False)

    from loraft.delivery import plan as planning
    from loraft.delivery import plan_tables
    from loraft.errors import ConfigError
    from loraft.runs.output_paths import check_target

    if figure is not None:
        if figure.suffix.lower() != ".png":
            raise ConfigError(f"--figure: is drawn as PNG (got {figure}); name a file that ends in .png")
        check_target(figure, "--figure", own=None, force=force)
    found = planning.plan(resolved, length=length, seconds=planning.CALIBRATION if calibrate else 0)
    errors = []
    if quant_error:
        from loraft.delivery import quant_error as rounding

        errors = rounding.measure(resolved)
    if figure is not None:
        from loraft.delivery import memory_figure

        memory_figure.draw(plan_tables.by_name(found), figure, title=plan_tables.title(found))
    results_follow()
    if json:
        more = {"quant_error": errors} if quant_error else {}
        print_json(as_json(found) | {"seconds": found.seconds} | more)
        return
    table.show_lines(plan_tables.head_lines(found))
    table.show([plan_tables.memory_table(found), plan_tables.device_table(found)])
    if quant_error:
        table.show([rounding.table(errors)])
    table.show_lines(plan_tables.foot_lines(found))
