"""Spaces of a search, from `--search` and from the config."""

import pytest
from helpers.bad_input import refusal

FORM = r"--search: not of the form key=values \(got "
RANGE = r"not a range LOW:HIGH of two numbers \(got "
FLAGS = {
    "": FORM,
    "lora.r": FORM,
    "lora.r=": FORM,
    "=1:2": FORM,
    "rank=1:8": r"--search: unknown key \(got 'rank'\); did you mean lora\.r\?",
    "name=a,b": r"--search: cannot be searched \(got 'name'\); no trial learns .* by it; --set name=VALUE sets it for all",
    "output=a,b": r"--search: cannot be searched \(got 'output'\); no trial learns .* by it; --set output=VALUE",
    "seed=1,2": r"--search: cannot be searched \(got 'seed'\); the best seed .* luckiest one; --set seed=VALUE sets",
    "sweep.trials=1:5": r"--search: cannot be searched \(got 'sweep\.trials'\); .*; --set sweep\.trials=VALUE sets",
    "train.metric=accuracy,mcc": r"--search: cannot be searched \(got 'train\.metric'\); the trials would be judged on .*; --set train",
    "data.max_eval_rows=10:20": r"--search: cannot be searched \(got 'data\.max_eval_rows'\); the trials would be judged on",
    "eval.calibrate=true,false": r"--search: cannot be searched \(got 'eval\.calibrate'\); the trials would be judged on",
    "prompt.task=topic,sentiment": r"--search: cannot be searched \(got 'prompt\.task'\); the trials would be judged on",
    "lora.r=0:8": r"lora\.r: not allowed \(got 0, from --search lora\.r\).*equal to 1",
    "lora.r=1:8.5": r"lora\.r: not allowed \(got 8\.5, from --search lora\.r\).*valid integer",
    "lora.r=8:8": r"--search lora\.r: a range of one value \(got '8:8'\); --set gives a key one value",
    "lora.r=5": r"--search lora\.r: a list of one value \(got '5'\); --set gives a key one value",
    "train.learning_rate=log:1:1": r"--search train\.learning_rate: a range of one value \(got 'log:1:1'\)",
    "train.learning_rate=log:0:1": r"--search train\.learning_rate: no logarithm at the lower end \(got 'log:0:1'\)",
    "lora.r=8:1": r"--search lora\.r: the range ends before it begins \(got '8:1'\); write LOW:HIGH",
    "lora.r=8,8": r"--search lora\.r: the same value twice",
    "lora.r=1,2,4,...,100": r"--search lora\.r: no progression leads",
    "lora.r=log:1": rf"--search lora\.r: {RANGE}'log:1'\)",
    "lora.r=log:1:2:3": rf"--search lora\.r: {RANGE}",
    "lora.r=1:2:3": rf"--search lora\.r: {RANGE}'1:2:3'\)",
    "train.learning_rate=1e-5:1e-2,3": rf"--search train\.learning_rate: {RANGE}'1e-5:1e-2,3'\)",
    "train.learning_rate=log:1e-5:1e-2,3,4": rf"--search train\.learning_rate: {RANGE}",
    "lora.r=1:8,100": rf"--search lora\.r: {RANGE}'1:8,100'\)",
    "lora.r=100,1:8": rf"--search lora\.r: {RANGE}",
    "lora.r=log:a:b": rf"--search lora\.r: {RANGE}",
    "lora.r=uniform:": rf"--search lora\.r: {RANGE}",
    "lora.lora_dropout=log:0:0.1": r"--search lora\.lora_dropout: no logarithm at the lower end \(got 'log:0:0\.1'\)",
    "train.learning_rate=log:1e-5:.inf": r"train\.learning_rate: .*finite number",
    "train.learning_rate=log:.nan:1": r"train\.learning_rate: .*finite number",
    "train.learning_rate=log:1e-5:nan": rf"--search train\.learning_rate: {RANGE}",
    "train.optim=0:1": r"train\.optim: .*(valid string|one of adamw_torch)",
    "train.optim=adam,sgd": r"train\.optim: .*one of adamw_torch",
    "lora.r=[1": r"--search lora\.r: not a list of YAML values \(got '\[1'\)",
    "lora.r=\x00:2": r"sweep\.search: holds U\+0000",
}


@pytest.mark.parametrize("pair", FLAGS, ids=[repr(pair[:30]) for pair in FLAGS])
def test_a_space_that_cannot_be_searched_is_refused(pair: str) -> None:
    refusal(["sweep", "--search", pair], FLAGS[pair])


SPACE = ["sweep", "--search", "lora.r=1:8"]
MORE = {
    "--ranks 1,2": r"--search: a search makes its own trials, one after another \(got --ranks, too\); leave it out",
    "--grid train.optim=sgd": r"--search: .* \(got --grid, too\)",
    "--seeds 1,2": r"--search: .* \(got --seeds, too\)",
    "--joint on": r"--search: .* \(got --joint on, too\)",
    "--search lora.r=1:4": r"--search: the key lora\.r is given twice",
    "--trials 0": r"sweep\.trials: not allowed \(got '?0'?, from .*greater than or equal to 1",
    "--trials x": r"sweep\.trials: not allowed",
    "--from demo": r"--search",
}


@pytest.mark.parametrize("more", MORE)
def test_what_does_not_go_with_a_search_is_refused(more: str) -> None:
    refusal([*SPACE, *more.split()], MORE[more])


SETS = {
    "sweep.search=[1]": r"sweep\.search: not allowed",
    "sweep.search={lora.r: 8}": r"sweep\.search.* not allowed",
    "sweep.search={lora.r: ''}": r"--search lora\.r: no value",
}


@pytest.mark.parametrize("pair", SETS)
def test_a_search_section_that_cannot_be_searched_is_refused(pair: str) -> None:
    refusal(["sweep", "--set", pair], SETS[pair])


def test_every_backbone_of_the_list_is_looked_for_before_the_space_is_shown() -> None:
    pair = "model.name=loraft-vi-tiny,không-có"
    refusal(["sweep", "--search", pair, "--dry-run"], r"model\.name: no such backbone \(got 'không-có'\); bundled")


def test_trials_without_a_search_are_refused() -> None:
    refusal(["sweep", "--ranks", "1,2", "--trials", "3"], r"--trials: of a search alone \(got 3 without --search\)")
