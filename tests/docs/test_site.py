"""`make docs`: the site is whole, loads nothing from elsewhere, and has the public names of the package."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

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


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, which was built without a warning."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, re.findall(r"WARNING.*", done.stderr)) == (0, [])  # --quiet would hide and allow them
    return folder


@pytest.mark.integration
def test_the_site_is_whole_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert {"index.html", "python.html", "own-data.html"} <= {page.name for page in pages}
    assert {page.name: elsewhere(page.read_text(encoding="utf-8")) for page in pages} == {p.name: [] for p in pages}
    assert "(<code>SECURITY.md</code>)" in (site / "reliability.html").read_text(encoding="utf-8")
    python = (site / "python.html").read_text(encoding="utf-8")
    headings = re.findall(r'<h3 id="loraft\.[\w.]+"[^>]*>\s*loraft\.(\w+)\s', python)
    assert headings == re.findall(r"heading: loraft\.(\w+)", PYTHON_PAGE)


@pytest.mark.integration
def test_a_page_that_is_opened_as_a_file_has_what_the_search_needs(site: Path) -> None:
    assert (site / "search" / "search_index.js").read_text(encoding="utf-8").startswith("var __index = {")
    for page, up in (("index.html", ""), ("vi/start.html", "../")):
        assert f'<script src="{up}javascripts/iframe-worker.js">' in (site / page).read_text(encoding="utf-8")
    assert (site / "javascripts" / "iframe-worker.js").is_file()


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.parametrize("words", ["NF4", "lượng"])
def test_the_search_finds_pages_in_a_browser_without_a_server(site: Path, words: str, tmp_path: Path) -> None:
    address = f"{(site / 'vi' / 'start.html').as_uri()}?q={quote(words)}"
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    command = ["chromium", *options, "--virtual-time-budget=20000", "--dump-dom", address]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert 'class="md-search-result__item"' in shown
