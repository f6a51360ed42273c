"""The words of a report in Vietnamese. Their table is `report.vi.yaml`: English text of reports, and Vietnamese.

What is not in the table stays as it is: numbers with their decimal points, names of scores such as macro F1, labels,
file names, code, and the warnings and errors of the program.
"""

import re
from collections.abc import Collection
from dataclasses import replace
from functools import cache
from pathlib import Path

from loraft.config.yaml_io import read_mapping
from loraft.display.page import Code, Document, Image, Part, cells
from loraft.display.table import listing

# Heads of the columns whose cells hold words of the program, not of the user.
COLUMNS = {
    "", "baseline", "score", "shown to be", "label", "true", "predicted", "probabilities", "training", "value", "notes",
    "against the best", "best", "weights", "split", "length", "leaks", "the same sentence", "nearly the same",
    "longest rows", "label, the rarest first", "training rows in the prompt", "why", "fold",
    "rows with at most n words",
}  # fmt: skip


@cache
def table() -> list[tuple[re.Pattern[str], str]]:
    """The entries of the table: a pattern of the English text, and the Vietnamese text with the same names."""
    words: dict[str, str] = read_mapping(Path(__file__).with_name("report.vi.yaml"))
    return [(_pattern(english), vietnamese) for english, vietnamese in words.items()]


def _pattern(english: str) -> re.Pattern[str]:
    pieces = re.split(r"\{(\w+)\}", english)  # text and names by turns
    stands_for = [r"[\d,.]+%?" if len(one) == 1 else ".+?" for one in pieces]  # only names of one letter are numbers
    plain = [re.escape(one).replace(r"\ ", r"\s") for one in pieces]  # a head may be broken into lines
    made = [f"(?P<{one}>{stands_for[i]})" if i % 2 else plain[i] for i, one in enumerate(pieces)]
    return re.compile("".join(made), re.DOTALL)


def translated(text: str, labels: Collection[str] = ()) -> str:
    """The text in Vietnamese, and so what stands for its names; the text itself where the table has none.

    A text that is not in the table as a whole is translated sentence by sentence.

    Args:
        text: of a report.
        labels: of the user, which are never translated.
    """
    if text in labels:
        return text
    for pattern, vietnamese in table():
        if found := pattern.fullmatch(text):
            return vietnamese.format(**{
                name: one if name.startswith("own") else translated(one, labels)
                for name, one in found.groupdict().items()
            })  # fmt: skip
    sentences = re.split(r"(?<=\.) (?=[A-Zp])", text)
    return " ".join(translated(one, labels) for one in sentences) if len(sentences) > 1 else text


def in_vietnamese(document: Document) -> Document:
    """The report with its headings, captions, columns and sentences in Vietnamese."""

    def words(text: str) -> str:
        return translated(text, document.labels)

    def part(one: Part) -> Part:
        if isinstance(one, str):
            return words(one)
        if isinstance(one, Image):
            return replace(one, caption=words(one.caption))
        if isinstance(one, Code):
            return replace(one, summary=one.summary and words(one.summary))
        heads, rows = cells(one)
        ours = [head in COLUMNS or head.endswith(" (%)") for head in heads]
        made = listing(
            [*map(words, heads)],
            [[words(cell) if our else cell for our, cell in zip(ours, row, strict=True)] for row in rows],
        )
        for column, as_before in zip(made.columns, one.columns, strict=True):
            column.justify = as_before.justify
        return made

    sections = [
        (words(head), parts if head == "Warnings" else [*map(part, parts)]) for head, parts in document.sections
    ]
    subtitle = " · ".join(map(words, document.subtitle.split(" · ")))
    return replace(document, title=words(document.title), subtitle=subtitle, sections=sections, language="vi")
