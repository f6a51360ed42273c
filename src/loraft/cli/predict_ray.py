"""`loraft predict --engine ray`: its own flags, and what it says and refuses."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from loraft.cli.console import python_alone_on_stderr, say, start_command
from loraft.cli.options import choice
from loraft.config.names import show
from loraft.data.parts import input_files, is_pattern
from loraft.data.readers import Format
from loraft.data.records import FileSettings
from loraft.errors import ConfigError

if TYPE_CHECKING:
    from loraft.config.schema import Config

PANEL = "With --engine ray"
SHARD_ROWS = 2**14

Engine = Annotated[str, choice("local", "ray", help="ray: on the workers of a cluster, which take files in parts.")]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Of a running cluster.",
        show_default="RAY_ADDRESS, else one is started here",
        rich_help_panel=PANEL,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="That load the backbone once each.", show_default="as many as fit", rich_help_panel=PANEL),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(
        min=0, help="0.5: two share a GPU.", show_default="1 where the cluster has any", rich_help_panel=PANEL
    ),
]
ShardRows = Annotated[
    int | None,
    typer.Option(min=1, help="Rows of an output file, at most.", show_default=f"{SHARD_ROWS}", rich_help_panel=PANEL),
]
OutputFormat = Annotated[
    str | None,
    choice("parquet", "jsonl", "csv", help="Of the output files.", show_default="the input's", rich_help_panel=PANEL),
]


def refuse_others(engine: str, file: Path | None, own: Mapping[str, object], others: Mapping[str, object]) -> None:
    """Refuses flags of the other engine, and inputs that this one cannot read.

    Args:
        engine: as given.
        file: the input.
        own: flags of the engine `ray`.
        others: what only the engine `local` can do.

    Raises:
        ConfigError: there are some.
    """
    if engine not in ("local", "ray"):
        raise ConfigError(f"--engine: unknown (got {show(engine)}); allowed: local, ray")
    given = [flag for flag, value in (others if engine == "ray" else own).items() if value]
    if given and engine == "local":
        raise ConfigError(f"{', '.join(given)}: only with --engine ray (got --engine local)")
    if given:
        raise ConfigError(f"{', '.join(given)}: not with --engine ray; use --engine local")
    if engine == "local" and file is not None and is_pattern(file):
        raise ConfigError(
            f"--input: no such file (got {show(str(file))}); check the path; a pattern of several files needs"
            " --engine ray"
        )


def say_counts(rows: int, bad: int, labelled: int, max_error: float | None) -> None:
    """Says at the end how many rows have no label.

    Raises:
        Exit: some rows could not be read.
    """
    if max_error is not None and rows > bad:
        share = labelled / (rows - bad)
        say(f"{labelled:,} of {rows - bad:,} rows have a label ({share:.1%}), the others are undecided (--max-error)")
    if bad:
        say(f"{bad} {'row' if bad == 1 else 'rows'} could not be read")
        raise typer.Exit(1)


def predict_on_ray(
    context: typer.Context,
    config: "Config",
    run: Path | None,
    adapter: Path,
    *,
    file: Path | None,
    format: str,
    text_column: str,
    settings: FileSettings,
    output: Path | None,
    output_format: str | None,
    min_confidence: float | None,
    max_error: float | None,
    decisions: Mapping[str, Any],
    address: str | None,
    workers: int | None,
    gpus: float | None,
    shard_rows: int | None,
    resume: bool,
    force: bool,
    verbose: bool,
) -> None:
    """Predicts files on a Ray cluster, and says what is in the folder.

    Args:
        context: of the command.
        config: of the prediction.
        run: a finished run, if there is one.
        adapter: folder of the adapter.
        file: the input: a file, a folder or a pattern.
        format: of it.
        text_column: of the sentence.
        settings: how the input is read.
        output: folder of the predictions.
        output_format: of its files.
        min_confidence: as in `predict`.
        max_error: instead of it.
        decisions: `sets`, `sets_by_label` and `prior` of `predict`.
        address: of the cluster.
        workers: how many.
        gpus: of each.
        shard_rows: of an output file.
        resume: go on with the folder.
        force: replace its predictions.
        verbose: show the libraries' warnings too.

    Raises:
        ConfigError: something cannot be done in this way.
        Exit: some rows or files could not be read.
    """
    from loraft.delivery import ray_predict
    from loraft.delivery.predict_worker import Task
    from loraft.delivery.shards import ShardFolder
    from loraft.evaluation.output_file import FORMATS
    from loraft.evaluation.partial_file import settings_of
    from loraft.evaluation.validated import validated
    from loraft.models import manifest
    from loraft.models.adapter_files import check_weights
    from loraft.ray_cluster import connected, quiet
    from loraft.runs.lock import locked, refuse_locked
    from loraft.runs.peft_folder import read_peft_folder

    if file is None or output is None:
        raise ConfigError(
            f"--engine ray: reads files and writes a folder (got --input {file}, --output-file {output}); such as"
            " --input 'data/*.parquet' --output-file out/"
        )
    if format not in get_args(Format) or format == "text":
        raise ConfigError(f"--format: not with --engine ray (got {show(format)}); use --engine local")
    if output.suffix.lower() in FORMATS and not output.is_dir():
        raise ConfigError(f"--output-file: --engine ray writes a folder of files (got {output}); such as out/")
    if gpus is not None and not (gpus <= 1 or gpus.is_integer()):
        raise ConfigError(f"--gpus-per-worker: is no share of a GPU, and no whole number (got {gpus}); such as 0.5")
    files = input_files(file, output)
    suffix = ray_predict.output_suffix(files, output_format)
    refuse_locked(ShardFolder(output).path)
    most = shard_rows or SHARD_ROWS
    asked = {f"--{name.replace('_', '-')}": value for name, value in decisions.items()}
    asked |= {"min_confidence": min_confidence, "--max-error": max_error}
    options: dict[str, Any] = {
        "inputs": [str(one) for one in files], "format": format, "text column": text_column, **asdict(settings),
        "output.texts": config.output.texts, "--output-format": suffix, "--shard-rows": most, **asked,
    }  # fmt: skip
    origin = settings_of(adapter, config, options)

    def opened() -> ShardFolder:
        shards = ShardFolder(output)
        shards.check(origin, resume=resume, force=force)
        return shards

    shards = opened()
    if resume and shards.complete:
        say(f"{output} is finished already (not compared with the input); delete it to predict again")
        return
    source = str(file) if len(files) == 1 else f"{len(files):,} files of {file}"
    if not verbose:
        context.with_resource(python_alone_on_stderr())
    start_command(config, verbose, adapter=run or adapter, source=source, one_gpu=False)
    # What is wrong with the adapter is told before --force deletes anything.
    read_peft_folder(adapter)
    check_weights(adapter)
    manifest.calibration(adapter, config)
    validated(adapter, config, [name for name in ("sets", "prior") if name in decisions])
    if max_error is not None:
        from loraft.evaluation.guarantee import least_confidence

        min_confidence = least_confidence(adapter, config, min_confidence, max_error)
    task = Task(
        run and Path(os.path.abspath(run)), None if run else Path(os.path.abspath(adapter)), config, min_confidence,
        decisions, cast(Format, format), text_column, settings, shards.path, suffix,
    )  # fmt: skip
    with (
        quiet(verbose=verbose),
        connected(address, "loraft predict --engine ray", say),
        locked(shards.path),
    ):
        # What another process may have done before the lock was taken counts, too.
        shards = opened()
        failed = ray_predict.predict_files(task, files, shards, workers=workers, gpus=gpus, most=most, say=say)
    say(f"{shards.rows:,} {'row' if shards.rows == 1 else 'rows'} in {output}")
    if failed:
        say(
            f"{failed} of {len(files)} {'file' if len(files) == 1 else 'files'} could not be read; the same"
            " command with --resume goes on when they can"
        )
    done = shards.finished.values()
    say_counts(shards.rows, sum(one.bad for one in done), sum(one.labelled for one in done), max_error)
    if failed:
        raise typer.Exit(1)
