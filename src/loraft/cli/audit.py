"""`loraft audit`: parses the flags and prints the suspect rows; `studies.audit` does the work."""

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from loraft.cli.console import print_json, results_follow, say, start_command
from loraft.cli.options import (
    ConfigFile,
    Data,
    Json,
    Model,
    Output,
    Preset,
    Quant,
    Seed,
    Sets,
    Task,
    Verbose,
    dotted,
    in_its_folder,
)
from loraft.errors import ConfigError


def audit(
    source: Annotated[str | None, typer.Argument(help="As --data: bundled name, hub id, folder or file.")] = None,
    split: Annotated[str, typer.Option(help="Which split, or a file.")] = "train",
    drop_worst: Annotated[
        int | None,
        typer.Option("--drop-worst", metavar="N", min=1, help="Write a copy without the N most suspect rows."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="File of that copy; default: in the audit's folder.")
    ] = None,
    preset: Preset = None,
    config: ConfigFile = None,
    sets: Sets = None,
    model: Model = None,
    data: Data = None,
    task: Task = None,
    quant: Quant = None,
    output: Output = None,
    seed: Seed = None,
    force: Annotated[bool, typer.Option("--force", help="Audit again; with --to only replace FILE.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Find labels that are probably wrong: five adapters judge rows that they did not learn from.

    The same command can be run again: it goes on after an interruption, and shows a finished audit again.
    """
    from loraft.config.resolve import resolve
    from loraft.display import table
    from loraft.runs.study_folders import AuditFolder
    from loraft.studies.audit import audit as study
    from loraft.studies.audit import cleaned_copy, tables

    if source is not None and data not in (None, source):
        raise ConfigError(f"--data: another source than the argument (got {data} and {source}); give one of them")
    if to is not None and drop_worst is None:
        raise ConfigError(f"--to: no rows to drop (got {to} without --drop-worst); give --drop-worst N")
    flags = dotted(model=model, data=data or source, task=task, quant=quant, output=output, seed=seed)
    again = partial(resolve, preset=preset, config_file=config, overrides=sets or ())
    resolved = again(flags=flags)
    resolved = in_its_folder(
        resolved, again, flags, config, AuditFolder, lambda saved: study.audit_folder(saved, split).path
    )
    start_command(resolved, verbose)
    folder, copy = study.audit_folder(resolved, split), None
    if drop_worst is not None:
        copy = cleaned_copy.target(resolved, split, folder, to, force=force)
    try:
        result = study.audit(resolved, split=split, force=force and to is None, drop=drop_worst or 0)
    except KeyboardInterrupt as stop:
        stop.add_note("the same command goes on from there")
        raise
    if copy is not None and drop_worst is not None:
        worst = study.worst_rows(folder, drop_worst)
        left_out = cleaned_copy.with_copies(resolved, split, worst, result.fingerprint)
        rows = cleaned_copy.write_without(resolved, split, left_out, copy)
    results_follow()
    if json:
        print_json(result)
    else:
        if result.suspects:
            table.show([tables.suspects(result), tables.moves(result)])
        table.show_lines(tables.notes(result))
    say(f"audit: {result.path}")
    if copy is not None:
        more = len({*worst} - {one.row for one in result.suspects})
        say(f"cleaned copy: {copy} ({rows:,} rows)")
        say(f"left out: {len(worst):,} rows, {more:,} of them not suspect; other copies: {len(left_out - {*worst}):,}")
    say(f"next: loraft report {shlex.quote(result.path)} shows every suspect row, and why")
