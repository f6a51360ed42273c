"""Render a report as one self-contained HTML page, or its text and tables as Markdown.

The page needs no other file: no script, no network, images inside. Its layout and style are in page.html.jinja.
"""

import base64
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.table import Table
from rich.text import Text

from loraft.display.figure import DPI
from loraft.visible import visible

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,  # sentences, labels and paths come from the user, and may hold HTML
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
MARK = b'<meta name="generator" content="loraft report">'  # by which a page is known as one
LONG_CELL = 40  # a column with a cell of so many characters holds sentences, which may be broken into lines


@dataclass(frozen=True)
class Image:
    """A PNG file; its caption is also its alternative text."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Code:
    """Preformatted text; with a `summary` it is folded, and opens when that line is clicked."""

    text: str
    summary: str | None = None
    language: str = ""  # by which Markdown colours it


Part = str | Table | Image | Code  # a string is a paragraph


@dataclass(frozen=True)
class Document:
    """A report before it is rendered. Sections without parts are left out.

    Attributes:
        title, subtitle: of the page.
        sections: heading and parts of each.
        labels: names that the user gave, which no translation changes.
        language: of the texts, as in `<html lang>`.
    """

    title: str
    subtitle: str
    sections: Sequence[tuple[str, Sequence[Part]]]
    labels: Collection[str] = ()
    language: str = "en"


def page(document: Document) -> str:
    """The whole document as HTML; every text in it is escaped once, by the template."""
    sections = [(head, list(_views(parts))) for head, parts in document.sections if parts]
    template = TEMPLATES.get_template("page.html.jinja")
    made = template.render(document=document, sections=sections)
    return visible(made)


def markdown(document: Document, *, code: bool = False) -> str:
    """The headings, paragraphs and tables as Markdown, without images; sections that hold code only with `code`."""
    blocks = [f"# {_markdown_text(document.title)}", _paragraph(document.subtitle)]
    for head, parts in document.sections:
        made = [_markdown_block(part) for part in parts if not isinstance(part, Image)]
        if made and (code or not any(isinstance(part, Code) for part in parts)):
            blocks += [f"## {_markdown_text(head)}", *made]
    return visible("\n\n".join(blocks) + "\n")


def _markdown_block(part: str | Table | Code) -> str:
    if isinstance(part, Code):  # the fence is longer than any in the text
        fence = "`" * max([3, *(1 + len(run) for run in re.findall("`+", part.text))])
        return f"{fence}{part.language}\n{part.text}\n{fence}"
    return _paragraph(part) if isinstance(part, str) else markdown_table(part)


def _paragraph(text: str) -> str:
    # At its begin some characters make a heading, a list, a quotation or a line.
    return re.sub(r"^(?:(?=[-+>#])|(\d{1,9})(?=[.)](?:\s|$)))", r"\1\\", _markdown_text(text))


def _views(parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
    # Paragraphs directly below a table explain it, and are set smaller.
    below_table = False
    for part in parts:
        below_table = isinstance(part, Table) or (below_table and isinstance(part, str))
        yield _view(part, below_table)


def _view(part: Part, below_table: bool) -> dict[str, Any]:
    """The values that the template inserts for a part; their keys depend on `kind`."""
    if isinstance(part, str):
        return {"kind": "text", "text": part, "below_table": below_table}
    if isinstance(part, Code):
        return {"kind": "code", "text": part.text, "summary": part.summary}
    if isinstance(part, Image):
        png = part.path.read_bytes()
        # Pixels of the PNG, from its first chunk (bytes 16 to 23: width, height). CSS counts 96 pixels an inch.
        width, height = (round(96 * int.from_bytes(png[at : at + 4], "big") / DPI) for at in (16, 20))
        encoded = base64.b64encode(png).decode()
        return {"kind": "image", "png": encoded, "width": width, "height": height, "caption": part.caption}
    heads, rows = cells(part)
    classes = [_css_class(part, i, [row[i] for row in rows]) for i in range(len(heads))]
    head, *body = [list(zip(classes, row, strict=True)) for row in (heads, *rows)]
    return {"kind": "table", "head": head, "rows": body}


def _css_class(table: Table, index: int, column: Sequence[str]) -> str:
    """The CSS class of a column: `number`, `text` for sentences, or "" for short words."""
    if table.columns[index].justify == "right":
        return "number"
    return "text" if max(map(len, column), default=0) >= LONG_CELL else ""


def markdown_table(content: Table) -> str:
    """The table in Markdown, as GitHub and pandoc read it."""
    heads, rows = cells(content)
    rule = ["---:" if column.justify == "right" else "---" for column in content.columns]
    lines = [[_markdown_text(cell) for cell in row] for row in (heads, *rows)]
    lines.insert(1, rule)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cells(content: Table) -> tuple[list[str], list[list[str]]]:
    """Column names and rows of a table as plain text."""
    columns = [[_plain(cell) for cell in column.cells] for column in content.columns]
    return [_plain(column.header) for column in content.columns], [list(row) for row in zip(*columns, strict=True)]


def _plain(cell: Any) -> str:
    return cell.plain if isinstance(cell, Text) else Text.from_markup(str(cell)).plain


def _markdown_text(text: str) -> str:
    # A bracket makes a link only before another one, a parenthesis or a colon; inside a word _ emphasises nothing.
    return re.sub(r"([\\`*<|&~]|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", " ".join(text.split()))
