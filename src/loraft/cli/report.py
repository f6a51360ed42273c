"""`loraft report`: parses the flags; `studies.report` does the work."""

from pathlib import Path
from typing import Annotated

import typer

from loraft.cli.options import Output, choice, complete_work
from loraft.config.names import show
from loraft.errors import ConfigError
from loraft.visible import visible

LANGUAGES = ("en", "vi")


def report(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN|STUDY",
            help="Name or path of a run, sweep, few-shot study, audit or description of data.",
            show_default="the newest",
            autocompletion=complete_work,
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="File of the page.", show_default="report.html in the folder"),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print tables and notes in Markdown instead.")] = False,
    lang: Annotated[str, choice(*LANGUAGES, help="Language of the page.")] = "en",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is no report.")] = False,
    output: Output = None,
) -> None:
    """Write an HTML page about a run, a study or a data source.

    One self-contained file; prints its path.

    Examples:
        loraft report
        loraft report --lang vi
    """
    from loraft.runs.atomic_files import is_stream
    from loraft.studies import report

    if lang not in LANGUAGES:
        raise ConfigError(f"--lang: not allowed (got {show(lang)}); one of {', '.join(LANGUAGES)}")
    if markdown and to is not None:
        raise ConfigError(
            "--markdown and --to: Markdown goes to stdout (got both); leave --to out and redirect stdout to a file"
        )
    folder = report.find(what, Path(output or "runs"))
    if markdown:
        print(report.markdown(folder, lang), end="")
    else:
        path = report.write_page(folder, to, force=force, language=lang)
        if not is_stream(path):  # on /dev/stdout the page is the result
            print(visible(str(path)))
