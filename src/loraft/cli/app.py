"""Entry point of the command line: the list of commands, and the one place where errors become exit codes.

Each command is a thin function in a file of its own; the work is done by a plain function that it imports late. Help
and completion need names and words only.

Results go to stdout, everything else to stderr. Exit codes: 0, 1 for what went wrong, 2 for usage and config, 130
for Ctrl-C and 143 for SIGTERM (`signals`); `LORAFT_DEBUG=1` shows the traceback.
"""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from loraft.cli import compare, data, evaluate, fewshot, inspect, predict, report, signals, sweep, task, train
from loraft.errors import LoraftError

VERSIONS = ("loraft", "torch", "transformers", "peft", "trl", "bitsandbytes")


class Commands(TyperGroup):
    """The commands; interrupts and ends of files inside them are not typer's to answer."""

    def make_context(self, *given: Any, **named: Any) -> Any:
        """Parses the command line."""
        with signals.passed_on():
            return super().make_context(*given, **named)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        with signals.passed_on():
            return super().invoke(ctx)


app = typer.Typer(
    name="loraft",
    cls=Commands,
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
        with signals.caught():
            app(arguments, prog_name="loraft")
    except LoraftError as error:
        if os.environ.get("LORAFT_DEBUG") == "1":
            raise
        separator = "\n  " if "\n" in str(error) else " "
        # not `say`: a process that is not the first must tell its own mistake as well
        print(f"error:{separator}" + str(error).replace("\n", "\n  "), file=sys.stderr, flush=True)
        for note in getattr(error, "__notes__", []):
            print(note, file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
