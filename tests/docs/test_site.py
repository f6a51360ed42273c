"""`make docs`: the site is whole, loads nothing from elsewhere, and has the public names of the package."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import loraft

ROOT = Path(__file__).parents[2]
PYTHON_PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


class Loads(HTMLParser):
    """The addresses from which a page loads scripts, styles, fonts, pictures or frames."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "embed"):
            self.found.append(given.get("src") or "")
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.found.append(given.get("href") or "")


def elsewhere(html: str) -> list[str]:
    page = Loads()
    page.feed(html)
    found = page.found + re.findall(r"url\(['\"]?([^)'\"]+)|@import ['\"]([^'\"]+)", html)
    return [str(address) for address in found if re.match(r"(https?:)?//", str(address))]


def test_an_address_elsewhere_is_seen() -> None:
    assert elsewhere('<link rel="stylesheet" href="https://a.example/x.css"><script src="//b.example/x.js">') == [
        "https://a.example/x.css",
        "//b.example/x.js",
    ]
    assert elsewhere('<a href="https://a.example">x</a><script src="x.js"></script>') == []


def test_the_python_page_has_every_public_name_where_it_is_defined() -> None:
    shown = re.findall(r"^::: loraft\.([\w.]+)\.(\w+)$", PYTHON_PAGE, flags=re.MULTILINE)
    assert {name: module for module, name in shown} == loraft._HOME
    assert re.findall(r"heading: loraft\.(\w+)", PYTHON_PAGE) == re.findall(r"^::: .*\.(\w+)$", PYTHON_PAGE, re.M)


@pytest.mark.integration
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, re.findall(r"WARNING.*", done.stderr)) == (0, [])  # --quiet would hide and allow them
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert {"index.html", "python.html", "own-data.html"} <= {page.name for page in pages}
    assert {page.name: elsewhere(page.read_text(encoding="utf-8")) for page in pages} == {p.name: [] for p in pages}
    assert (tmp_path / "site" / "search" / "search_index.js").read_text(encoding="utf-8").startswith("var __index = {")
    assert '<script src="javascripts/iframe-worker.js">' in (tmp_path / "site" / "index.html").read_text(
        encoding="utf-8"
    )
    assert "(<code>SECURITY.md</code>)" in (tmp_path / "site" / "reliability.html").read_text(encoding="utf-8")
    python = (tmp_path / "site" / "python.html").read_text(encoding="utf-8")
    headings = re.findall(r'<h3 id="loraft\.[\w.]+"[^>]*>\s*loraft\.(\w+)\s', python)
    assert headings == re.findall(r"heading: loraft\.(\w+)", PYTHON_PAGE)
