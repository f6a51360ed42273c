"""Values of another type than the key's: booleans, numbers, lists, mappings and null."""

import pytest
from helpers.bad_input import refusal

BOOLEAN = r"is a boolean \(got (True|False), from --set\)"
CASES = {
    "lora.r=true": rf"lora\.r: {BOOLEAN}",
    "seed=false": rf"seed: {BOOLEAN}",
    "train.learning_rate=true": rf"train\.learning_rate: {BOOLEAN}",
    "eval.bootstrap_samples=false": rf"eval\.bootstrap_samples: {BOOLEAN}",
    "name=true": rf"name: {BOOLEAN}; .*put such a word in quotes",
    "model.name=true": rf"model\.name: {BOOLEAN}",
    "data.text_column=true": rf"data\.text_column: {BOOLEAN}",
    "prompt.system=false": rf"prompt\.system: {BOOLEAN}",
    "sweep.ranks=[true]": r"sweep\.ranks: holds a boolean",
    "fewshot.shots=[1, true]": r"fewshot\.shots: holds a boolean",
    "prompt.labels=[true, false]": r"prompt\.labels: holds a boolean",
    "quant.method=true": r"quant\.method: not allowed \(got True.*'none' or 'nf4'",
    "lora.use_dora=maybe": r"lora\.use_dora: not allowed \(got 'maybe'.*boolean",
    "lora.use_dora=2": r"lora\.use_dora: not allowed \(got 2.*boolean",
    "lora.use_dora=[true]": r"lora\.use_dora: not allowed \(got \[True\].*boolean",
    "lora.use_dora=null": r"lora\.use_dora: not allowed \(got None.*boolean",
    "lora.r=null": r"lora\.r: not allowed \(got None.*integer",
    "lora.r=": r"lora\.r: not allowed \(got None.*integer",
    "seed=~": r"seed: not allowed \(got None.*integer",
    "model.name=null": r"model\.name: not allowed \(got None.*string",
    "train.optim=null": r"train\.optim: not allowed \(got None",
    "train.report_to=null": r"train\.report_to: not allowed \(got None.*list",
    "fewshot.shots=null": r"fewshot\.shots: not allowed \(got None.*list",
    "prompt.template_kwargs=null": r"prompt\.template_kwargs: not allowed \(got None.*dictionary",
    "lora.r=[1]": r"lora\.r: not allowed \(got \[1\].*integer",
    "lora.r=[[1]]": r"lora\.r: not allowed \(got \[\[1\]\].*integer",
    "lora.r={a: 1}": r"lora\.r: not allowed \(got \{'a': 1\}.*integer",
    "train.learning_rate=[1e-4, 2e-4]": r"train\.learning_rate: not allowed \(got \[1e-4, 2e-4\].*number",
    "model.name=[a]": r"model\.name: is a list",
    "model.name={a: b}": r"model\.name: is a mapping",
    "data.source=[a.csv, b.csv]": r"data\.source: is a list \(got \['a\.csv', 'b\.csv'\]",
    "data.text_column={a}": r"data\.text_column: is a mapping",
    "prompt.template=[a]": r"prompt\.template: is a list",
    "prompt.labels=khen": r"prompt\.labels: not allowed \(got 'khen'.*list",
    "prompt.labels={khen: 0, chê: 1}": r"prompt\.labels: ",
    "prompt.labels=[[khen], [chê]]": r"prompt\.labels: holds a list",
    "prompt.labels=[khen, null]": r"prompt\.labels: holds null",
    "prompt.labels=[khen, {a: b}]": r"prompt\.labels: holds a mapping",
    "prompt.id_columns=topic": r"prompt\.id_columns: .*list",
    "prompt.template_kwargs=[a]": r"prompt\.template_kwargs: .*dictionary",
    "prompt.template_kwargs={a: [1]}": r"prompt\.template_kwargs: ",
    "prompt.template_kwargs={a: yes}": r"prompt\.template_kwargs: a: 'yes' is text, which templates take for true",
    "train.report_to=wandb": r"train\.report_to: not allowed \(got 'wandb'.*list",
    "train.report_to=[[wandb]]": r"train\.report_to\[0\]: not allowed",
    "lora.modules_to_save=lm_head": r"lora\.modules_to_save: .*list",
    "lora.target_modules={q_proj: 1}": r"lora\.target_modules: is a mapping",
    "lora.target_modules=[[q_proj]]": r"lora\.target_modules: holds a list",
    "fewshot.shots=4": r"fewshot\.shots: .*list",
    "fewshot.shots=[]": r"fewshot\.shots: .*at least 1 item",
    "fewshot.shots=[[1]]": r"fewshot\.shots\[0\]: .*integer",
    "fewshot.shots=[1, x]": r"fewshot\.shots\[1\]: .*'x'.*integer",
    "sweep.ranks={1: 2}": r"sweep\.ranks: .*list",
    "data.split=0.8": r"data\.split: must be three shares",
    "data.split={train: 0.8}": r"data\.split: must be three shares",
}


@pytest.mark.parametrize("pair", CASES)
def test_a_value_of_another_type_is_refused(pair: str) -> None:
    refusal(["config", "--set", pair], CASES[pair])
