"""The studies on the command line: thin functions that parse and print; the work is in plain functions below."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from loraft.errors import ConfigError
from loraft.options import ConfigFile, Data, Json, Model, Output, Preset, Quant, Seed, Sets, Task, Verbose, dotted
from loraft.progressions import expand_integers
from loraft.talking import begin, say

# --- loraft sweep ---


def sweep(
    ranks: Annotated[
        str | None, typer.Option(metavar="1,2,4,...,128", help="LoRA ranks; the dots stand for a progression.")
    ] = None,
    grid: Annotated[
        list[str] | None, typer.Option(metavar="KEY=V1,V2", help="Any config key with its values; repeatable.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(metavar="1,2,3", help="Every trial with each of these seeds.")] = None,
    joint: Annotated[
        str | None, typer.Option(metavar="auto|on|off", help="Train all ranks in one pass; auto: where it wins.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the trials and what each would train.")] = False,
    preset: Preset = None,
    config: ConfigFile = None,
    sets: Sets = None,
    model: Model = None,
    data: Data = None,
    task: Task = None,
    quant: Quant = None,
    output: Output = None,
    seed: Seed = None,
    force: Annotated[bool, typer.Option("--force", help="Run finished trials again.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Fine-tune one adapter for each rank (or point of a grid) and compare them.

    Given again, the same command goes on: finished trials are kept, an interrupted one is resumed.
    """
    from loraft import runs, sweeping, sweeptables, tables
    from loraft.resolving import resolve

    if seed is not None and seeds is not None:
        raise ConfigError(f"--seed and --seeds: two answers to one question (got {seed} and {seeds}); leave --seed out")
    flags = {
        **dotted(model=model, data=data, task=task, quant=quant, output=output, seed=seed),
        "sweep.ranks": sweeping.expand_ranks(ranks) if ranks is not None else [] if grid else None,
        "sweep.grid": sweeping.parse_grid(grid) if grid else None,
        "sweep.seeds": expand_integers(seeds, "--seeds") if seeds is not None else None,
        "sweep.joint": joint,
    }
    resolved = resolve(preset=preset, config_file=config, overrides=sets or (), flags=flags)
    trials = sweeping.expand(resolved)
    begin(resolved, verbose)
    if dry_run:
        planned = sweeping.plan(trials)
        if any(trial["trainable_parameters"] is None for trial in planned):
            from loraft import sweeps

            for record, count in zip(planned, sweeps.count_parameters(trials, say), strict=True):
                record["trainable_parameters"] = count
        if json:
            print(runs.to_json(planned))
        else:
            tables.show([sweeptables.plan(planned)])
        return
    say(f"sweep {sweeping.sweep_name(resolved)}: {len(trials)} trials; --dry-run lists them")

    from loraft import sweeps

    try:
        result = sweeps.sweep(resolved, force=force, tell=say)
    except KeyboardInterrupt:
        say("interrupted; the same command goes on where it was")
        raise
    if json:
        print(runs.to_json(result))
    else:
        tables.show(sweeptables.sweep_tables(result))
        print("\n".join(sweeptables.sweep_notes(result)))
    say(f"sweep: {result['path']}")
    if result["best"] is not None:
        say(f"next: loraft predict --run {shlex.quote(result['best']['run'])} 'thầy giảng bài rất dễ hiểu'")
    if any(trial["status"] == "failed" for trial in result["trials"]):
        raise typer.Exit(1)


# --- loraft compare ---

WORSE = 3  # errors are 1, a wrong usage is 2


def compare(
    names: Annotated[
        list[str], typer.Argument(metavar="RUN RUN...", help="Names or paths; the first is compared with.")
    ],
    rows: Annotated[int, typer.Option(min=0, help="Changed rows to show of each outcome.")] = 5,
    fail_if_worse: Annotated[
        bool, typer.Option("--fail-if-worse", help=f"Exit code {WORSE} if a run is worse than the first beyond chance.")
    ] = False,
    output: Output = None,
    json: Json = False,
) -> None:
    """Compare finished runs with the first one, row by row on the same test rows.

    Worse means that the interval of the difference in accuracy or macro F1 lies below 0 altogether.
    """
    from loraft import runs, sweeptables, tables

    found = [runs.find_run(name, Path(output or "runs")) for name in names]

    from loraft import comparing

    result = comparing.compare([run.path for run in found])
    if json:
        print(runs.to_json(result))
    else:
        differing = [number for number, other in enumerate(result["others"], start=2) if other["changed"] and rows]
        shown = [sweeptables.changed(result, number, rows) for number in differing]
        tables.show([sweeptables.comparison(result), *shown])
        print("\n".join(sweeptables.comparison_notes(result)))
    if fail_if_worse and any(other["worse"] for other in result["others"]):
        worse = [other["run"] for other in result["others"] if other["worse"]]
        say(f"worse than {result['first']['run']}: {', '.join(worse)}")
        raise typer.Exit(WORSE)
