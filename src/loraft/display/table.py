"""Build rich tables of numbers or words, fit them to the terminal, and print them.

A table that is wider than the terminal gives way in this order; numbers, and words of heads, are never broken:

1. Columns come closer together, and cells and heads are broken into lines at blanks, the widest column first.
2. Columns that the table can do without (`drop`) are left out one by one, and a line below says which. Names to be
   copied (`whole`) are broken only where that is not enough.
3. The table is turned: for each row, a line `head: cell` for each of its cells.

Where stdout is no terminal, nothing of this happens: a row is one line of whatever length.
"""

import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.cells import cell_len, chop_cells
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from loraft.visible import visible

MANY_LABELS = 8  # above so many, tables and figures show `SHOWN_LABELS` of them: the worst, the largest or the rarest
SHOWN_LABELS = 15

LONGEST_WORD = 24  # cells of a column that a word may ask for; a longer one, such as a path, is broken
LEAST_TEXT = 16  # cells that a column of texts longer than that word keeps
LEAST_TERMINAL = 20
# Blanks where a line may end: not before a unit, and not inside an interval such as [0.650, 0.710].
BLANKS = re.compile(r" +(?!%|[kMG]?B\b|[-+\d.,]+\])")
JOINTS = re.compile(r"(?<=[-_/])")  # where a word that is longer than a line is broken first


@dataclass(frozen=True)
class _Column:
    """One column: its head, its cells, and how many cells of the terminal it takes."""

    head: str
    cells: list[str]
    justify: JustifyMethod
    whole: bool

    @property
    def natural(self) -> int:
        """The width with each cell on one line."""
        return _widest([self.head, *self.cells])

    @property
    def least(self) -> int:
        """The width of the longest word of the head, or of the cells within limits."""
        if self.whole:
            return max(_widest(self.head.split()), _widest(self.cells))
        words = min(_widest(word for cell in self.cells for word in BLANKS.split(cell)), LONGEST_WORD)
        text = LEAST_TEXT if self.justify == "left" and _widest(self.cells) > LONGEST_WORD else 0
        return max(_widest(self.head.split()), words, text)


class FittingTable(Table):
    """A table that says which columns it can do without: their heads, the least important first.

    `whole` are heads of columns whose cells stay on one line where that can be.
    """

    drop: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()


def show(tables: Sequence[Table]) -> set[str]:
    """Prints tables on stdout; where stdout is not a terminal, without frames, colours and line breaks in cells.

    Returns:
        Heads of columns that a narrow terminal shows in none of the tables, for the notes below them.
    """
    console, hidden, seen = _console(), set[str](), set[str]()
    for table in tables:
        if console.is_terminal:
            for part in (parts := fitted(table, console.width)):
                console.print(part)
            heads = {str(column.header) for column in table.columns}
            kept = {
                " ".join(str(one.header).split()) for part in parts if isinstance(part, Table) for one in part.columns
            }
            hidden, seen = hidden | (heads - kept if kept else set()), seen | (kept or heads)
        else:
            table.box = None
            table.padding = table.padding if any(table.padding) else (0, 1, 0, 0)  # else cells touch
            Console(highlight=False, markup=False, width=max(1, _width(table)), height=25).print(table)
        console.print()
    return hidden - seen


def fitted(table: Table, width: int) -> list[Table | Text]:
    """What a terminal of that width shows of a table: the table, a line that names columns left out; or lines only."""
    whole = getattr(table, "whole", ())
    columns = [
        _Column(head := str(one.header), [str(cell) for cell in one.cells], one.justify, head in whole)
        for one in table.columns
    ]
    drop = [head for head in getattr(table, "drop", ()) if any(column.head == head for column in columns)]
    if _width(table) <= width:
        return [table]
    ways = [columns, [replace(column, whole=False) for column in columns]] if whole else [columns]
    for way, left_out in ((way, drop[:count]) for way in ways for count in range(len(drop) + 1)):
        kept = [column for column in way if column.head not in left_out]
        made = _broken(kept, width, padding=1) or _broken(kept, width, padding=0)
        if made is not None:
            needs = sum(column.least + 1 for column in way) - 1
            said = f"left out: {', '.join(left_out)}; a terminal of {needs} columns or --json shows all"
            return [made, *([Text(said)] if left_out else [])]
    rows = zip(*(column.cells for column in columns), strict=True)
    heads = [f"{column.head}: " if column.head else "" for column in columns]
    records = [[_lines(head + cell, width - 2) for head, cell in zip(heads, row, strict=True) if cell] for row in rows]
    return [Text("\n\n".join("\n".join("\n  ".join(lines) for lines in record) for record in records))]


