"""The examples of the pages that teach print what the pages say; pictures are those that `tools/pictures.py` draws."""

import doctest
import json
import re
import runpy
import shlex
import statistics
import subprocess
import sys
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


# --- what commands print ----------------------------------------------------------------------------------------------

# A command in a fence, at most one paragraph, and what it prints, indented.
SHOWN = re.compile(r"^```\n(loraft [^\n]+)\n```\n\n(?:\S[^`]*?\n\n)?((?:    .*\n)+)", flags=re.MULTILINE)
# Commands of the tutorial whose output no test compares, by how they begin, each with the reason.
NOT_COMPARED = {
    "loraft train": "trains for minutes; tests/docs/test_output.py compares the same table of the README's training",
    "loraft predict": "needs the run of that training",
    "loraft fewshot": "21 passes over 200 rows with long prompts take minutes",
    "loraft sweep": "four trainings take minutes; the parameters are compared below",
    "loraft data <folder>": "needs UIT-VSFC, which is not bundled",
}
TUTORIAL, LORA, QUANTISATION, QUIZ = (
    (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("tutorial", "lora", "quantisation", "quiz")
)
SHOWN_COMMANDS = dict(SHOWN.findall(TUTORIAL))
CHEAP = {line: block for line, block in SHOWN_COMMANDS.items() if not line.startswith(tuple(NOT_COMPARED))}


def test_the_commands_whose_output_is_shown_are_found() -> None:
    assert len(CHEAP) == 4
    assert len(SHOWN_COMMANDS) == 9
    assert [start for start in NOT_COMPARED if not any(line.startswith(start) for line in SHOWN_COMMANDS)] == []


@pytest.mark.integration
@pytest.mark.parametrize("line", CHEAP)
def test_a_command_prints_what_the_tutorials_page_shows(line: str, tmp_path: Path) -> None:
    told = printed(line, tmp_path)
    missing = [part for part in " ".join(CHEAP[line].split()).split(" ... ") if part not in told]
    assert missing == []


def printed(line: str, folder: Path) -> str:
    """What a command prints on stdout and stderr, with single blanks."""
    words = [sys.executable, "-m", "loraft", *shlex.split(line)[1:]]
    done = subprocess.run(words, cwd=folder, capture_output=True, encoding="utf-8", check=True)
    return " ".join((done.stdout + done.stderr).split())


@pytest.mark.integration
def test_plan_prints_the_parameters_bits_and_errors_of_the_pages(tmp_path: Path) -> None:
    """One call prints what the pages show of `loraft plan --no-calibrate` with and without NF4 and its error."""
    told = printed("loraft plan --no-calibrate --quant nf4 --quant-error", tmp_path)
    (parameters,) = dict(SHOWN.findall(LORA)).values()
    assert parameters.strip() in told
    assert parameters.strip() in " ".join(QUIZ.split())
    assert "4.127 bits a quantised weight (QLoRA)" in told
    layers = re.findall(r"_proj [\d,]+ \S+ (\S+)% \S+ (\S+)% \S+ (\S+)%", told)
    assert len(layers) == 7
    nf4, fp4, int8 = ([f"{float(one):.1f}" for one in column] for column in zip(*layers, strict=True))
    ranges = [f"{min(column, key=float)} to {max(column, key=float)} %" for column in (nf4, fp4, int8)]
    assert [one for one in ranges if one not in " ".join(QUANTISATION.split())] == []
    assert [one for one in (ranges[0], ranges[2]) if one not in " ".join(QUIZ.split())] == []


@pytest.mark.integration
def test_a_dry_run_prints_the_parameters_of_the_quiz_and_of_the_tutorials_sweep(tmp_path: Path) -> None:
    counts = re.findall(
        r" r\d+ \d+ fixed, alpha 32 ([\d,]+) new", printed("loraft sweep --ranks 1,2,4,8 --dry-run", tmp_path)
    )
    assert f"prints {', '.join(counts[:-1])} and {counts[-1]} trainable parameters" in " ".join(QUIZ.split())
    (shown,) = (block for line, block in SHOWN_COMMANDS.items() if line.startswith("loraft sweep"))
    assert re.findall(r" (\d+,\d+) (?:best|=)", shown) == counts


def test_the_scores_and_the_memory_in_the_quiz_are_those_recorded_and_computed() -> None:
    record = json.loads((ROOT / "benchmarks" / "results" / "vsfc.json").read_text(encoding="utf-8"))
    lora, qlora = (
        statistics.median(run["after"]["accuracy"] for run in record["runs"][quant]) for quant in ("none", "nf4")
    )
    assert f"accuracy {lora:.4f} with LoRA and {qlora:.4f} with QLoRA" in " ".join(QUIZ.split())
    full, *others = (round(sum(parts.values()), 2) for parts in PICTURES["memory_in_gib"]().values())
    assert f"{full}, {others[0]} and {others[1]} GiB" in QUIZ


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
    rows = re.findall(r"^\.\.\.     \[(.*)\],$", QUANTISATION, flags=re.MULTILINE)
    assert [[float(weight) for weight in row.split(", ")] for row in rows] == PICTURES["WEIGHTS"].tolist()


def test_nf4s_levels_in_the_picture_are_those_of_bitsandbytes() -> None:
    from bitsandbytes.functional import get_4bit_type

    assert PICTURES["nf4_levels"]() == pytest.approx(get_4bit_type("nf4", device="cpu").numpy(), abs=1e-6)


def test_the_memory_in_the_picture_is_that_of_the_page() -> None:
    bars = [round(sum(parts.values()), 2) for parts in PICTURES["memory_in_gib"]().values()]
    assert f"\n{bars}\n" in LORA
