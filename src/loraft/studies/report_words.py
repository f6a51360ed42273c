"""The words of a report in Vietnamese. Their table is `report.vi.yaml`: English text of reports, and Vietnamese.

What is not in the table stays as it is: numbers with their decimal points, names of scores such as macro F1, labels,
file names, code, and the warnings and errors of the program.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
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


# Longer texts, and what is nested deeper in a sentence, are not of the program: a report may be of a stranger's run.
LONGEST, DEEPEST = 4000, 6


@dataclass(frozen=True)
class Entry:
    """An English text of the table: what stands before, between and after its names, in order.

    Attributes:
        anchors: patterns of that text, with its numbers as groups. Each matches a bounded number of letters, so that a
            text is searched once from left to right.
        names: what stands for any text between two anchors.
        vietnamese: the text with all names.
    """

    anchors: list[re.Pattern[str]]
    names: list[str]
    vietnamese: str

    def values(self, text: str) -> dict[str, str] | None:
        """What stands for the names in the whole of a text; None if it is no text of this entry."""
        hit = self.anchors[0].match(text)
        found = hit.groupdict() if hit else {}
        for name, anchor in zip(self.names, self.anchors[1:], strict=True):
            if hit is None:
                break
            begin = hit.end()
            hit = anchor.search(text, begin + 1)
            if hit is not None and hit.start() > begin:  # the first place leaves the most for the anchors behind it
                found |= {name: text[begin : hit.start()], **hit.groupdict()}
            else:
                hit = None
        return found if hit else None


@cache
def table() -> list[Entry]:
    """The entries of the table."""
    words: dict[str, str] = read_mapping(Path(__file__).with_name("report.vi.yaml"))
    return [_entry(english, vietnamese) for english, vietnamese in words.items()]


def _entry(english: str, vietnamese: str) -> Entry:
    pieces = re.split(r"\{(\w\w+)\}", english)  # text and names by turns; names of one letter are numbers
    plain = [re.escape(one).replace(r"\ ", r"\s") for one in pieces[::2]]  # a head may be broken into lines
    plain = [re.sub(r"\\\{(\w)\\\}", r"(?P<\1>[\\d,.]{1,24}%?)", one) for one in plain]
    return Entry([*map(re.compile, [*plain[:-1], plain[-1] + r"\Z"])], pieces[1::2], vietnamese)


def translated(text: str, labels: Collection[str] = (), level: int = 0) -> str:
    """The text in Vietnamese, and so what stands for its names; the text itself where the table has none.

    A text that is not in the table as a whole is translated sentence by sentence.

    Args:
        text: of a report.
        labels: of the user, which are never translated.
        level: how many texts it stands in.
    """
    if text in labels or len(text) > LONGEST or level > DEEPEST:
        return text
    for entry in table():
        if (found := entry.values(text)) is not None:
            inner = {
                name: one if name.startswith("own") else translated(one, labels, level + 1)
                for name, one in found.items()
            }
            return entry.vietnamese.format(**inner)
    sentences = re.split(r"(?<=\.) (?=[A-Zp])", text)
    return " ".join(translated(one, labels, level + 1) for one in sentences) if len(sentences) > 1 else text


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
