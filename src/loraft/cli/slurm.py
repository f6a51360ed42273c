"""`loraft sweep --emit slurm` and `--array-task`: a sweep as a job array; `studies.sweep.slurm` does the work."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loraft.cli.console import print_json, results_follow, say
from loraft.cli.options import choice
from loraft.config.names import show
from loraft.errors import ConfigError, listed

if TYPE_CHECKING:
    from loraft.config.schema import Config

PANEL = "SLURM"  # section of the help page
Emit = Annotated[
    str | None,
    choice("slurm", help="Train nothing: write a script that runs the trials as a job array.", show_default="none",
           rich_help_panel=PANEL),
]  # fmt: skip
SlurmOptions = Annotated[
    list[str] | None,
    typer.Option("--slurm", metavar="OPTION", help="Of sbatch, for the script, such as gres=gpu:1; repeatable.",
                 autocompletion=lambda: ["gres=gpu:1", "time=04:00:00", "cpus-per-task=8", "mem=32G", "array=%8"],
                 rich_help_panel=PANEL),
]  # fmt: skip
ArraySize = Annotated[
    int | None,
    typer.Option(min=1, help="Array tasks; fewer than trials: those that can be are trained together.",
                 show_default="one a trial", rich_help_panel=PANEL),
]  # fmt: skip
ArrayTask = Annotated[
    int | None,
    typer.Option(min=0, help="Run one array task of --config SWEEP/sweep.yaml; the script does.", show_default="none",
                 rich_help_panel=PANEL),
]  # fmt: skip


def refuse_together(
    emit: str | None,
    array_task: int | None,
    config: Path | None,
    script: Mapping[str, Any],
    others: Mapping[str, Any],
    fixed: Sequence[str],
) -> None:
    """Refuses flags that do not go with --emit or --array-task.

    Args:
        emit, array_task, config: values of these flags.
        script: flags that only --emit takes, with their values.
        others: flags that neither takes.
        fixed: given flags that --array-task does not take, since the script fixed them.

    Raises:
        ConfigError: some are given together; --emit names no scheduler; or --array-task lacks --config.
    """
    given = [flag for flag, value in others.items() if value not in (None, False)]
    alone = [flag for flag, value in script.items() if value]
    if emit not in (None, "slurm"):
        raise ConfigError(f"--emit: no scheduler that scripts are written for (got {show(emit)}); only slurm")
    if emit is None and alone:
        raise ConfigError(f"{', '.join(alone)}: an option of the script (got no --emit); give --emit slurm too")
    if array_task is not None:
        given += [*fixed, *(["--emit"] if emit else [])]
    if given and (emit or array_task is not None):
        flag = "--emit slurm" if array_task is None else "--array-task"
        raise ConfigError(f"{flag}: does not go with other work (got {', '.join(given)} too); give one of them")
    if array_task is not None and config is None:
        raise ConfigError(
            "--array-task: needs the sweep that the script was written for (got no --config); --config SWEEP/sweep.yaml"
        )


def emit_script(config: "Config", options: Sequence[str], size: int | None, json: bool) -> None:
    """Writes the script; prints its path, and what to do with it."""
    from loraft.studies.sweep import slurm

    array = slurm.emit(config, options, size=size, tell=say)
    results_follow()
    if json:
        print_json(array)
    elif array.script is not None:
        print(array.script)
    for number, message in array.at_work.items():
        say(f"array task {number} is left out: {message}")
    if array.script is None:
        say("no array task is left to submit")
    else:
        say(f"{len(array.unfinished)} of {array.tasks} array tasks are to be run")
        if not any("gpu" in option for option in array.options):
            say("note: the script asks for no GPU; --slurm gres=gpu:1 does")
        say(f"next: sbatch {shlex.quote(array.script)}")
    say(f"when they have ended: {array.conclusion}")


def run_task(config: "Config", number: int, json: bool) -> None:
    """Trains the trials of one array task.

    Raises:
        typer.Exit: with 1, a trial failed.
    """
    from loraft.studies.sweep import slurm

    try:
        errors = slurm.run_array_task(config, number, tell=say)
    except KeyboardInterrupt as stop:
        stop.add_note("the same array task goes on from there, requeued or submitted again")
        raise
    results_follow()
    if json:
        print_json(errors)
    failed = [name for name, error in errors.items() if error is not None]
    if failed:
        say(f"array task {number}: {len(failed)} of {len(errors)} trials failed: {listed(failed)}")
        raise typer.Exit(1)
    finished = "trial is finished" if len(errors) == 1 else f"{len(errors)} trials are finished"
    say(f"array task {number}: its {finished}")
