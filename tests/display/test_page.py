"""A document as HTML, escaped once, and as Markdown. Whole reports are tested in tests/studies/test_report.py."""

import base64
import re
import struct
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from loraft.display.page import Code, Document, Image, Part, cells, markdown, page

HOSTILE = """<script>alert("xin chào")</script> & 'a' {{ title }} &amp;"""


class Page(HTMLParser):
    """The page as (tag, attributes, text directly inside), in the order of the tags."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self.open: list[int] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), ""))
        if tag not in ("meta", "img"):
            self.open.append(len(self.found) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.found[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            tag, attrs, text = self.found[self.open[-1]]
            self.found[self.open[-1]] = (tag, attrs, text + data)

    def texts(self, tag: str) -> list[str]:
        return [text for name, _, text in self.found if name == tag]

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs, _ in self.found if name == tag]


def read(*parts: Part) -> Page:
    return Page(page(Document("T", "s", [("A", parts)])))


def table(*rows: tuple[str, str]) -> Table:
    made = Table("nhãn", "số câu")
    made.columns[1].justify = "right"
    for row in rows or [("tích cực | khác", "2")]:
        made.add_row(*map(Text, row))
    return made


def image(folder: Path, width: int, height: int) -> Image:
    """A file with the first bytes of a PNG: signature, length and name of the first chunk, width and height."""
    path = folder / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"...")
    return Image(path, HOSTILE)


# --- HTML -------------------------------------------------------------------------------------------------------------


def test_every_text_is_on_the_page_as_it_was_written(tmp_path: Path) -> None:
    hostile_table = Table()
    hostile_table.add_column(Text(HOSTILE))
    hostile_table.add_row(Text(HOSTILE))
    parts = [HOSTILE, hostile_table, Code(HOSTILE), Code(HOSTILE, HOSTILE), image(tmp_path, 1, 1)]
    found = Page(page(Document(HOSTILE, HOSTILE, [(HOSTILE, parts)])))
    assert found.open == []  # every tag is closed
    for tag in ("title", "h1", "h2", "th", "td", "summary", "figcaption"):
        assert found.texts(tag) == [HOSTILE]
    assert found.texts("p") == [HOSTILE, HOSTILE]  # subtitle and paragraph
    assert found.texts("pre") == [HOSTILE, HOSTILE]
    assert found.attributes("img")[0]["alt"] == HOSTILE
    assert found.texts("script") == []


def test_the_page_may_load_nothing(tmp_path: Path) -> None:
    found = read(image(tmp_path, 1, 1))
    (policy,) = [attrs for attrs in found.attributes("meta") if "http-equiv" in attrs]
    assert policy == {
        "http-equiv": "Content-Security-Policy",
        "content": "default-src 'none'; img-src data:; style-src 'unsafe-inline'",
    }
    tags = [tag for tag, _, _ in found.found]
    assert set(tags) == {
        "html", "head", "meta", "title", "style", "body", "h1", "p", "section", "h2", "figure", "img", "figcaption"
    }  # fmt: skip
    # A browser applies the policy only to what comes after it.
    assert tags.index("style") > [i for i, tag in enumerate(tags) if tag == "meta"][-1]


def test_sections_and_parts_keep_their_order_and_empty_sections_are_left_out() -> None:
    found = Page(page(Document("T", "s", [("A", ["một", Code("hai")]), ("B", []), ("C", ["ba"])])))
    assert found.texts("h2") == ["A", "C"]
    body = [text for tag, _, text in found.found if tag in ("h2", "p", "pre")]
    assert body == ["s", "A", "một", "hai", "C", "ba"]


def test_paragraphs_below_a_table_are_set_smaller_up_to_the_next_part_of_another_kind() -> None:
    found = read("trước", table(), "sau", "sau nữa", Code("x"), "cuối")
    classes = [(text, attrs.get("class")) for tag, attrs, text in found.found if tag == "p"]
    assert classes == [("s", "soft"), ("trước", None), ("sau", "soft"), ("sau nữa", "soft"), ("cuối", None)]


def test_columns_are_numbers_sentences_or_words() -> None:
    found = read(table(("a" * 39, "1"))), read(table(("ngắn", "1"), ("a" * 40, "2")))
    assert [attrs.get("class") for attrs in found[0].attributes("td")] == [None, "number"]
    assert [attrs.get("class") for attrs in found[1].attributes("td")] == ["text", "number"] * 2
    assert [attrs.get("class") for attrs in found[1].attributes("th")] == ["text", "number"]
    assert found[1].texts("td") == ["ngắn", "1", "a" * 40, "2"]
    assert len(found[1].texts("tr")) == 3


def test_a_table_without_rows_keeps_its_head() -> None:
    found = read(Table("nhãn", "số câu"))
    assert (found.texts("th"), found.texts("td")) == (["nhãn", "số câu"], [])


def test_an_image_is_inside_the_page_and_as_wide_as_in_print(tmp_path: Path) -> None:
    drawn = image(tmp_path, 900, 601)
    (attrs,) = read(drawn).attributes("img")
    # Figures have 150 dots an inch and CSS 96: 900 x 96 / 150 and 601 x 96 / 150 = 384.64.
    assert (attrs["width"], attrs["height"]) == ("576", "385")
    prefix, _, data = str(attrs["src"]).partition(",")
    assert prefix == "data:image/png;base64"
    assert base64.b64decode(data) == drawn.path.read_bytes()


def test_code_keeps_its_lines_and_is_folded_below_its_summary() -> None:
    found = read(Code("a\n\n  b\n"), Code("c", "mở ra"))
    assert found.texts("pre") == ["a\n\n  b\n", "c"]
    assert [tag for tag, _, _ in found.found][-4:] == ["pre", "details", "summary", "pre"]


# --- Markdown ---------------------------------------------------------------------------------------------------------


def test_markdown_keeps_text_and_tables_in_their_order() -> None:
    document = Document("Quét", "hạt giống 1", [("Kết quả", ["trước", table(), "sau <b> | *đậm*"])])
    assert markdown(document) == (
        "# Quét\n\nhạt giống 1\n\n## Kết quả\n\ntrước\n\n"
        "| nhãn | số câu |\n| --- | ---: |\n| tích cực \\| khác | 2 |\n\nsau \\<b> \\| \\*đậm\\*\n"
    )


@pytest.mark.parametrize("text", ["# a", "- a", "+ a", "> a", "1. a", "2) a", "---", "_a_ b", "__a__", "a _b_"])
def test_a_text_makes_no_heading_list_quotation_line_or_emphasis(text: str) -> None:
    line = markdown(Document("T", text, [])).splitlines()[2]
    assert line.replace("\\", "") == text
    assert not re.match(r"[-+>#]|\d+[.)]|.*(?<!\\)_", line)


@pytest.mark.parametrize("text", ["macro_f1 1.5", "2.5 giây", "a - b # c", "=: a"])
def test_a_text_without_such_a_beginning_stays(text: str) -> None:
    assert markdown(Document("T", text, [])).splitlines()[2] == text


def test_markdown_leaves_out_images_and_sections_that_hold_code() -> None:
    no_file = Image(Path("không có.png"), "hình")
    sections = [("A", [no_file]), ("B", ["đọc", no_file]), ("C", ["chạy:", Code("loraft predict")]), ("D", [])]
    assert markdown(Document("T", "s", sections)) == "# T\n\ns\n\n## B\n\nđọc\n"


def test_markdown_has_one_line_a_row_whatever_a_cell_holds() -> None:
    text = markdown(Document("T", "s", [("A", [table(("hai\ndòng | `x` \\", "1"))])]))
    (row,) = [line for line in text.splitlines() if "hai" in line]
    assert row == "| hai dòng \\| \\`x\\` \\\\ | 1 |"
    assert len(re.findall(r"(?<!\\)\|", row)) == 3


# --- cells ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cell", "expected"), [("[b]đậm[/b]", "đậm"), (Text("[b] là chữ"), "[b] là chữ")])
def test_cells_are_plain_text_of_markup_or_of_text(cell: str | Text, expected: str) -> None:
    made = Table()
    made.add_column(cell)
    made.add_row(cell)
    assert cells(made) == ([expected], [[expected]])
