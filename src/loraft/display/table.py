"""Helpers that build rich tables of numbers or words, and print them."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def show(tables: Sequence[Table]) -> None:
    """Prints tables on stdout; without frames, colours and line breaks where stdout is no terminal."""
    console = Console(highlight=False, markup=False)
    for table in tables:
        if not console.is_terminal:
            console = Console(highlight=False, markup=False, width=500)
            table.box = None
        console.print(table)
        console.print()


def number_table(first: str, *columns: str) -> Table:
    """An empty table: a left-aligned first column and right-aligned further ones."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(Text(first))
    for column in columns:
        table.add_column(Text(column), justify="right")
    return table


def narrow_table(*columns: str) -> Table:
    """An empty table for many columns, with little space between them: all right-aligned but the last."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    table.columns[-1].justify = "left"
    return table


def listing(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of words, all columns left-aligned."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(Text(column))
    for row in rows:
        add_row(table, *row)
    return table


def add_row(table: Table, *cells: str) -> None:
    """Adds a row whose cells are text and never rich's markup: a sentence or a name may hold square brackets."""
    table.add_row(*map(Text, cells))


def shorten(text: str, limit: int = 90) -> str:
    """The text, cut to `limit` characters with an ellipsis at the end where it is longer."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
