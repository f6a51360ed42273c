"""`loraft sweep`: parses the flags, and prints the plan or the results; `studies.sweep` does the work."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from loraft.cli.console import print_json, results_follow, say, start_command
from loraft.cli.finished_run import refuse_fixed
from loraft.cli.options import (
    ConfigFlags,
    Json,
    Verbose,
    complete_pairs,
    complete_run,
    in_its_folder,
    of_key,
    with_config_flags,
)
from loraft.cli.slurm import ArraySize, ArrayTask, Emit, SlurmOptions, emit_script, refuse_together, run_task
from loraft.errors import ConfigError
from loraft.studies.sweep.progression import expand_integers

# Scores of another device, dtype or batch could not be compared with the run's own.
CHANGEABLE_OF_CUTS = ("name=", "eval.bootstrap_samples", "eval.confidence", "eval.batch_tokens", "output")


@with_config_flags(without=("rank",))
def sweep(
    given: ConfigFlags,
    ranks: Annotated[
        str | None,
        of_key("sweep.ranks", metavar="1,2,4,...,128", help="LoRA ranks; the dots stand for a progression."),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=V1,V2", help="Any config key with its values; repeatable.", autocompletion=complete_pairs
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="1,2,3", help="Run every trial with each of these seeds.", show_default="that of --seed"),
    ] = None,
    joint: Annotated[
        str | None, of_key("sweep.joint", help="Train all ranks in one pass; auto: where it is faster.")
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=SPACE",
            help="Let Optuna propose values: log:1e-5:1e-2, 0:0.1 or a list; repeatable.",
            autocompletion=complete_pairs,
        ),
    ] = None,
    trials: Annotated[str | None, of_key("sweep.trials", help="Trials of a search.")] = None,
    engine: Annotated[
        str | None, of_key("sweep.engine", help="Run the trials in this process, or on a Ray cluster.")
    ] = None,
    address: Annotated[
        str | None,
        of_key(
            "sweep.address", metavar="HOST:PORT", help="Of the Ray cluster; null: RAY_ADDRESS, else one started here."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the trials and what each would train.")] = False,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Train nothing: cut this run's adapter to the ranks; of a sweep, the largest.",
            show_default="none",
            autocompletion=complete_run,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Run finished trials again.")] = False,
    emit: Emit = None,
    slurm_options: SlurmOptions = None,
    array_size: ArraySize = None,
    array_task: ArrayTask = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Train an adapter for each rank or point of a grid; compare.

    The same command can be run again at any time: finished trials are kept, an interrupted one is resumed.

    Examples:
        loraft sweep --ranks 1,2,4,...,128
        loraft sweep --search lora.r=1,2,4,...,128 --trials 20
    """
    of_trials = {"--grid": grid, "--seeds": seeds, "--joint": joint, "--search": search, "--trials": trials,
                 "--engine": engine, "--address": address}  # fmt: skip
    refuse_together(
        emit,
        array_task,
        given.config,
        script={"--slurm": slurm_options, "--array-size": array_size},
        others={"--dry-run": dry_run, "--from": source, "--force": force},
        fixed=[flag for flag, value in {"--ranks": ranks, **of_trials, "--set": given.sets}.items() if value]
        + given.given("preset", "model", "data", "task", "quant", "output", "seed"),
    )
    if source is not None:
        fixed = [flag for flag, value in {**of_trials, "--dry-run": dry_run}.items() if value]
        fixed += given.given("preset", "config", "model", "data", "task", "quant", "seed")
        _cut(source, ranks, fixed, given.sets or (), given.output, force, json, verbose)
        return

    from loraft.display import table
    from loraft.runs.study_folders import SweepFolder
    from loraft.studies.sweep import tables
    from loraft.studies.sweep.grid import expand, expand_ranks, parse_grid, refuse_script, sweep_name, trial_with
    from loraft.studies.sweep.space import parse_search, space
    from loraft.studies.sweep.trials import plan

    if given.seed is not None and seeds is not None:
        raise ConfigError(f"--seed and --seeds: give only one of them (got {given.seed} and {seeds}); leave --seed out")
    flags = {
        **given.keys(),
        "sweep.ranks": expand_ranks(ranks) if ranks is not None else [] if grid or search else None,
        "sweep.grid": parse_grid(grid) if grid else None,
        "sweep.seeds": expand_integers(seeds, "--seeds") if seeds is not None else None,
        "sweep.joint": joint,
        "sweep.search": parse_search(search) if search else None,
        "sweep.trials": trials,
        "sweep.engine": engine,
        "sweep.address": address,
    }
    resolved = in_its_folder(
        given.resolve(flags=flags), given.resolve, flags, given.config, SweepFolder,
        lambda saved: Path(saved.output.folder) / sweep_name(saved),
    )  # fmt: skip
    if trials is not None and not resolved.sweep.search:
        raise ConfigError(f"--trials: of a search alone (got {trials} without --search); a grid has what it lists")
    axes = space(resolved) if resolved.sweep.search else []
    # Of a search the backbones alone are known beforehand.
    named = next((axis.values for axis in axes if axis.key == "model.name"), ())
    backbones = [trial_with(resolved, {"model.name": name}, "--search model.name") for name in named]
    listed = backbones if axes else expand(resolved)
    if emit is not None:
        refuse_script(resolved)
    if address is not None and resolved.sweep.engine != "ray":
        raise ConfigError(f"--address: is of a Ray cluster (got --engine {resolved.sweep.engine}); add --engine ray")
    start_command(resolved, verbose, one_gpu=resolved.sweep.engine == "local")
    if dry_run:
        planned = plan(listed, force=force)
        if any(trial.trainable_parameters is None for trial in planned):
            from loraft.studies.sweep import runner

            counts = runner.count_parameters(listed, say)
            planned = [replace(trial, trainable_parameters=n) for trial, n in zip(planned, counts, strict=True)]
        results_follow()
        if json:
            print_json(axes or planned)
        else:
            table.show([tables.space(axes) if axes else tables.plan(planned)])
        return
    if array_task is not None:
        run_task(resolved, array_task, json)
        return
    many, what = (resolved.sweep.trials, "shows the space") if axes else (len(listed), "lists them")
    say(f"sweep {sweep_name(resolved)}: {many} trials; --dry-run {what}")
    if emit is not None:
        emit_script(resolved, slurm_options or (), array_size, json)
        return

    from loraft.ray_cluster import quiet
    from loraft.runs.predictions import command_with_a_row
    from loraft.runs.run import Run
    from loraft.studies.sweep import runner

    try:
        with quiet(verbose=verbose or resolved.sweep.engine != "ray"):
            result = runner.sweep(resolved, force=force, tell=say)
    except KeyboardInterrupt as stop:
        stop.add_note("the same command begins again" if force else "the same command goes on from there")
        raise
    results_follow()
    if json:
        print_json(result)
    else:
        table.show_lines(tables.sweep_notes(result, table.show(tables.sweep_tables(result))))
    say(f"sweep: {result.path}")
    if result.best is not None:
        say(f"next: {command_with_a_row(Run(Path(result.best.run)))}")
    if result.failed:
        raise typer.Exit(1)


