"""Keys that do not go together."""

import pytest
from helpers.bad_input import refusal

CASES = {
    (
        "lora.init_lora_weights=orthogonal",
        "lora.r=3",
    ): r"lora: init_lora_weights=orthogonal needs an even rank, and r is 3",
    ("lora.target_parameters=[a]", "lora.use_dora=true"): r"lora: target_parameters does not work with use_dora",
    ("lora.target_parameters=[a]", "lora.lora_dropout=0.1"): r"target_parameters does not work with lora_dropout",
    ("lora.target_parameters=[a]", "lora.init_lora_weights=pissa"): r"does not work with init_lora_weights",
    ("train.class_weights=balanced", "train.sampling=balanced"): r"train: class_weights and sampling both correct",
    ("train.max_steps=0",): r"train\.max_steps: would train no step",
    ("train.metric=quadratic_kappa",): r"train: metric=quadratic_kappa needs labels in order; set prompt\.kind=ordinal",
    ("train.metric=micro_f1",): r"train: metric=micro_f1 does not go with prompt\.kind=single",
    ("train.metric=accuracy", "prompt.kind=multilabel"): r"metric=accuracy does not go with prompt\.kind=multilabel",
    ("train.metric=f1:vui",): r"train: metric='f1:vui' names no label of the task; labels: negative, neutral, positive",
    (f"train.metric=f1:{'x' * 300}",): r"train: metric='f1:x+\.\.\.' names no label",
    ("train.metric=f1",): r"train\.metric: is no metric \(got 'f1'",
    ("train.metric=",): r"train\.metric: not allowed \(got None",
    ("train.metric=''",): r"train\.metric: is no metric \(got ''",
    (f"train.metric={'m' * 300}",): r"train\.metric: is no metric \(got 'm+\.\.\.",
    ("data.split=[0.8, 0.1, 0.1]", "data.test_split=kiểm"): r"data\.split: draws the test rows from the train split",
    ("lora=8", "lora.r=8"): r"lora\.r: its section is set to a value as well \(got 8\)",
    ("lora.r=8", "lora=8"): r"lora: is a section, not a value|its section is set",
    ("lora.r=0", "seed=-1", "train.optim=adam"): r"lora\.r: (.*\n.*){2}",
}


@pytest.mark.parametrize("pairs", CASES, ids=[" ".join(pairs)[:50] for pairs in CASES])
def test_keys_that_exclude_each_other_are_told_together(pairs: tuple[str, ...]) -> None:
    refusal(["config", *(word for pair in pairs for word in ("--set", pair))], CASES[pairs])
