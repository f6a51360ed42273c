"""Job arrays of SLURM: flags that do not go together, options, numbers, and folders without a script."""

import os

import pytest
from helpers.bad_input import refusal

EMIT = ["--emit", "slurm"]
REFUSED = [
    (["--emit", "pbs"], r"--emit: no scheduler that scripts are written for \(got 'pbs'\); only slurm"),
    (["--emit", ""], r"--emit: no scheduler"),
    (["--slurm", "gres=gpu:1"], r"--slurm: an option of the script \(got no --emit\); give --emit slurm too"),
    (["--array-size", "2", "--slurm", "x"], r"--slurm, --array-size: an option of the script"),
    ([*EMIT, "--dry-run"], r"--emit slurm: does not go with other work \(got --dry-run too\)"),
    ([*EMIT, "--from", "x", "--force"], r"--emit slurm: .*\(got --from, --force too\)"),
    ([*EMIT, "--search", "lora.r=1,2"], r"--emit slurm: the script runs .*\(got a search too\); give one of them"),
    ([*EMIT, "--ranks", "1", "--engine", "ray"], r"--emit slurm: the script runs .*\(got --engine ray too\)"),
    (["--search", "lora.r=1,2", "--engine", "ray"], r"sweep: engine=ray runs trials side by side.*; set engine=local"),
    ([*EMIT, "--array-task", "0"], r"--array-task: .*\(got --emit too\)"),
    (["--array-task", "0", "--ranks", "1,2", "--set", "seed=1", "--data", "x"],
     r"--array-task: .*\(got --ranks, --set, --data too\)"),
    (["--array-task", "0", "--engine", "ray", "--address", "máy:1"],
     r"--array-task: .*\(got --engine, --address too\)"),
    (["--array-task", "0", "--search", "lora.r=1,2", "--trials", "2"],
     r"--array-task: .*\(got --search, --trials too\)"),
    (["--array-task", "0"], r"--array-task: needs the sweep that the script was written for \(got no --config\)"),
    (["--array-task", "-1"], "--array-task"),
    (["--array-task", "một"], "--array-task"),
    ([*EMIT, "--array-size", "0"], "--array-size"),
    ([*EMIT, "--slurm", "-p gpu"], r"--slurm: not an option of sbatch in its long form \(got '-p gpu'\)"),
    ([*EMIT, "--slurm", "comment=\x1b[2J"], r"--slurm: not an option of sbatch"),
    ([*EMIT, "--slurm", "array=0-3"], r"--slurm array: the script lists the tasks itself"),
    ([*EMIT, "--ranks", "0"], r"--ranks: a rank is at least 1"),
    ([*EMIT, "--data", "không có"], r"không có"),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "says"), REFUSED, ids=[" ".join(flags)[:40] for flags, _ in REFUSED])
@pytest.mark.skipif(os.name == "nt", reason="a path with a backslash is refused first")
def test_what_makes_no_job_array_is_refused(flags: list[str], says: str) -> None:
    refusal(["sweep", *flags], says)
