"""The command `loraft train`."""

import shlex
from typing import Annotated

import typer

from loraft import distributed
from loraft.cli.console import say, start_command
from loraft.cli.options import (
    ConfigFile,
    Data,
    Json,
    Model,
    Output,
    Preset,
    Quant,
    Rank,
    Seed,
    Sets,
    Task,
    Verbose,
    dotted,
)
from loraft.errors import RunError


def train(
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
    force: Annotated[bool, typer.Option("--force", help="Delete an earlier run of the same name.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Fine-tune an adapter; print the test split's numbers before and after."""
    from loraft.config.resolve import resolve
    from loraft.runs.run import run_of

    flags = dotted(model=model, data=data, task=task, quant=quant, rank=rank, output=output, seed=seed)
    resolved = resolve(preset=preset, config_file=config, overrides=sets or (), flags=flags)
    run = run_of(resolved)
    if distributed.is_main_process():
        run.check(force=force, resume=resume)
    if resume and not run.config_path.is_file():
        raise RunError(
            f"--resume: no run was begun in {run.path}; leave --resume out, or name one with --config RUN/config.yaml"
        )
    start_command(resolved, verbose, several=True)

    from loraft.display import table
    from loraft.evaluation import tables
    from loraft.evaluation.choosing import Metric
    from loraft.runs.atomic_files import to_json
    from loraft.runs.records import as_json
    from loraft.training import pipeline

    result = pipeline.train(resolved, force=force, resume=resume)
    if json:
        print(to_json(as_json(result)))
    else:
        metric = Metric.of(resolved)
        shown = tables.before_after(result.before, result.after, metric)
        table.show([shown, *tables.baselines({"": result.baselines}, metric)])
        if result.baselines is not None:
            print(result.baselines.verdict)
    say(f"run: {result.run}")
    say(f"next: loraft predict --run {shlex.quote(result.run)} 'thầy giảng bài rất dễ hiểu'")