def number_table(first: str, *columns: str, drop: Sequence[str] = ()) -> FittingTable:
    """An empty table whose first column is left-aligned and whose other columns are right-aligned.

    Args:
        first, *columns: the heads.
        drop: heads of columns that a narrow terminal leaves out, the least important first.
    """
    table = FittingTable(box=box.SIMPLE_HEAD)
    table.drop = tuple(drop)
    table.add_column(_text(first))
    for column in columns:
        table.add_column(_text(column), justify="right")
    return table


def narrow_table(*columns: str, drop: Sequence[str] = ()) -> FittingTable:
    """An empty table with little space between its columns, all right-aligned except the last; `drop` as above."""
    table = number_table(*columns, drop=drop)
    table.show_edge, table.padding = False, (0, 1, 0, 0)
    table.columns[0].justify, table.columns[-1].justify = "right", "left"
    return table


def listing(columns: Sequence[str], rows: Iterable[Sequence[str]], drop: Sequence[str] = ()) -> Table:
    """A table of words, all columns left-aligned; `drop` as above."""
    table = number_table(*columns, drop=drop)
    for column in table.columns:
        column.justify = "left"
    for row in rows:
        add_row(table, *row)
    return table


def add_row(table: Table, *cells: str) -> None:
    """Adds a row of plain text: square brackets are not read as rich's markup, and control characters are visible."""
    table.add_row(*map(_text, cells))


def show_lines(lines: Iterable[str]) -> None:
    """Prints lines for people on stdout; a terminal breaks them at blanks."""
    show_texts(Text(visible(line)) for line in lines)


def show_texts(texts: Iterable[Text]) -> None:
    """Prints styled texts on stdout, each on lines of its own; without colours where stdout is not a terminal."""
    console = _console()
    for text in texts:
        console.print(_wrapped(text, console.width) if console.is_terminal else text, soft_wrap=True)


def _wrapped(text: Text, width: int) -> Text:
    """The text broken at blanks. A word that is wider, such as a path, is the terminal's to break: it can be copied."""
    lines: list[Text] = []
    for given in text.split("\n", allow_blank=True):
        line = Text()
        for word in given.split(" ") if given.cell_len > width else [given]:
            if line and line.cell_len + 1 + word.cell_len > width:
                lines.append(line)
                line = Text()
            line = Text(" ").join([line, word]) if line else word
        lines.append(line)
    return Text("\n").join(lines)


def shorten(text: str, limit: int = 90) -> str:
    """The text; where it is longer than `limit` characters, cut to that length with an ellipsis at the end."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def _console() -> Console:
    """On stdout. The size is given, since rich takes every dumb terminal for one of 80 columns."""
    width = max(LEAST_TERMINAL, shutil.get_terminal_size().columns)
    return Console(highlight=False, markup=False, width=width, height=25)


def _text(cell: str) -> Text:
    return Text(visible(cell))


def _widest(texts: Iterable[str]) -> int:
    return max(map(cell_len, texts), default=0)


def _width(table: Table) -> int:
    """Of the whole table with every cell on one line."""
    return Console(width=10**6, height=25).measure(table).maximum


def _built(columns: Sequence[_Column], padding: int) -> Table:
    """A table with these columns, each followed by that much space and the frame's blank."""
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, padding, 0, 0))
    for column in columns:
        made.add_column(Text(column.head), justify=column.justify, no_wrap=True)
    for row in zip(*(column.cells for column in columns), strict=True):
        made.add_row(*map(Text, row))
    return made


def _broken(columns: Sequence[_Column], width: int, padding: int) -> Table | None:
    """A table with line breaks in these columns, the widest first; None where they do not fit the width."""
    widths, least = [column.natural for column in columns], [column.least for column in columns]
    room = width - len(columns) * (padding + 1) + 1  # the last one is followed by no blank of the frame
    if sum(least) > room:
        return None
    while sum(widths) > room:
        widths[max(range(len(widths)), key=lambda k: (widths[k] > least[k], widths[k]))] -= 1

    def broken(text: str, width: int) -> str:
        return "\n".join(_lines(text, width))

    made = [
        _Column(broken(column.head, width), [broken(cell, width) for cell in column.cells], column.justify, False)
        for column, width in zip(columns, widths, strict=True)
    ]
    return _built(made, padding)


def _lines(text: str, width: int) -> list[str]:
    """The text in lines of at most that width, broken at blanks, and inside of words that are longer than a line."""
    lines: list[str] = []
    for given in text.split("\n"):
        line = ""
        for word in BLANKS.split(given):
            if cell_len(joined := f"{line} {word}" if line else word) <= width:
                line = joined
                continue
            lines += [line] if line else []
            line = ""
            for part in (part for piece in JOINTS.split(word) for part in chop_cells(piece, width)):
                if cell_len(line + part) > width:
                    lines.append(line)
                    line = ""
                line += part
        lines.append(line)
    return lines
