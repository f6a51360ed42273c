"""Build rich tables of numbers or words, and print them."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loraft.visible import visible

MANY_LABELS = 8  # above so many, tables and figures show `SHOWN_LABELS` of them: the worst, the largest or the rarest
SHOWN_LABELS = 15


def show(tables: Sequence[Table]) -> None:
    """Prints tables on stdout; where stdout is not a terminal, without frames, colours and line breaks in cells."""
    console = Console(highlight=False, markup=False)
    for table in tables:
        if not console.is_terminal:
            console = Console(highlight=False, markup=False, width=500)
            table.box = None
            table.padding = table.padding if any(table.padding) else (0, 1, 0, 0)  # else cells touch
        console.print(table)
        console.print()


def number_table(first: str, *columns: str) -> Table:
    """An empty table whose first column is left-aligned and whose other columns are right-aligned."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(_text(first))
    for column in columns:
        table.add_column(_text(column), justify="right")
    return table


def narrow_table(*columns: str) -> Table:
    """An empty table with little space between its columns, all right-aligned except the last."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(_text(column), justify="right", overflow="fold")
    table.columns[-1].justify = "left"
    return table


def listing(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of words, all columns left-aligned."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(_text(column))
    for row in rows:
        add_row(table, *row)
    return table


def add_row(table: Table, *cells: str) -> None:
    """Adds a row of plain text: square brackets are not read as rich's markup, and control characters are visible."""
    table.add_row(*map(_text, cells))


def show_lines(lines: Iterable[str]) -> None:
    """Prints lines for people on stdout."""
    print(visible("\n".join(lines)))


def show_texts(texts: Iterable[Text]) -> None:
    """Prints styled texts on stdout, each on lines of its own; without colours where stdout is not a terminal."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for text in texts:
        console.print(text)


def _text(cell: str) -> Text:
    return Text(visible(cell))


def shorten(text: str, limit: int = 90) -> str:
    """The text; where it is longer than `limit` characters, cut to that length with an ellipsis at the end."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
