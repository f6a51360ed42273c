"""`loraft plan`: parses the flags and prints the tables; `delivery.plan` does the work."""

from pathlib import Path
from typing import Annotated

import typer

from loraft.cli.console import print_json, results_follow, start_command
from loraft.cli.options import ConfigFlags, Json, with_config_flags


@with_config_flags(without=("output", "seed"))
def plan(
    given: ConfigFlags,
    length: Annotated[
        int | None, typer.Option(min=1, metavar="TOKENS", help="Length of every row.", show_default="the data's")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option(help="Train for ten seconds to tell the time, where the weights are there.")
    ] = True,
    figure: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw the memory of the three methods.", show_default="none"),
    ] = None,
    quant_error: Annotated[
        bool,
        typer.Option(
            "--quant-error", help="Measure what nf4, fp4 and int8 lose, by layer type: root mean square error."
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --figure.")] = False,
    json: Json = False,
) -> None:
    """Tell what a training will need: memory, batch, steps, time.

    Also what the weights take, on common cards. The backbone's config.json is enough; nothing is downloaded but that
    file.

    Examples:
        loraft plan --no-calibrate
        loraft plan --quant nf4 --rank 8 --length 256
    """
    from loraft.display import table
    from loraft.runs.records import as_json

    resolved = given.resolve(flags=given.keys())
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
