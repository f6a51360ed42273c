"""The help pages: commands in groups, flags with their defaults and choices, and the examples of the docstring.

What a flag of the config takes is read from the config when a page is printed, and nothing heavy is imported for it.
Pages are plain text of at most 80 columns, so that they look the same in a terminal, a pipe and the documentation.
"""

import inspect
import re
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

CONFIG = "Config"  # section of the flags that stand for keys of the config
OF_A_RUN = f"{CONFIG} (defaults without a run; a run brings its own)"
NO_BREAK = "\N{NON-BREAKING HYPHEN}"  # while lines are broken, so that names of the hub stay whole
FLAGS = 22  # columns of the flags; the help of a longer one starts on the next line
METAVARS = {"int": "NUMBER", "float": "NUMBER", "Path": "FILE"}


class Command(TyperCommand):
    """A command; the section `Examples:` of its docstring ends its page."""

    def __init__(self, *given: Any, help: str | None = None, **named: Any) -> None:
        text, _, examples = inspect.cleandoc(help or "").partition("\nExamples:\n")
        super().__init__(*given, help=text.strip(), **{**named, "epilog": inspect.cleandoc(examples)})

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words of the line of usage, with the dots of repeated ones once, and needed ones without braces."""
        return [
            re.sub(r"(\.{3})?([]}])(\.{3})?$", r"\1\2", one).strip("{}") for one in super().collect_usage_pieces(ctx)
        ]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes arguments, the command's own flags, and those of the config."""
        _write_parameters(self, ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Writes the examples, each as one line."""
        _write_examples("Examples", self.epilog, formatter)


class Group(TyperGroup):
    """Commands in groups, before the options; without a command the page is printed."""

    def __init__(self, *given: Any, help: str | None = None, **named: Any) -> None:
        text, _, examples = inspect.cleandoc(help or "").partition("\nExamples:\n")
        super().__init__(*given, help=text.strip(), **{**named, "epilog": inspect.cleandoc(examples)})

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the words after the group's name; without any it prints the page."""
        if not args and not ctx.resilient_parsing:
            print(ctx.get_help())
            raise typer.Exit(2)
        return super().parse_args(ctx, args)

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Writes what the commands are for, and those to start with."""
        super().format_help_text(ctx, formatter)
        _write_examples("To start", self.epilog, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the commands, then the options."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        longest = max(map(len, commands))
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, command in commands.items():
            assert command is not None
            row = (name.ljust(longest), command.get_short_help_str(limit=formatter.width * 2))
            groups.setdefault(getattr(command, "rich_help_panel", None) or "Commands", []).append(row)
        for title, rows in groups.items():
            with formatter.section(title):
                formatter.write_dl(rows)
        _write_parameters(self, ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Writes nothing: the examples stand at the top."""


def _write_examples(title: str, examples: str | None, formatter: Any) -> None:
    if examples:
        with formatter.section(title):
            for line in examples.splitlines():  # not wrapped, to be copied
                formatter.write(f"  {line}\n")


def _write_parameters(command: Any, ctx: Any, formatter: Any) -> None:
    parameters = command.get_params(ctx)
    names = {parameter.name for parameter in parameters}
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for parameter in parameters:
        title = "Arguments" if parameter.param_type_name == "argument" else parameter.rich_help_panel or "Options"
        if title == CONFIG and {"run", "preset"} <= names:
            title = OF_A_RUN
        sections.setdefault(title, []).append(_row(parameter, ctx))
    for title, rows in sections.items():
        if rows:
            with formatter.section(title):
                formatter.write_dl([(name, text.replace("-", NO_BREAK)) for name, text in rows], col_max=FLAGS)
    formatter.buffer = [part.replace(NO_BREAK, "-") for part in formatter.buffer]


def _row(parameter: Any, ctx: Any) -> tuple[str, str]:
    """A flag or argument, and its help with default and bounds."""
    known = None
    if key := re.fullmatch(r"\{([\w.]+)\}", str(parameter.show_default)):
        from loraft.config.reference import reference

        known = reference()[key[1]]
    if parameter.metavar is None and known is not None and not parameter.is_flag:
        parameter.metavar = known.metavar
    if parameter.metavar is None:
        parameter.metavar = METAVARS.get(getattr(parameter.type_descriptor.annotation, "__name__", ""))
    name, text = parameter.get_help_record(ctx)
    if parameter.param_type_name == "argument":
        name = parameter.metavar or parameter.name.upper()
    if known is not None:
        told = "; ".join(filter(None, (known.default_words, known.bounds)))
        text = text.replace(f"{{{known.key}}}", told)
    text = re.sub(r"default: \((.*)\)(?=[;\]])", r"default: \1", text)
    return name, re.sub(r"([\d.]+)<=x<=([\d.]+)", r"\1 to \2", text).replace("x>=", "at least ")
