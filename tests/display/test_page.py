"""A document as Markdown; as HTML it is tested with the reports."""

from pathlib import Path

from rich.table import Table

from loraft.display.page import Code, Document, Image, markdown


def table() -> Table:
    made = Table("nhãn", "số câu")
    made.columns[1].justify = "right"
    made.add_row("tích cực | khác", "2")
    return made


def test_markdown_keeps_text_and_tables_in_their_order() -> None:
    document = Document("Quét", "hạt giống 1", [("Kết quả", ["trước", table(), "sau <b> | *đậm*"])])
    assert markdown(document) == (
        "# Quét\n\nhạt giống 1\n\n## Kết quả\n\ntrước\n\n"
        "| nhãn | số câu |\n| --- | ---: |\n| tích cực \\| khác | 2 |\n\nsau \\<b> \\| \\*đậm\\*\n"
    )


def test_markdown_leaves_out_images_and_sections_that_hold_code() -> None:
    image = Image(Path("không có.png"), "hình")
    sections = [("A", [image]), ("B", ["đọc", image]), ("C", ["chạy:", Code("loraft predict")]), ("D", [])]
    assert markdown(Document("T", "s", sections)) == "# T\n\ns\n\n## B\n\nđọc\n"
