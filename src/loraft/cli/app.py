"""Entry point of the command line: the list of commands, and the one place where errors become exit codes.

Each command is a thin function in a file of its own; the work is done by a plain function that it imports late. Help
and completion need names and words only.

Results go to stdout, everything else to stderr. Exit codes: 0, 1 for what went wrong, 2 for usage and config, 130
for an interrupt; `LORAFT_DEBUG=1` shows the traceback.
"""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from loraft.cli import compare, data, evaluate, fewshot, inspect, predict, report, sweep, task, train
from loraft.cli.console import refuse_wrong_variables
from loraft.cli.usage import UsageError, usage_message
from loraft.errors import LoraftError

VERSIONS = ("loraft", "torch", "transformers", "peft", "trl", "bitsandbytes")

app = typer.Typer(
    name="loraft",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_versions(asked: bool) -> None:
    if asked:
        from loraft.runs.environment import package_versions

        for name, version in package_versions(VERSIONS).items():
            print(f"{name} {version or 'is not installed'}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_versions, is_eager=True, help="Print the versions of loraft and its libraries."
        ),
    ] = False,
) -> None:
    """Fine-tune a causal language model into a text classifier with LoRA or QLoRA, measure it, and use it."""


app.command()(train.train)
app.command("eval")(evaluate.evaluate)
app.command()(predict.predict)
app.command()(fewshot.fewshot)
app.command()(sweep.sweep)
app.command()(compare.compare)
app.command()(data.data)
app.add_typer(task.app, name="task")
app.command()(report.report)
app.command("models")(inspect.list_bundled)
app.command("config")(inspect.show_config)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits; the one place where errors become messages and exit codes."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not in notebooks
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        refuse_wrong_variables()
        code = app(arguments, prog_name="loraft", standalone_mode=False)
    except (LoraftError, UsageError) as error:
        if os.environ.get("LORAFT_DEBUG") == "1":
            raise
        given = sys.argv[1:] if arguments is None else arguments
        message = str(error) if isinstance(error, LoraftError) else usage_message(error, given)
        separator = "\n  " if "\n" in message else " "
        # not `say`: a process that is not the first must tell its own mistake as well
        if message:
            print(f"error:{separator}" + message.replace("\n", "\n  "), file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if os.environ.get("LORAFT_DEBUG") == "1":
            raise
        where = f"{str(error.filename)[:200]}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}; LORAFT_DEBUG=1 shows where", file=sys.stderr, flush=True)
        sys.exit(1)
    except typer.Abort:  # typer's for the end of a file that a library read
        if os.environ.get("LORAFT_DEBUG") == "1":
            raise
        print("error: a file or stdin ended too early; LORAFT_DEBUG=1 shows which", file=sys.stderr, flush=True)
        sys.exit(1)
    sys.exit(code or 0)
