"""docs/commands.md and docs/config.md are what `tools/reference.py` makes."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_reference_pages_are_fresh() -> None:
    script = "import reference; print(*(make() for make in reference.PAGES.values()), sep='\\0', end='')"
    made = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", script], cwd=ROOT / "tools", capture_output=True, check=True
    ).stdout.decode("utf-8")
    for name, text in zip(("commands.md", "config.md"), made.split("\0"), strict=True):
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text, f"run: python tools/reference.py ({name})"
