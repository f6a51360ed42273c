"""The command `loraft merge`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from loraft.cli.console import print_json, results_follow, say, start_command
from loraft.cli.finished_run import finished_run
from loraft.cli.options import Json, RunArgument, Sets, Verbose


def merge(
    output: Annotated[Path, typer.Option("--output", metavar="FOLDER", help="Where the merged model goes.")],
    run: RunArgument = None,
    base: Annotated[
        str | None, typer.Option(help="QLoRA: dequantised (the default; as trained) or original weights below.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="bf16, fp16 or fp32; else that of the training.")] = None,
    split: Annotated[str, typer.Option(help="Rows to compare on: a split, or a labelled file.")] = "validation",
    min_agreement: Annotated[float, typer.Option(help="Least share of rows with the run's label.")] = 0.99,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier merged model.")] = False,
    sets: Sets = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write adapter and backbone as one model, for transformers, vLLM and llama.cpp, if it answers as the run does."""
    path, config = finished_run(run, None, sets or (), {})
    start_command(config, verbose, adapter=path, source=split if Path(split).is_file() else None)

    from loraft.delivery import merge as merging
    from loraft.display import table
    from loraft.runs.records import as_json

    made = merging.merge(
        path, output, config=config, weights=merging.Weights(base, dtype), split=split, min_agreement=min_agreement,
        force=force,
    )  # fmt: skip
    results_follow()
    if json:
        print_json({"folder": str(output), **as_json(made)})
    else:
        table.show(merging.tables(made))
        table.show_lines([*merging.notes(made.calibration, made.validation_rows), str(output)])
    say(f"next: loraft eval --run {shlex.quote(str(output))}")
