"""How a result looks in Python: a short text, a small HTML table in notebooks, and a table of pandas.

All have the same rows, but of an `Evaluation`: its text has the scores, and its table of pandas the judged sentences.
"""

import html
import io
from itertools import accumulate
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, SupportsIndex, TypeVar, overload

from rich.cells import cell_len
from rich.console import Console

from loraft.display.table import SHOWN_LABELS, add_row, number_table, shorten
from loraft.errors import LoraftError
from loraft.visible import visible

if TYPE_CHECKING:
    import pandas

One = TypeVar("One")

WIDTH = 100  # characters of a line of text; columns that do not fit are left out, the last ones first
LONGEST = 60  # characters of a cell


class Measured(NamedTuple):
    """A number with its interval and its standard deviation, which are columns of their own in pandas."""

    value: float
    interval: tuple[float, float] | None = None
    sd: float | None = None


class Tabled:
    """Base of the results that are a table in Python. A dataclass of this base needs `repr=False`.

    Attributes:
        whole: what gives all rows and columns of the text, where that is cut short.
        columns: of the table of pandas where there are no rows.
    """

    whole: ClassVar[str] = "to_pandas()"
    columns: ClassVar[tuple[str, ...]] = ()

    def _table(self) -> tuple[str, list[dict[str, Any]]]:
        """What the result is, in a line, and the rows of its table by column, the most important columns first."""
        raise NotImplementedError

    def to_pandas(self) -> "pandas.DataFrame":
        """The result as a table of pandas, a row for each of its parts, with numbers as they were measured.

        Beside a column NAME, `NAME_low` and `NAME_high` are the bounds of its interval, and `NAME_sd` its standard
        deviation.

        Raises:
            LoraftError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise LoraftError("to_pandas: pandas is not installed (got none); pip install pandas") from None
        rows = [_flat(row) for row in self._table()[1]]
        return pandas.DataFrame(rows, columns=None if rows else list(self.columns))

    def __repr__(self) -> str:
        head, names, rows, foot = self._drawn()
        table = number_table(*names)
        table.box, table.padding = None, (0, 2, 0, 0)
        for n, column in enumerate(table.columns):
            column.justify, column.no_wrap = "left" if n == 0 else "right", True
        for cells in rows:
            add_row(table, *cells)
        out = io.StringIO()
        Console(file=out, width=2 * WIDTH, color_system=None).print(table)
        return "\n".join([head, *(line.rstrip() for line in out.getvalue().splitlines()), *foot])

    def _repr_html_(self) -> str:
        head, names, rows, foot = self._drawn()

        def row(kind: str, cells: list[str]) -> str:
            return f"<tr>{''.join(f'<{kind}>{html.escape(cell)}</{kind}>' for cell in cells)}</tr>"

        above, *below = (f"<p>{html.escape(line)}</p>" for line in [head, *foot])
        body = "".join(row("td", cells) for cells in rows)
        return "".join([above, f"<table><thead>{row('th', names)}</thead><tbody>{body}</tbody></table>", *below])

    def _drawn(self) -> tuple[str, list[str], list[list[str]], list[str]]:
        """The line above the table, its heads and cells as far as they fit, and what stands below it."""
        head, rows = self._table()
        names = list(dict.fromkeys(name for row in rows for name in row))
        columns = [[visible(name), *(_text(row.get(name)) for row in rows[:SHOWN_LABELS])] for name in names]
        ends = list(accumulate(max(map(cell_len, column)) + 2 for column in columns))
        fit = max(2, sum(end <= WIDTH for end in ends))
        left = [(len(rows) - SHOWN_LABELS, "row"), (len(names) - fit, "column")]
        more = " and ".join(f"{number:,} more {what}{'s' * (number > 1)}" for number, what in left if number > 0)
        heads, *cells = map(list, zip(*columns[:fit], strict=True)) if columns else [["nothing"]]
        above = visible(shorten(" ".join(f"{type(self).__name__}: {head}".split()), 2 * WIDTH))
        return above, heads, cells, [f"{more}: {self.whole}"] if more else []


class TabledList(Tabled, list[One]):
    """A list that is also a table, as are its slices."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> One: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: SupportsIndex | slice) -> One | Self:
        """Returns an item, or a part of the list."""
        return type(self)(super().__getitem__(index)) if isinstance(index, slice) else super().__getitem__(index)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, cell in row.items():
        flat[name] = cell.value if isinstance(cell, Measured) else cell
        if isinstance(cell, Measured) and cell.sd is not None:
            flat[f"{name}_sd"] = cell.sd
        if isinstance(cell, Measured) and cell.interval is not None:
            flat[f"{name}_low"], flat[f"{name}_high"] = cell.interval
    return flat


def _text(cell: Any) -> str:
    if isinstance(cell, Measured):
        sd = "" if cell.sd is None else f" ±{cell.sd:.4f}"
        interval = "" if cell.interval is None else " [{:.3f}, {:.3f}]".format(*cell.interval)
        return f"{cell.value:.4f}{sd}{interval}"
    if isinstance(cell, int | float):
        return f"{cell:.4f}" if isinstance(cell, float) else f"{cell:,}"
    text = ", ".join(map(str, cell)) if isinstance(cell, tuple) else "" if cell is None else str(cell)
    return visible(shorten(" ".join(text.split()), LONGEST))
