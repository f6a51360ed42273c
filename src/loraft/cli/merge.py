"""The command `loraft merge`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from loraft.cli.console import print_json, results_follow, say, start_command
from loraft.cli.finished_run import finished_run
from loraft.cli.options import Json, MinAgreement, RunArgument, Sets, Split, Verbose, choice


def merge(
    output: Annotated[Path, typer.Option("--output", metavar="FOLDER", help="Where the merged model goes.")],
    run: RunArgument = None,
    base: Annotated[
        str | None,
        choice(
            "dequantised",
            "original",
            help="Weights below an adapter of QLoRA; dequantised: as trained.",
            show_default="dequantised",
        ),
    ] = None,
    dtype: Annotated[
        str | None, choice("bf16", "fp16", "fp32", help="Type of the weights.", show_default="that of the training")
    ] = None,
    split: Split = "validation",
    min_agreement: MinAgreement = 0.99,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier merged model.")] = False,
    sets: Sets = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write adapter and backbone as one model.

    For transformers, vLLM and llama.cpp; it is written if it answers as the run does.

    Examples:
        loraft merge --output merged
        loraft merge --output merged --dtype fp16 --force
    """
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
