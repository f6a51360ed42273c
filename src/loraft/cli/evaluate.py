"""The command `loraft eval`."""

from pathlib import Path
from typing import Annotated

import typer

from loraft.cli.console import start_command
from loraft.cli.finished_run import finished_run, refuse_fixed
from loraft.cli.options import (
    ConfigFile,
    Data,
    Json,
    Model,
    Output,
    Preset,
    Quant,
    RunName,
    Seed,
    Sets,
    Task,
    Verbose,
    dotted,
)
from loraft.errors import ConfigError


def evaluate(
    run: RunName = None,
    zero_shot: Annotated[bool, typer.Option("--zero-shot", help="The bare backbone instead of a run.")] = False,
    split: Annotated[str, typer.Option(help="train, validation, test, or a labelled file.")] = "test",
    decode: Annotated[str | None, typer.Option(help="score (exact) or generate (free text, parsed).")] = None,
    preset: Preset = None,
    config: ConfigFile = None,
    sets: Sets = None,
    model: Model = None,
    data: Data = None,
    task: Task = None,
    quant: Quant = None,
    output: Output = None,
    seed: Seed = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Judge a finished run, or with --zero-shot the bare backbone, on labelled rows."""
    from loraft.config.resolve import resolve

    flags = dotted(model=model, data=data, task=task, quant=quant, output=output, seed=seed, decode=decode)
    if zero_shot and run is not None:
        raise ConfigError(
            "--run and --zero-shot: one judges an adapter, the other a backbone; give one of them (a run's backbone: "
            "--zero-shot --config RUN/config.yaml)"
        )
    if zero_shot:
        path, resolved = None, resolve(preset=preset, config_file=config, overrides=sets or (), flags=flags)
    else:
        fixed = {"--preset": preset, "--config": config, "--model": model, "--task": task, "--quant": quant}
        refuse_fixed([flag for flag, value in fixed.items() if value is not None])
        path, resolved = finished_run(run, output, sets or (), flags)
    start_command(resolved, verbose, adapter=path, source=split if Path(split).is_file() else None)

    from loraft.display import table
    from loraft.evaluation import evaluate as evaluation
    from loraft.evaluation import tables
    from loraft.runs.atomic_files import to_json

    result = evaluation.evaluate(config=resolved, run=path, split=split, zero_shot=zero_shot)
    if json:
        print(to_json(result.to_json()))
    else:
        table.show([make(result.report) for make in (tables.summary, tables.per_class, tables.confusion)])
