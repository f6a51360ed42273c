"""`loraft audit`: parses the flags and prints the suspect rows; `studies.audit` does the work."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from loraft.cli.console import print_json, results_follow, say, start_command
from loraft.cli.options import ConfigFlags, Json, Source, Split, Verbose, in_its_folder, with_config_flags
from loraft.errors import ConfigError


@with_config_flags(without=("rank",))
def audit(
    given: ConfigFlags,
    source: Source = None,
    split: Split = "train",
    drop_worst: Annotated[
        int | None,
        typer.Option(
            "--drop-worst", metavar="N", min=1, help="Write a copy without the N most suspect rows.", show_default="off"
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="File of that copy.", show_default="in the audit's folder"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Audit again; with --to only replace FILE.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Find labels that are probably wrong.

    Five adapters judge rows that they did not learn from. The same command can be run again: it goes on after an
    interruption, and shows a finished audit again.

    Examples:
        loraft audit feedback
        loraft audit feedback --drop-worst 20 --to cleaned.csv
    """
    from loraft.display import table
    from loraft.runs.study_folders import AuditFolder
    from loraft.studies.audit import audit as study
    from loraft.studies.audit import cleaned_copy, tables

    given = given.of_source(source)
    if to is not None and drop_worst is None:
        raise ConfigError(f"--to: no rows to drop (got {to} without --drop-worst); give --drop-worst N")
    flags = given.keys()
    resolved = in_its_folder(
        given.resolve(flags=flags), given.resolve, flags, given.config, AuditFolder,
        lambda saved: study.audit_folder(saved, split).path,
    )  # fmt: skip
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
