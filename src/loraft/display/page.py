"""One HTML page that needs nothing else: no script, no network, images inside; and Markdown of its text and tables."""

import base64
import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from loraft.display.figure import DPI

# The browser itself refuses whatever would leave the page.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --soft: #5c5c5c; --line: #d9d9d9; --back: #fff; --panel: #f5f5f5;
  --shade: #0003; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --soft: #a3a3a3; --line: #3d3d3d; --back: #161616; --panel: #222; --shade: #fff3; }
  img { filter: invert(0.91); }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; color: var(--ink); background: var(--back);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0.5rem 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 0.5rem; border-bottom: 1px solid var(--line); padding-bottom: 0.2rem; }
p { margin: 0.5rem 0; }
.soft, figcaption { color: var(--soft); font-size: 0.875rem; }
.wide { overflow-x: auto; background:  /* a shadow on the side where the table goes on */
  linear-gradient(to right, var(--back) 40%, transparent) left / 3rem 100% no-repeat local,
  linear-gradient(to left, var(--back) 40%, transparent) right / 3rem 100% no-repeat local,
  linear-gradient(to right, var(--shade), transparent) left / 0.7rem 100% no-repeat scroll,
  linear-gradient(to left, var(--shade), transparent) right / 0.7rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: 0.875rem; margin: 0.5rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.7rem 0.3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; vertical-align: bottom; }
td { white-space: nowrap; }
tr > :first-child:not(.text) { position: sticky; left: 0; background: var(--back); }
.number { text-align: right; }
.text { min-width: 14rem; white-space: normal; overflow-wrap: anywhere; }
figure { margin: 0.5rem 0; }
img { max-width: 100%; height: auto; }
pre { background: var(--panel); padding: 0.7rem; overflow-x: auto; font-size: 0.8125rem; border-radius: 4px; }
summary { cursor: pointer; }
"""
LONG_CELL = 40  # characters from which a column is taken for sentences


@dataclass(frozen=True)
class Image:
    """A PNG; its caption also tells what it shows to those who cannot see it."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Code:
    """Text as it is, in a box; behind a line to open where `summary` is given."""

    text: str
    summary: str | None = None


Part = str | Table | Image | Code  # text is a paragraph


@dataclass(frozen=True)
class Document:
    """What a report says, before it becomes a page or Markdown. Sections without parts are left out."""

    title: str
    subtitle: str
    sections: Sequence[tuple[str, Sequence[Part]]]


def page(document: Document) -> str:
    """The whole document as HTML."""
    title = _escape(document.title)
    body = [
        f"<section>\n<h2>{_escape(head)}</h2>\n" + "\n".join(_parts(parts)) + "\n</section>\n"
        for head, parts in document.sections
        if parts
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<h1>{title}</h1>\n<p class="soft">{_escape(document.subtitle)}</p>\n{"".join(body)}</body>\n</html>\n'
    )


def markdown(document: Document) -> str:
    """The document's tables and what is said of them; without images, and without the sections that hold code."""
    blocks = [f"# {_markdown_text(document.title)}", _markdown_text(document.subtitle)]
    for head, parts in document.sections:
        made = [
            _markdown_text(part) if isinstance(part, str) else markdown_table(part)
            for part in parts
            if isinstance(part, str | Table)
        ]
        if made and not any(isinstance(part, Code) for part in parts):
            blocks += [f"## {_markdown_text(head)}", *made]
    return "\n\n".join(blocks) + "\n"


def _parts(parts: Sequence[Part]) -> Iterator[str]:
    legend = False  # what is said below a table explains it
    for part in parts:
        legend = isinstance(part, Table) or (legend and isinstance(part, str))
        yield _part(part, legend)


def _part(part: Part, legend: bool) -> str:
    if isinstance(part, str):
        return f'<p class="soft">{_escape(part)}</p>' if legend else f"<p>{_escape(part)}</p>"
    if isinstance(part, Table):
        return _table(part)
    if isinstance(part, Code):
        box = f"<pre>{_escape(part.text)}</pre>"
        return box if part.summary is None else f"<details><summary>{_escape(part.summary)}</summary>{box}</details>"
    return _image(part)


def _image(image: Image) -> str:
    png = image.path.read_bytes()
    inches = [int.from_bytes(png[start : start + 4], "big") / DPI for start in (16, 20)]  # the header's first chunk
    width, height = (round(96 * length) for length in inches)  # CSS has 96 pixels an inch
    caption = _escape(image.caption)
    return (
        f'<figure><img alt="{caption}" width="{width}" height="{height}"'
        f' src="data:image/png;base64,{base64.b64encode(png).decode()}"><figcaption>{caption}</figcaption></figure>'
    )


def _table(content: Table) -> str:
    """A table; where it is wider than the screen it scrolls in its own frame."""
    heads, rows = cells(content)
    kinds = [_kind(content, i, [row[i] for row in rows]) for i in range(len(heads))]
    lines = [
        "<tr>"
        + "".join(f"<{tag}{kind}>{_escape(cell)}</{tag}>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for tag, row in [("th", heads), *(("td", row) for row in rows)]
    ]
    body = "\n".join(lines[1:])
    return f'<div class="wide"><table>\n<thead>{lines[0]}</thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def markdown_table(content: Table) -> str:
    """The table as GitHub and pandoc read it."""
    heads, rows = cells(content)
    rule = ["---:" if column.justify == "right" else "---" for column in content.columns]
    lines = [[_markdown_text(cell) for cell in row] for row in (heads, *rows)]
    lines.insert(1, rule)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cells(content: Table) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table as plain text."""
    columns = [[_plain(cell) for cell in column.cells] for column in content.columns]
    return [_plain(column.header) for column in content.columns], [list(row) for row in zip(*columns, strict=True)]


def _plain(cell: Any) -> str:
    return cell.plain if isinstance(cell, Text) else Text.from_markup(str(cell)).plain


def _kind(content: Table, index: int, column: Sequence[str]) -> str:
    if content.columns[index].justify == "right":
        return ' class="number"'
    return ' class="text"' if max(map(len, column), default=0) >= LONG_CELL else ""


def _markdown_text(text: str) -> str:
    return re.sub(r"([\\`*<|])", r"\\\1", " ".join(text.split()))


def _escape(text: str) -> str:
    return html.escape(text, quote=True)
