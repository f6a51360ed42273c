"""The pages of the documentation: their code blocks and command lines."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(path for path in DOCS.rglob("*.md") if DOCS / "vi" not in path.parents)]
PROGRAM = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:loraft|make|python|torchrun|accelerate|ray|pip|pipx|hf|tensorboard|curl|printf|cat)\b"
)
OURS = re.compile(r"(?:^|[|;&(] *|[A-Z_]+=\S+ |-m )(?:loraft|make|python) ?")


@dataclass(frozen=True)
class Block:
    """A code block: the language that its fence names, empty without one, and its text."""

    page: str
    language: str
    text: str


def name_of(page: Path) -> str:
    """The page's path in the repository; of pages in docs/ without `docs/`."""
    return page.relative_to(DOCS if DOCS in page.parents else ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """The fenced and the indented code blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    fenced = r"^```(?P<language>[\w.-]*)[^\n]*\n(?P<fenced>.*?)^```"
    indented = r"(?<=\n\n)(?P<indented>(?: {4}\S[^\n]*\n| {5,}[^\n]*\n)(?: {4}[^\n]*\n|\n(?= {4}))*)"
    found = []
    for match in re.finditer(f"{fenced}|{indented}", text, flags=re.MULTILINE | re.DOTALL):
        code = match["fenced"] if match["indented"] is None else re.sub("^    ", "", match["indented"], flags=re.M)
        found.append(Block(name_of(page), match["language"] or "", code))
    return found


def commands(block: Block) -> list[tuple[str, str]]:
    """The shell commands of a block, each with what the block shows below it.

    Lines that begin with `$ ` are commands and the others are what they print. Without such a line, all lines of a
    block that begins with a program are commands.
    """
    lines = re.sub(r"\\\n\s*", "", block.text).splitlines()
    if any(line.startswith("$ ") for line in lines):
        found: list[tuple[str, list[str]]] = []
        for line in lines:
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif found:
                found[-1][1].append(line)
        return [(command, "\n".join(shown).rstrip()) for command, shown in found]
    if block.language not in ("", "sh", "bash") or not PROGRAM.match(block.text):
        return []
    return [(line, "") for line in lines if OURS.search(line)]


def table_commands(page: Path) -> list[str]:
    """The commands in the first column of a page's tables."""
    cells = re.findall(r"^\| (`loraft [^|]*`) \|", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [command for cell in cells for command in re.findall(r"`(loraft [^`]*)`", cell)]
