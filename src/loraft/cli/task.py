"""The commands `loraft task new` and `loraft task list`: a task file for one's own data, and the built-in tasks."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from loraft.cli.console import print_json, say
from loraft.cli.help_page import Command, Group
from loraft.cli.options import Data, Json, Sets, choice, dotted
from loraft.config.names import show
from loraft.errors import ConfigError

LANGUAGES = {"vi": "Vietnamese", "en": "English"}

app = typer.Typer(
    cls=Group, rich_markup_mode=None, help="Write a task file for your own data, or list the built-in tasks."
)


@app.command(cls=Command)
def new(
    data: Data = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write.", show_default="the data's name with .yaml")
    ] = None,
    language: Annotated[
        str | None, choice(*LANGUAGES, help="Language of the prompt.", show_default="that of the texts")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    sets: Sets = None,
) -> None:
    """Write a short task file from the labels of a data source.

    Prints the command that trains with it.

    Examples:
        loraft task new --data feedback --output mine.yaml
        loraft task new --data rows.csv --language vi
    """
    from loraft.config.resolve import resolve
    from loraft.runs.output_paths import check_target, writing

    resolved = resolve(overrides=sets or (), flags=dotted(data=data))
    source = resolved.data.source
    path = output or Path(f"{Path(source).name.partition('.')[0] or 'task'}.yaml")
    if language not in (None, *LANGUAGES):
        raise ConfigError(f"--language: unknown (got {show(language)}); allowed: {', '.join(LANGUAGES)}")
    check_target(path, "--output", own=None, force=force)

    from loraft.studies.dataset import new_task, overview

    found = overview.survey(resolved)
    train = new_task.train_command(found, str(path), sets or ())
    text = new_task.task_text(found, language=language or found.language, train=train)
    with writing(path, "--output") as temporary:
        temporary.write_text(text, encoding="utf-8")
    for line in overview.overview_lines(found):
        say(line)
    other = next(key for key in LANGUAGES if key != (language or found.language))
    say(f"prompt in {LANGUAGES[language or found.language]}; --language {other} changes it")
    say(f"task: {path}; look at it, and at the whole prompt: loraft config --task {shlex.quote(str(path))}")
    say(f"next: {train}")


@app.command("list", cls=Command)
def list_tasks(json: Json = False) -> None:
    """List the built-in tasks: their labels, and their files.

    The files are what a task of your own can start from.

    Examples:
        loraft task list
        loraft task list --json
    """
    from loraft.config.resolve import TASKS, resolve, task_names
    from loraft.display import table

    rows = [
        {
            "name": name,
            "labels": resolve(flags={"prompt.task": name}).prompt.labels or [],
            "path": str(TASKS / f"{name}.yaml"),
        }
        for name in task_names()
    ]
    if json:
        print_json(rows)
    else:
        cells = [[str(row["name"]), ", ".join(row["labels"]), str(row["path"])] for row in rows]
        table.show([table.listing(["name", "labels", "path"], cells)])
