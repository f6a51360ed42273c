"""Mistakes in the use of a command, found by typer, in the form of all other errors."""

import re
from collections.abc import Sequence
from typing import Any

import typer

from loraft.config.names import show

# The base of what typer raises for unknown options, missing arguments and values of another type. Typer has a copy of
# click inside, which exports this class only as a base.
UsageError: Any = typer.BadParameter.__base__


def usage_message(error: Any, arguments: Sequence[str]) -> str:
    """The message in one line; empty where the help page was printed instead.

    Args:
        error: a `UsageError`.
        arguments: of the command line, in which the wrong value stands.
    """
    said = re.sub(r"\S{80,}", lambda long: long[0][:60] + "...", " ".join(str(error.format_message()).split()))
    if not said:
        return ""
    command = error.ctx.command_path if error.ctx is not None else "loraft"
    similar = re.search(r"[.,]? \(?(?:Did you mean|Possible options?):? (.*?)[?)]+$", said)
    what = said[: similar.start()] if similar else said if said.endswith("...") else said.rstrip(".")
    what = what[0].lower() + what[1:]
    option = re.match(r"invalid value for '(?:.* / )?(-[\w-]+)'", what)
    if option and option[1] in arguments[:-1]:
        what += f" (got {show(arguments[len(arguments) - 2 - [*arguments[-2::-1]].index(option[1]) + 1])})"
    return f"{command}: {what}; " + (f"did you mean {similar[1]}?" if similar else f"`{command} --help` shows all")
