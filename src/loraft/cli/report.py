"""The commands `fewshot`, `data` and `report`; the work is done by plain functions, imported late."""

from pathlib import Path
from typing import Annotated

import typer

from loraft.cli.options import Output
from loraft.errors import ConfigError


def report(
    what: Annotated[
        str | None, typer.Argument(metavar="[RUN|SWEEP|FEWSHOT|DATA]", help="Name or path; else the newest.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", metavar="FILE", help="The page; else report.html inside.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print tables and notes in Markdown instead.")] = False,
    output: Output = None,
) -> None:
    """Write one self-contained HTML page about a run, a sweep or a study, and print its path."""
    from loraft.studies import report

    if markdown and to is not None:
        raise ConfigError("--markdown and --to: Markdown goes to stdout; leave --to out and redirect it")
    folder = report.find(what, Path(output or "runs"))
    if markdown:
        print(report.markdown(folder), end="")
    else:
        print(report.write_page(folder, to))
