"""The command `loraft eval`."""

from pathlib import Path
from typing import Annotated

import typer

from loraft.cli.console import print_json, results_follow, start_command
from loraft.cli.finished_run import refuse_several, run_or_adapter
from loraft.cli.options import (
    Adapter,
    ConfigFlags,
    Decode,
    Json,
    Raw,
    RunName,
    Split,
    Verbose,
    uncalibrated,
    with_config_flags,
)


@with_config_flags(without=("rank",))
def evaluate(
    given: ConfigFlags,
    run: RunName = None,
    adapter: Adapter = None,
    zero_shot: Annotated[bool, typer.Option("--zero-shot", help="The bare backbone instead of a run.")] = False,
    split: Split = "test",
    decode: Decode = None,
    raw: Raw = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Judge a finished run, an adapter or a bare backbone.

    Prints scores on labelled rows: of a run, of an adapter made elsewhere (--adapter), or of the backbone without an
    adapter (--zero-shot).

    Examples:
        loraft eval --split validation
        loraft eval --zero-shot --preset quickstart
    """
    flags = given.keys(decode=decode, calibrate=uncalibrated(raw))
    refuse_several({"--run": run, "--adapter": adapter, "--zero-shot": zero_shot})
    if zero_shot:
        path, resolved = None, given.resolve(flags=flags)
    else:
        path, resolved = run_or_adapter(run, adapter, given, flags)
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
