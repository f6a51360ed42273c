"""Entry point of the command line: the list of commands, and the one place where errors become exit codes.

Each command is a thin function in a file of its own; the work is done by a plain function that it imports late. Help
and completion need names and words only.

Results go to stdout, everything else to stderr. Exit codes: 0, 1 for what went wrong, 2 for usage and config, 130
for Ctrl-C and 143 for SIGTERM (`signals`); `LORAFT_DEBUG=1` shows the traceback.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from loraft import distributed, progress
from loraft.cli import (
    audit,
    check,
    compare,
    data,
    evaluate,
    explain,
    export,
    fewshot,
    inspect,
    merge,
    plan,
    predict,
    push,
    report,
    runs,
    serve,
    signals,
    suggest,
    sweep,
    task,
    train,
)
from loraft.cli.completion import for_bash
from loraft.cli.console import own_streams, refuse_wrong_variables, results_stream, tell
from loraft.cli.help_page import Command, Group
from loraft.cli.usage import UsageError, usage_message
from loraft.errors import ConfigError, LoraftError, OtherProcessError

VERSIONS = ("loraft", "torch", "transformers", "peft", "trl", "bitsandbytes")


class Commands(Group):
    """The commands; interrupts and ends of files inside them are not typer's to answer."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the groups; typer puts commands with commands of their own last."""
        return [name for commands in COMMANDS.values() for name in commands]

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
    rich_markup_mode=None,  # help is plain text
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
    """Fine-tune a causal language model into a text classifier with LoRA or QLoRA, measure it, and use it.

    Examples:
        loraft train --quant nf4 --rank 16
        loraft predict "thầy giảng rất dễ hiểu"
    """


COMMANDS: dict[str, dict[str, Callable[..., None] | typer.Typer]] = {
    "Start": {
        "data": data.data, "task": task.app, "plan": plan.plan, "check": check.check, "train": train.train,
    },
    "Judge": {
        "eval": evaluate.evaluate, "compare": compare.compare, "explain": explain.explain, "audit": audit.audit,
        "report": report.report,
    },
    "Study": {"fewshot": fewshot.fewshot, "sweep": sweep.sweep},
    "Use": {
        "predict": predict.predict, "suggest": suggest.suggest, "merge": merge.merge, "export": export.export,
        "serve": serve.serve, "push": push.push,
    },
    "Inspect": {"runs": runs.app, "models": inspect.list_bundled, "config": inspect.show_config},
}  # fmt: skip
for group, commands in COMMANDS.items():
    for name, command in commands.items():
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, rich_help_panel=group)
        else:
            app.command(name, cls=Command, rich_help_panel=group)(command)


@own_streams()
def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits; the one place where errors become messages and exit codes."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not in notebooks
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    for_bash()
    try:
        refuse_wrong_variables()
        with signals.caught():
            try:
                code = app(arguments, prog_name="loraft", standalone_mode=False)
            finally:
                progress.remove()
                _flush_stdout()
    except Exception as error:
        told = _told(error, sys.argv[1:] if arguments is None else arguments)
        of_another = isinstance(error, OtherProcessError)
        if of_another and not distributed.speaks():
            sys.exit(1)
        if not of_another:
            distributed.wait_for_main()
        if told is None or os.environ.get("LORAFT_DEBUG") == "1":
            raise
        separator = "\n  " if "\n" in str(told) else " "
        # not `say`: a process that is not the first must tell its own mistake as well
        whose = "" if of_another or distributed.is_main_process() else f" rank {distributed.rank()}:"
        if str(told):
            tell(f"error:{whose}{separator}" + str(told).replace("\n", "\n  "))
        for note in getattr(error, "__notes__", []):
            tell(note)
        distributed.error_told()
        sys.exit(told.exit_code)
    sys.exit(code or 0)


def _told(error: Exception, arguments: Sequence[str]) -> LoraftError | None:
    """The error as a message for the user; None for a mistake in the program, which needs its traceback."""
    from loraft.runs.storage import SAME_COMMAND, storage_error

    if isinstance(error, LoraftError):
        return error
    if isinstance(error, UsageError):
        return ConfigError(usage_message(error, arguments, typer.main.get_command(app)))
    if isinstance(error, MemoryError):
        return LoraftError("memory: is used up; close other programs, or use fewer rows or a smaller backbone")
    return storage_error(error, SAME_COMMAND)


def _flush_stdout() -> None:
    """Writes what is left of the results, so that a full disk behind `>` is told, and not after the last line."""
    stdout = results_stream()
    if stdout is None:
        return
    try:
        stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):  # Python would try once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        if error.errno == errno.EPIPE:  # the reader, such as head, has enough
            sys.exit(1)
        raise
