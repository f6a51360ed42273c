"""Write docs/commands.md and docs/config.md, the reference of commands and config keys, from the program itself.

Run it after a change of a flag, a help text or a config key: `python tools/reference.py`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from loraft.cli.app import app
from loraft.config.reference import Key, reference, written
from loraft.config.schema import Config

DOCS = Path(__file__).parents[1] / "docs"
MADE = "<!-- Made by `python tools/reference.py`; do not edit. -->"
WIDTH = 78  # of help pages in a terminal of 80 columns


def help_pages() -> Iterator[tuple[str, str]]:
    """Every command as it is typed, and its help page; groups come before their commands."""
    yield from _pages(typer.main.get_command(app), "loraft", None)


def _pages(command: Any, name: str, parent: Any) -> Iterator[tuple[str, str]]:
    context = typer.Context(
        command, info_name=name, parent=parent, terminal_width=WIDTH, help_option_names=["-h", "--help"]
    )
    yield context.command_path, context.get_help()
    for inside in getattr(command, "list_commands", lambda _: [])(context):
        yield from _pages(command.get_command(context, inside), inside, context)


def commands_page() -> str:
    """The text of docs/commands.md."""
    parts = [MADE, "# Commands", "Every command with its help page, as `loraft COMMAND --help` prints it."]
    for name, page in help_pages():
        parts += [f"## {name}", f"```text\n{page.strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def config_page() -> str:
    """The text of docs/config.md."""
    parts = [
        MADE,
        "# Config keys",
        "Every key of the config. Any of them can be set by `--set KEY=VALUE` or in a YAML file given to `--config`;"
        " `loraft config` prints the values that a command would use, and `loraft config --describe` this page.",
    ]
    sections: dict[str, list[Key]] = {}
    for key in reference().values():
        sections.setdefault(key.key.rpartition(".")[0], []).append(key)
    for name, keys in sections.items():
        kind = Config.model_fields[name].annotation if name else None
        parts.append(f"## {name or 'Top level'}")
        parts += [str(kind.__doc__)] if kind is not None else []
        rows = [
            (
                f"`{key.key}`",
                _cell(key.type),
                f"`{_cell(written(key.default))}`" + _presets(key),
                _cell(key.description),
            )
            for key in keys
        ]
        table = [("key", "values", "default", "what it is"), ("---",) * 4, *rows]
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in table))
    return "\n\n".join(parts) + "\n"


def _presets(key: Key) -> str:
    return "".join(f"; preset {name}: `{_cell(written(value))}`" for name, value in key.presets.items())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


PAGES = {"commands.md": commands_page, "config.md": config_page}

if __name__ == "__main__":
    for file, text in PAGES.items():
        (DOCS / file).write_text(text(), encoding="utf-8")
