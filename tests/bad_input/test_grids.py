"""Grids of a sweep, from `--grid` and from the config."""

import pytest
from helpers.bad_input import refusal

FORM = r"--grid: not of the form key=value,value \(got "
UNKNOWN = r"--grid: unknown key \(got "
YAML = r"not a list of YAML values \(got "
FLAGS = {
    "": FORM,
    "=": FORM,
    "=1,2": FORM,
    "lora.r": FORM,
    "lora.r=": FORM,
    "1,2,4": FORM,
    "x" * 400: rf"{FORM}'x+\.\.\.'\)",
    "rank=1,2": rf"{UNKNOWN}'rank'\); did you mean lora\.r\?",
    "lora.rank=1,2": rf"{UNKNOWN}'lora\.rank'\); did you mean lora\.r\?",
    "lora=1": rf"{UNKNOWN}'lora'\)",
    ".=1": rf"{UNKNOWN}'\.'\)",
    f"{'k' * 300}=1": rf"{UNKNOWN}'k+\.\.\.'\); `loraft config` shows the keys",
    "name=a,b": r"--grid: cannot be swept \(got 'name'\); no trial learns",
    "output=a,b": r"--grid: cannot be swept \(got 'output'\); .* --set output=VALUE",
    "preset=tutorial,quickstart": r"--grid: cannot be swept \(got 'preset'\)",
    "sweep.ranks=1": r"--grid: cannot be swept \(got 'sweep\.ranks'\)",
    "train.metric=accuracy,mcc": r"--grid: cannot be swept \(got 'train\.metric'\)",
    "lora.r=1,x": r"lora\.r: not allowed \(got 'x', from --grid lora\.r\).*valid integer",
    "lora.r=0": r"lora\.r: not allowed \(got 0, from --grid lora\.r\).*equal to 1",
    "lora.r=8,8": r"--grid lora\.r: the same value twice \(got 8 and 8\)",
    "lora.r=8,08": r"--grid lora\.r: the same value twice \(got 8 and 8\)",
    "lora.r=1,2,4,...,100": r"--grid lora\.r: no progression leads",
    "lora.r=[1": rf"--grid lora\.r: {YAML}'\[1'\)",
    "lora.r='1": rf"--grid lora\.r: {YAML}",
    "lora.r=*a": rf"--grid lora\.r: {YAML}'\*a'\)",
    "lora.r=!!python/none x": rf"--grid lora\.r: {YAML}",
    f"lora.r={'[' * 3000}": rf"--grid lora\.r: {YAML}'\[+\.\.\.'\)",
    "lora.r={a: 1}": r"sweep\.grid\[0\]: not allowed; should be",
    "lora.r=null": r"lora\.r: not allowed \(got None",
    "lora.use_dora=1,2": r"lora\.use_dora: not allowed \(got 2",
    "quant.method=nf4,int8": r"quant\.method: not allowed \(got 'int8'.*'none' or 'nf4'",
    "train.learning_rate=1e-4,nan": r"train\.learning_rate: .*finite number",
    "train.optim=adam": r"train\.optim: .*one of adamw_torch",
    "prompt.task=none": r"prompt\.task: no such task",
    "seed=1,2": r"--grid: this key has a flag of its own \(got seed\); use --ranks or --seeds",
}


@pytest.mark.parametrize("pair", FLAGS, ids=[pair[:30] for pair in FLAGS])
def test_a_grid_that_cannot_be_swept_is_refused(pair: str) -> None:
    refusal(["sweep", "--grid", pair], FLAGS[pair])


SETS = {
    "sweep.grid=[1]": r"sweep\.grid: not allowed \(got \[1\]",
    "sweep.grid=8": r"sweep\.grid: not allowed \(got 8",
    "sweep.grid={lora.r: 8}": r"sweep\.grid: .*valid list",
    "sweep.grid={lora.r: []}": r"--grid lora\.r: no value \(got an empty list\)",
    "sweep.grid={lora.r: [[1]]}": r"sweep\.grid\[0\]: not allowed",
    "sweep.grid={lora.target_modules: ['[a']}": rf"--grid lora\.target_modules: {YAML}'\[a'\)",
    "sweep.grid={1: [2]}": r"sweep\.grid\[1\]: .*valid string",
    "sweep.ranks=[]": r"sweep: nothing to sweep \(got no ranks",
    "sweep.ranks=8": r"sweep\.ranks: .*valid list",
    "sweep.seeds=[1, 1]": r"--seeds: the same value twice",
    f"sweep.seeds=[{', '.join(map(str, range(1001)))}]": r"sweep\.seeds: .*at most 1000 items",
}


@pytest.mark.parametrize("pair", SETS, ids=[pair[:40] for pair in SETS])
def test_a_sweep_section_that_cannot_be_swept_is_refused(pair: str) -> None:
    refusal(["sweep", "--set", pair], SETS[pair])


def test_more_trials_than_anybody_trains_are_refused_before_any_is_made() -> None:
    ranks, seeds = ",".join(map(str, range(1, 1001))), ",".join(map(str, range(1000)))
    refusal(["sweep", "--ranks", ranks, "--seeds", seeds], r"sweep: too many trials \(got 1,000,000\); at most 10,000")


def test_ten_mistakes_are_told_and_the_others_counted() -> None:
    refusal(
        ["sweep", *(word for number in range(40) for word in ("--grid", f"{number}{number}=1"))],
        r"\.\.\. and 30 more mistakes$",
    )
