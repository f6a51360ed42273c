"""The examples of the pages that teach print what the pages say; pictures are those that `tools/pictures.py` draws."""

import doctest
import re
import runpy
import warnings
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PAGES = [page for page in sorted((ROOT / "docs").rglob("*.md")) if "\n>>> " in page.read_text(encoding="utf-8")]


def run_examples(text: str, name: str) -> tuple[int, str, dict[str, Any]]:
    """The number of failed examples of a page, what doctest says about them, and the names that the examples bind."""
    # A fence ends the output that doctest expects; an empty line in its place keeps the numbers of the lines.
    plain = re.sub(r"^```.*$", "", text, flags=re.MULTILINE)
    test = doctest.DocTestParser().get_doctest(plain, {}, name, name, 0)
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE, verbose=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner.run(test, out=told.append, clear_globs=False)
    return runner.failures, "".join(told), test.globs


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs")))
def test_the_examples_of_a_page_print_what_it_says(page: Path) -> None:
    failed, told, _ = run_examples(page.read_text(encoding="utf-8"), page.name)
    assert failed == 0, told


def test_a_wrong_output_and_an_error_are_seen() -> None:
    page = "Tổng:\n\n```python\n>>> 1 + 1\n3\n>>> 1 / 0\n\n```\n"
    failed, told, _ = run_examples(page, "trang.md")
    assert failed == 2
    assert "ZeroDivisionError" in told


# --- pictures ---------------------------------------------------------------------------------------------------------

PICTURES = runpy.run_path(str(ROOT / "tools" / "pictures.py"))


def test_the_pictures_are_those_that_the_script_draws(tmp_path: Path) -> None:
    PICTURES["main"](tmp_path)
    images = ROOT / "docs" / "images"
    assert {path.name for path in images.iterdir()} == set(PICTURES["PICTURES"])
    for drawn in tmp_path.iterdir():
        now, kept = (matplotlib.image.imread(folder / drawn.name) for folder in (tmp_path, images))
        stale = now.shape != kept.shape or np.abs(now - kept).max() > 0.2  # a digit that changed is a difference of 1
        assert not stale, f"python tools/pictures.py draws {drawn.name} anew"


def test_pictures_are_grey_and_narrow_enough_for_a_phone(tmp_path: Path) -> None:
    for image in (ROOT / "docs" / "images").iterdir():
        pixels = matplotlib.image.imread(image)[..., :3]
        assert np.ptp(pixels, axis=-1).max() == 0
        assert pixels.shape[1] == 690  # 4.6 inches at 150 dots: at 360 points text of 8 points is still 8.7


def test_the_picture_of_the_blocks_has_the_weights_of_the_page() -> None:
    page = (ROOT / "docs" / "quantisation.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\.\.\.     \[(.*)\],$", page, flags=re.MULTILINE)
    assert [[float(weight) for weight in row.split(", ")] for row in rows] == PICTURES["WEIGHTS"].tolist()


def test_nf4s_levels_in_the_picture_are_those_of_bitsandbytes() -> None:
    from bitsandbytes.functional import get_4bit_type

    assert PICTURES["nf4_levels"]() == pytest.approx(get_4bit_type("nf4", device="cpu").numpy(), abs=1e-6)


def test_the_memory_in_the_picture_is_that_of_the_page() -> None:
    bars = [round(sum(parts.values()), 2) for parts in PICTURES["memory_in_gib"]().values()]
    assert f"\n{bars}\n" in (ROOT / "docs" / "lora.md").read_text(encoding="utf-8")
