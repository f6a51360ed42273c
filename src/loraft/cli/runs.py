"""The commands `loraft runs list`, `show`, `diff` and `remove`; `delivery` does the work, from files alone."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loraft.cli.console import print_json, say
from loraft.cli.help_page import Command, Group
from loraft.cli.options import Json, Output, choice, complete_work
from loraft.config import names
from loraft.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from loraft.delivery.listing import Row

app = typer.Typer(cls=Group, rich_markup_mode=None, help="List runs, show one, see what differs, remove some.")

One = Annotated[str, typer.Argument(metavar="RUN", help="Name or path.", autocompletion=complete_work)]


@app.command("list", cls=Command)
def list_runs(
    sort: Annotated[str, choice("date", "name", "score", help="Order; the newest or best first.")] = "date",
    output: Output = None,
    json: Json = False,
) -> None:
    """List runs and studies with state, score and size.

    The trials of a sweep are rows, too.

    Examples:
        loraft runs list
        loraft runs list --sort score --json
    """
    from loraft.delivery.listing import SORTS, rows_in
    from loraft.display import table

    if sort not in SORTS:
        raise ConfigError(f"--sort: not allowed (got {names.show(sort)}); one of {', '.join(SORTS)}")
    rows = rows_in(Path(output or "runs"), sort=sort)
    if json:
        print_json(rows)
    elif rows:
        table.show([_table(rows)])
        table.show_lines(f"{row.name}: {row.error}" for row in rows if row.error)
    else:
        say(f"no runs in {output or 'runs'}; loraft train makes one")


@app.command(cls=Command)
def show(run: One, output: Output = None, json: Json = False) -> None:
    """Show one run or study: its config, scores, files, next steps.

    The config in short; the files with their sizes.

    Examples:
        loraft runs show run-a
        loraft runs show run-a --json
    """
    from loraft.delivery.run_details import details
    from loraft.display import table
    from loraft.studies.report import find

    found = details(find(run, Path(output or "runs")))
    if json:
        print_json(found)
        return
    config = [[key, table.shorten(_word(value))] for key, value in found.config.items() if value is not None]
    scores = [[key, "-" if old is None else f"{old:.4f}", f"{new:.4f}"] for key, (old, new) in found.scores.items()]
    files = [[name, _size(size)] for name, size in found.files.items()]
    shown = [_table([found.row, *found.runs]), table.listing(["file", "size"], files)]
    shown += [table.listing(["config", ""], config)] if config else []
    shown += [table.listing(["score", "before", "after"], scores)] if scores else []
    table.show(shown)
    table.show_lines(f"{row.name}: {row.error}" for row in (found.row, *found.runs) if row.error)
    if found.calibration is not None:
        say(f"calibration: {found.calibration.words}")
    for line in found.next:
        say(f"next: {line}")


@app.command(cls=Command)
def diff(
    run: One,
    other: One,
    output: Output = None,
    json: Json = False,
) -> None:
    """Show in what two runs differ.

    Config, fingerprints of the data, versions of packages, scores.

    Examples:
        loraft runs diff run-a run-b
        loraft runs diff run-a run-b --json
    """
    from loraft.delivery.run_details import differences
    from loraft.display import table
    from loraft.studies.report import find

    paths = [find(name, Path(output or "runs")) for name in (run, other)]
    found = differences(*paths)
    if json:
        print_json(found)
        return
    cells = [
        [f"{one.group} {one.key}", *(table.shorten(_word(value), 60) or "-" for value in (one.first, one.second))]
        for one in found
    ]
    if cells:
        table.show([table.listing(["", run, other], cells)])
    else:
        table.show_lines(["no difference in config, data, versions and scores"])
    if any(one.group == "score" for one in found):
        say(f"next: loraft compare {paths[0]} {paths[1]} says whether scores differ beyond chance")


@app.command(cls=Command)
def remove(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Names or paths.", autocompletion=complete_work)],
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Remove the checkpoints of finished runs only.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    output: Output = None,
) -> None:
    """Remove runs or studies, or checkpoints; asks before it does.

    Of finished runs, --checkpoints removes only what they no longer need.

    Examples:
        loraft runs remove run-a --checkpoints
        loraft runs remove run-a run-b --yes
    """
    from loraft.delivery import removal
    from loraft.delivery.listing import size_of
    from loraft.studies.report import find

    folders = removal.to_remove([find(name, Path(output or "runs")) for name in runs], checkpoints=checkpoints)
    sizes = [size_of(folder) for folder in folders]
    for folder, size in zip(folders, sizes, strict=True):
        say(f"{folder}  {_size(size)}")
    if not folders:
        say("nothing to remove: there are no checkpoints")
        return
    if not yes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise ConfigError(f"--yes: is needed where nobody can be asked (got {len(folders)} to remove); add it")
        say(f"remove {'these' if len(folders) > 1 else 'this'} for good? [y/N]")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise typer.Exit(1)
    removal.remove(folders)
    say(f"removed {_size(sum(sizes))}")


def _table(rows: "Sequence[Row]") -> "Table":
    """One line a row; names come last, where long ones have room."""
    from loraft.display import table
    from loraft.evaluation.metrics import ALL_SCORES

    metrics = list(dict.fromkeys(row.metric for row in rows if row.metric is not None))
    heads = ["score", "metric"] if len(metrics) > 1 else [ALL_SCORES[metrics[0]] if metrics else "score"]
    made = table.narrow_table(*heads, "state", "kind", "date", "size", "name", drop=("size", "date", "kind"))
    made.whole = ("name",)
    for row in rows:
        score = "" if row.score is None else f"{row.score:.3f}"
        score += "" if row.interval is None else f" [{row.interval[0]:.3f}, {row.interval[1]:.3f}]"
        words = [ALL_SCORES[row.metric] if row.metric else ""] if len(metrics) > 1 else []
        state = row.state if row.pid is None else f"{row.state} {row.pid}"
        table.add_row(made, score, *words, state, row.kind, row.date[:10], _size(row.bytes), row.name)
    return made


def _word(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _size(size: int) -> str:
    """Bytes in words, in decimal units."""
    for unit, bytes_of_it in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bytes_of_it:
            return f"{size / bytes_of_it:.1f} {unit}"
    return f"{size} B"
