"""Ranks that an adapter is to be cut to, and what belongs to a training."""

from pathlib import Path

import pytest
from helpers.bad_input import refusal
from helpers.finished_runs import finished_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of rank 2."""
    folder = tmp_path_factory.mktemp("hạng")
    finished_run(folder)
    return folder


def refused(folder: Path, *arguments: str, says: str) -> None:
    refusal(["sweep", "--output", str(folder), *arguments], says, folder=folder)


@pytest.mark.parametrize(("ranks", "says"), [
    ("4,8", r"--ranks: above the rank 2 of .*của em \(got 4, 8\); loraft sweep without --from trains each rank"),
    ("2", r"--ranks: no rank below that of .*của em \(got a run of rank 2\)"),
    ("0", r"--ranks: a rank is at least 1 \(got 0\)"),
    ("x", r"--ranks: "),
    (",".join(map(str, range(3, 40))), r"--ranks: above the rank 2 .*\(got 3, 4, .* and 27 more\)"),
])  # fmt: skip
def test_ranks_that_no_cut_can_have_are_refused(folder: Path, ranks: str, says: str) -> None:
    refused(folder, "--from", "của em", "--ranks", ranks, says=says)


@pytest.mark.parametrize("flags", [
    ["--grid", "seed=1,2"], ["--seeds", "1,2"], ["--joint", "on"], ["--dry-run"], ["--model", "x"], ["--data", "x"],
    ["--quant", "nf4"], ["--seed", "7"], ["--preset", "tutorial"], ["--set", "lora.r=1"], ["--set", "data.source=x"],
    ["--set", "eval.decode=generate"], ["--set", "seed=3"],
])  # fmt: skip
def test_what_the_training_fixed_cannot_be_given_with_from(folder: Path, flags: list[str]) -> None:
    refused(
        folder,
        "--from",
        "của em",
        *flags,
        says=rf"{flags[0]}.*: fixed by the run.*\(loraft sweep without --from trains",
    )


@pytest.mark.parametrize("name", ["không có", "", ".", "x" * 300, "của em\n", "của em/adapter"])
def test_what_is_no_run_is_refused(folder: Path, name: str) -> None:
    refused(folder, "--from", name, says="error: ")
