"""The command `loraft export`."""

from pathlib import Path
from typing import Annotated

import typer

from loraft.cli.console import print_json, results_follow, start_command
from loraft.cli.finished_run import finished_run
from loraft.cli.options import Json, MinAgreement, RunArgument, Sets, Split, Verbose, choice


def export(
    output: Annotated[Path, typer.Option("--output", metavar="FOLDER", help="Where the export goes.")],
    to: Annotated[str, choice("classifier", "onnx", "gguf", help="For transformers, onnxruntime or llama.cpp.")],
    run: RunArgument = None,
    dtype: Annotated[str, choice("fp32", "bf16", "fp16", help="Type of the weights; onnx: fp32.")] = "fp32",
    int8: Annotated[bool, typer.Option("--int8", help="8-bit matrices: onnx dynamic, gguf Q8_0.")] = False,
    split: Split = "validation",
    min_agreement: MinAgreement = 0.99,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    sets: Sets = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write a run for transformers, onnxruntime or llama.cpp.

    It is written if it answers there as here.

    Examples:
        loraft export --to classifier --output classifier
        loraft export --to gguf --output gguf --int8
    """
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
