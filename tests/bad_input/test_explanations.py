"""Flags and inputs of `loraft explain` that are refused before a backbone is loaded."""

from pathlib import Path

import pytest
from helpers.bad_input import refusal

LOADER = "loraft.evaluation.classifier.load"
CASES: dict[str, tuple[list[str], str]] = {
    "no run": (["--run", "không-có", "câu"], r"no such run \(got 'không-có'\)"),
    "another label": (["--label", "tốt", "câu"], r"--label: none of the run's \(got 'tốt'\); allowed: negative, neutral"),
    "a blank label": (["--label", "", "câu"], r"--label: none of the run's \(got ''\)"),
    "two sources": (["--input", "a.csv", "câu"], r"--input and sentences: two sources"),
    "stdin and a sentence": (["câu", "-"], r"-: stdin and sentences are two sources"),
    "a missing file": (["--input", "a.csv"], r"a\.csv"),
    "an unknown format": (["--input", "a.csv", "--format", "xml"], r"--format: unknown \(got 'xml'\)"),
    "a key that the training fixed": (["--set", "lora.r=3", "câu"], r"--set lora\.r=3: fixed by the run"),
    "a blank column": (["--input", "a.csv", "--text-column", ""], r"--text-column: is blank"),
}  # fmt: skip


@pytest.mark.parametrize(("flags", "says"), CASES.values(), ids=CASES)
def test_it_is_refused_with_what_is_allowed(flags: list[str], says: str, run: Path) -> None:
    refusal(["explain", *flags], says)
