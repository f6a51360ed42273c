"""Flags that exclude each other, and values of flags."""

from pathlib import Path

import pytest
from helpers.bad_input import refusal

ONE = r"each says what to load \(got \d\); give one of them"
CASES: list[tuple[list[str], str]] = [
    (["train", "--force", "--resume"], r"--force and --resume: one deletes what the other continues"),
    (["train", "--folds", "5", "--force", "--resume"], r"--force and --resume: one deletes what the other continues"),
    (["fewshot", "--force", "--resume"], r"--force and --resume: one deletes what the other continues"),
    (["train", "--resume"], r"--resume: no run was begun in"),
    (["sweep", "--seed", "1", "--seeds", "1,2"], r"--seed and --seeds: give only one of them \(got 1 and 1,2\)"),
    (["fewshot", "--adapter-shots"], r"--adapter-shots: no adapter to measure \(got no --run\)"),
    (["fewshot", "--run", "a", "--task", "topic"], r"--task: fixed by the run's training"),
    (["fewshot", "--run", "a", "--set", "lora.r=8"], r"--set lora\.r=8: fixed by the run's training"),
    (["fewshot", "--repeats", "x"], r"fewshot\.repeats: .*'x'.*integer"),
    (["fewshot", "--selection", "best"], r"fewshot\.selection: .*'random', 'balanced' or 'nearest'"),
    (["fewshot", "--decode", "greedy"], r"eval\.decode: .*'score' or 'generate'"),
    (["eval", "--run", "a", "--adapter", "b"], ONE),
    (["eval", "--run", "a", "--zero-shot"], ONE),
    (["eval", "--adapter", "b", "--zero-shot"], ONE),
    (["eval", "--run", "a", "--adapter", "b", "--zero-shot"], r"--run and --adapter and --zero-shot: .*got 3"),
    (["eval", "--run", "a", "--model", "m"], r"--model: fixed by the run"),
    (["eval", "--run", "a", "--preset", "tutorial"], r"--preset: fixed by the run"),
    (["eval", "--run", "a", "--config", "c.yaml"], r"--config: fixed by the run"),
    (["eval", "--quant", "nf4"], r"--quant: fixed by the run"),
    (["eval", "--set", "lora.r=8"], r"--set lora\.r=8: fixed by the run"),
    (["eval", "--zero-shot", "--decode", "x"], r"eval\.decode: .*'score' or 'generate'"),
    (["predict", "--run", "a", "--adapter", "b", "câu"], ONE),
    (["predict", "--task", "topic", "câu"], r"--task: fixed by the run"),
    (["predict", "--json", "--output-file", "a.csv", "câu"], r"--json and --output-file: two forms of the result"),
    (["predict", "--adapter", "không-có", "câu"], r"không-có"),
    (["serve", "--command", "tgi"], r"--command: unknown \(got 'tgi'\); allowed: vllm, ollama"),
    (["serve", "--run", "không-có"], r"no such run \(got 'không-có'\); there are no runs yet"),
    (["serve", "--set", "prompt.task=topic"], r"--set prompt\.task=topic: fixed by the run"),
    (["serve", "--port", "65536"], r"65536"),
    (["sweep", "--joint", "maybe"], r"sweep\.joint: .*'auto', 'on' or 'off'"),
    (
        ["train", "--quant", "int8"],
        r"quant\.method: not allowed \(got 'int8', from --quant\).*'none' or 'nf4'",
    ),
    (
        ["config", "--describe", "Lora.R"],
        r"--describe: unknown key or section \(got 'Lora\.R'\); did you mean lora\.r\?",
    ),
    (
        ["config", "--describe", ""],
        r"--describe: unknown key or section \(got ''\); `loraft config --describe` lists all$",
    ),
    (["train", "--rank", "0"], r"lora\.r: not allowed \(got '0', from --rank\); should be greater than"),
    (["train", "--quant", ""], r"quant\.method: not allowed \(got ''"),
    (["train", "--model", ""], r"model\.name: is blank"),
    (["train", "--data", ""], r"data\.source: is blank"),
    (["train", "--task", ""], r"prompt\.task: no such task"),
    (["train", "--output", ""], r"output\.folder: is blank"),
    (["train", "--seed", ""], r"seed: not allowed \(got ''.*integer"),
    (["train", "--rank", ""], r"lora\.r: not allowed \(got ''.*integer"),
    (["train", "--preset", ""], r"preset: unknown preset \(got ''"),
    (["data", "a.csv", "--data", "b.csv"], r"--data: another source than the argument \(got b\.csv and a\.csv\)"),
    (["task", "new", "--language", "fr"], r"--language: unknown \(got 'fr'\); allowed: vi, en"),
    (["task", "new", "--output", "thư-mục"], r"--output: is a folder \(got thư-mục\); name a file"),
    (["report", "--markdown", "--to", "x.html"], r"--markdown and --to: Markdown goes to stdout"),
    (["report", "--lang", "fr"], r"--lang: not allowed \(got 'fr'\); one of en, vi"),
    (["report", "--lang", ""], r"--lang: not allowed \(got ''\)"),
    (["report", "--lang", "VI"], r"--lang: not allowed \(got 'VI'\)"),
    (["report", "--lang", "v" * 300], r"--lang: not allowed \(got 'v{50,60}\.\.\.'\)"),
    (["runs", "list", "--sort", "s" * 300], r"--sort: not allowed \(got 's{50,60}\.\.\.'\)"),
    (["predict", "--format", "f" * 300, "câu"], r"--format: unknown \(got 'f{50,60}\.\.\.'\)|no finished run"),
    (["predict", "--prior", "p" * 300, "câu"], r"prior: .*\(got 'p{50,60}\.\.\.'\)"),
    (["config", "--describe", "k" * 300], r"unknown key or section \(got 'k{50,60}\.\.\.'\)"),
    (["config", "k" * 300], r"'k{50,60}\.\.\.': is for --describe; loraft config --describe KEY"),
    (["config", "--describe", "lora.hạng"], r"unknown key or section \(got 'lora\.hạng'\)"),
    (["config", "--describe", "--set", "train.keep=foo"], r"--describe: .*\(got --set\); give it alone"),
    (["config", "--describe", "lora", "--rank", "8", "--seed", "1"], r"--describe: .*\(got --rank, --seed\)"),
    (["train", "--set", "train.keep=foo"], r"train\.keep: .*'foo'.*'best' or 'last'"),
    (["train", "--set", "train.keep="], r"train\.keep: "),
    (["fewshot", "--set", "fewshot.order=rỗng"], r"fewshot\.order: .*'rỗng'"),
]


@pytest.mark.parametrize(("arguments", "says"), CASES, ids=[" ".join(arguments)[:50] for arguments, _ in CASES])
def test_flags_that_do_not_go_together_are_refused(arguments: list[str], says: str, work: Path) -> None:
    (work / "thư-mục").mkdir()
    refusal(arguments, says)