def _cut(
    source: str,
    ranks: str | None,
    fixed: Sequence[str],
    sets: Sequence[str],
    output: str | None,
    force: bool,
    json: bool,
    verbose: bool,
) -> None:
    """Cuts a trained adapter to the ranks, and prints their scores."""
    fixed = [*fixed, *(f"--set {item}" for item in sets if not item.strip().startswith(CHANGEABLE_OF_CUTS))]
    refuse_fixed(fixed, "loraft sweep without --from trains with any setting")

    from loraft.config.resolve import resolve
    from loraft.studies.sweep.grid import expand_ranks

    wanted = None if ranks is None else expand_ranks(ranks)

    from loraft.display import table
    from loraft.runs.bundle import config_of
    from loraft.runs.predictions import command_with_a_row
    from loraft.runs.run import Bundle
    from loraft.studies.sweep import curve, curve_tables

    folder = Path(output or "runs")
    run = curve.find_source(source, folder)
    own = config_of(run).model_copy(update={"name": None})
    resolved = resolve(base=own, overrides=sets, flags={"output": str(folder)})
    start_command(resolved, verbose)
    result = curve.rank_curve(run, resolved, wanted, force=force, tell=say)
    results_follow()
    if json:
        print_json(result)
    else:
        table.show_lines(curve_tables.curve_notes(result, table.show([curve_tables.curve(result)])))
    say(f"rank curve: {result.path}")
    cuts = [point for point in result.points if point.made == "cut"]
    smallest = next((point for point in cuts if point.to_full is not None and point.to_full.equivalent), cuts[-1])
    say(f"next: {command_with_a_row(Bundle(Path(smallest.run)))}")
