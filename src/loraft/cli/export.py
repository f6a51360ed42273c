"""The command `loraft export`."""

from pathlib import Path
from typing import Annotated

import typer

from loraft.cli.console import print_json, results_follow, start_command
from loraft.cli.finished_run import finished_run
from loraft.cli.options import Json, RunArgument, Sets, Verbose


def export(
    output: Annotated[Path, typer.Option("--output", metavar="FOLDER", help="Where the export goes.")],
    to: Annotated[str, typer.Option(help="classifier (transformers), onnx, or gguf (llama.cpp).")],
    run: RunArgument = None,
    dtype: Annotated[str, typer.Option(help="fp32, bf16 or fp16; onnx: fp32.")] = "fp32",
    int8: Annotated[bool, typer.Option("--int8", help="8-bit matrices: onnx dynamic, gguf Q8_0.")] = False,
    split: Annotated[str, typer.Option(help="Rows to compare on: a split, or a labelled file.")] = "validation",
    min_agreement: Annotated[float, typer.Option(help="Least share of rows with the run's label.")] = 0.99,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    sets: Sets = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write a run for transformers, onnxruntime or llama.cpp, if it answers there as here."""
    path, config = finished_run(run, None, sets or (), {})
    start_command(config, verbose, adapter=path, source=split if Path(split).is_file() else None)

    from loraft.delivery import export as exporting
    from loraft.display import table
    from loraft.runs.records import as_json

    target = exporting.Target(to, dtype, int8)
    made = exporting.export(path, output, target, config=config, split=split, min_agreement=min_agreement, force=force)
    results_follow()
    if json:
        print_json({"folder": str(output), **as_json(made)})
    else:
        table.show(exporting.tables(made))
        table.show_lines([*exporting.notes(made), str(output)])
