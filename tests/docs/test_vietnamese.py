"""The Vietnamese pages say what the English ones say: the same code and output, images, headings and numbers."""

import json
import re
import unicodedata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "vi").glob("*.md"))
READMES = (ROOT / "README.md", ROOT / "README.vi.md")
MORE = {"start": ["##"]}  # headings that the English page has not: the glossary

NUMBER = re.compile(r"\d[\d,.]*\d")


def english(page: Path) -> str:
    return (ROOT / "docs" / ("index.md" if page.stem == "start" else page.name)).read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    """Fenced and indented code, in order."""
    return re.findall(r"^```[^\n]*\n.*?^```|(?<=\n\n)(?: {4}[^\n]+\n)+", text, flags=re.M | re.S)


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```|`[^`\n]*`|\]\([^)]*\)", "", text, flags=re.M | re.S)


def numbers(text: str) -> set[str]:
    """Numbers of two characters or more in a text, without those in code, links and anchors."""
    return set(NUMBER.findall(prose(text)))


def commands(text: str) -> list[str]:
    return re.findall(r"^\| `loraft (\w+)", text, flags=re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_the_code_images_headings_and_numbers_of_the_english_one(page: Path) -> None:
    text, other = page.read_text(encoding="utf-8"), english(page)
    assert blocks(text) == blocks(other)
    images = [re.findall(r"!\[[^]]+\]\([^)]*?([\w-]+\.(?:png|svg))\)", one) for one in (text, other)]
    assert images[0] == images[1]
    levels = [
        re.findall(r"^#+(?= )", re.sub(r"^```.*?^```", "", one, flags=re.M | re.S), re.M) for one in (text, other)
    ]
    assert levels[0] == levels[1] + MORE.get(page.stem, [])
    if page.stem != "start":  # its table of pages and its glossary are its own
        assert numbers(text) == numbers(other)


def test_the_pages_that_a_student_needs_are_there() -> None:
    assert {"start", "own-data", "tutorial", "lora", "quantisation"} <= {page.stem for page in PAGES}


def test_the_first_pages_lead_to_the_same_pages() -> None:
    both = (ROOT / "docs" / name for name in ("index.md", "vi/start.md"))
    theirs, ours = (set(re.findall(r"([\w-]+)\.md\)", page.read_text(encoding="utf-8"))) for page in both)
    assert theirs == ours >= {"tutorial", "lora", "quantisation", "quiz"}


def test_the_readmes_show_the_same_blocks_commands_and_numbers() -> None:
    text, vietnamese = (page.read_text(encoding="utf-8") for page in READMES)
    theirs = iter(blocks(text))
    assert len(blocks(vietnamese)) >= 5
    assert [
        block for block in blocks(vietnamese) if block not in theirs
    ] == []  # `in` goes on in the iterator: in order
    assert commands(vietnamese) == commands(text)
    assert numbers(vietnamese) <= set(NUMBER.findall(text))


@pytest.mark.parametrize("page", [*PAGES, READMES[1]], ids=lambda page: page.stem)
def test_letters_are_composed_and_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert unicodedata.is_normalized("NFC", text)
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_notebooks_have_the_same_cells() -> None:
    kinds = [
        [
            (cell["cell_type"], cell["source"] if cell["cell_type"] == "code" else "")
            for cell in json.loads(text)["cells"]
        ]
        for text in ((ROOT / "docs/notebooks" / f"tutorial{one}.ipynb").read_text("utf-8") for one in ("", ".vi"))
    ]
    assert len(kinds[0]) > 20
    assert kinds[0] == kinds[1]
