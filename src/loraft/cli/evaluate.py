"""The command `loraft eval`."""

from pathlib import Path
from typing import Annotated

import typer

from loraft.cli.console import print_json, results_follow, start_command
from loraft.cli.finished_run import refuse_several, run_or_adapter
from loraft.cli.options import (
    Adapter,
    ConfigFile,
    Data,
    Json,
    Model,
    Output,
    Preset,
    Quant,
    Raw,
    RunName,
    Seed,
    Sets,
    Task,
    Verbose,
    dotted,
    uncalibrated,
)


def evaluate(
    run: RunName = None,
    adapter: Adapter = None,
    zero_shot: Annotated[bool, typer.Option("--zero-shot", help="The bare backbone instead of a run.")] = False,
    split: Annotated[str, typer.Option(help="train, validation, test, or a labelled file.")] = "test",
    decode: Annotated[str | None, typer.Option(help="score (exact) or generate (free text, parsed).")] = None,
    raw: Raw = False,
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
    """Judge a finished run, an adapter made elsewhere, or with --zero-shot the bare backbone, on labelled rows."""
    from loraft.config.resolve import resolve

    flags = dotted(
        model=model,
        data=data,
        task=task,
        quant=quant,
        output=output,
        seed=seed,
        decode=decode,
        calibrate=uncalibrated(raw),
    )
    refuse_several({"--run": run, "--adapter": adapter, "--zero-shot": zero_shot})
    if zero_shot:
        path, resolved = None, resolve(preset=preset, config_file=config, overrides=sets or (), flags=flags)
    else:
        path, resolved = run_or_adapter(
            run, adapter, sets or (), flags, output=output, preset=preset, config_file=config
        )
    start_command(resolved, verbose, adapter=path or adapter, source=split if Path(split).is_file() else None)

    from loraft.display import table
    from loraft.evaluation import evaluate as evaluation
    from loraft.evaluation import tables
    from loraft.evaluation.choosing import Metric

    result = evaluation.evaluate(config=resolved, run=path, adapter=adapter, split=split, zero_shot=zero_shot)
    results_follow()
    if json:
        print_json(result)
    else:
        metric = Metric.of(resolved)
        table.show([*tables.parts(result.report, metric), *tables.baselines({"": result.baselines}, metric=metric)])
        notes = tables.calibration_notes(result.report)
        if result.baselines is not None:
            notes += [*tables.baselines_notes({"": result.baselines}, metric=metric), result.baselines.verdict]
        if notes:
            table.show_lines(notes)
