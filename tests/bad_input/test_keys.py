"""Unknown keys, keys of another section, sections that are given a value, and what is no key at all."""

from pathlib import Path

import pytest
from helpers.bad_input import refusal

NO_KEY = r"--set: not key=value \(got "
SETS = {
    "": NO_KEY,
    "=": NO_KEY,
    "=8": NO_KEY,
    " = ": NO_KEY,
    "lora.r": rf"{NO_KEY}'lora\.r'\); for example --set train\.learning_rate=1e-4",
    "lora.r:8": NO_KEY,
    "lora.r 8": NO_KEY,
    ".=1": NO_KEY,
    "..=1": NO_KEY,
    "lora.=1": NO_KEY,
    ".r=1": NO_KEY,
    "lora..r=1": NO_KEY,
    "y" * 500: rf"{NO_KEY}'y+\.\.\.'\)",
    "rank=8": r"rank: unknown key \(got 8, from --set\); did you mean lora\.r\?",
    "lora.rank=8": r"lora\.rank: unknown key .*did you mean lora\.r\?",
    "lora.alpha=8": r"lora\.alpha: unknown key .*did you mean lora\.lora_alpha\?",
    "lr=1": r"lr: unknown key .*did you mean train\.learning_rate\?",
    "train.lr=1": r"train\.lr: unknown key .*did you mean train\.learning_rate\?",
    "train.epochs=1": r"train\.epochs: unknown key .*train\.num_train_epochs\?",
    "training.learning_rate=1": r"training: unknown key; did you mean ",
    "train.r=1": r"train\.r: unknown key .*did you mean lora\.r\?",
    "LORA.R=1": r"LORA: unknown key",
    "lora.r.x=1": r"lora\.r: not allowed \(got \{'x': 1\}",
    "seed.x=1": r"seed: not allowed \(got \{'x': 1\}",
    "a.b.c.d.e=1": r"a: unknown key; `loraft config` shows the known keys",
    f"{'k' * 300}=1": r"k{50,60}\.\.\.: unknown key \(got 1, from --set\); `loraft config`",
    f"lora.{'k' * 300}=1": r"lora\.k{50,60}\.\.\.: unknown key",
    "hạng=8": r"hạng: unknown key \(got 8, from --set\); `loraft config`",
    "lora=8": r"lora: is a section, not a value \(got 8, from --set\); set a key in it, for example lora\.r",
    "lora=[1]": r"lora: is a section, not a value",
    "train='x'": r"train: is a section, not a value \(got 'x'",
    "__class__=1": r"__class__: unknown key",
    "model_config=1": r"model_config: unknown key",
    "lora.__init__=1": r"lora\.__init__: unknown key",
}


@pytest.mark.parametrize("pair", SETS, ids=[pair[:30] for pair in SETS])
def test_what_is_no_key_of_the_config_is_refused(pair: str) -> None:
    refusal(["config", "--set", pair], SETS[pair])


FILES = {
    "lora.r: 8": r"lora\.r: is a dotted key .*in a file, write the section and indent",
    "lora: 8": r"lora: is a section, not a value \(got 8, from .*mine\.yaml\)",
    "lora: [r]": r"lora: is a section, not a value",
    "lora:\n  rnk: 8": r"lora\.rnk: unknown key \(got 8, from .*mine\.yaml\); did you mean ",
    "r: 8": r"r: unknown key .*did you mean lora\.r\?",
    "1: 8": r"1: is a key that is not text",
    "true: 8": r"1: is a key that is not text",
    "null: 8": r"None: is a key that is not text",
    "1.5: {a: b}": r"1\.5: is a key that is not text",
    "{lora: {1: 2}}": r"lora\.1: is a key that is not text",
    "lora: {r: {a: {b: {c: d}}}}": r"lora\.r: not allowed",
    "\n".join(f"khóa{number}: 1" for number in range(50)): r"\.\.\. and 40 more mistakes$",
    "\n".join(f"khóa{number:0250}: 1" for number in range(9)): r"unknown key",
}


@pytest.mark.parametrize("text", FILES, ids=[text[:20] for text in FILES])
def test_a_file_with_what_is_no_key_is_refused(text: str, work: Path) -> None:
    (work / "mine.yaml").write_text(text, encoding="utf-8")
    refusal(["train", "--config", "mine.yaml"], FILES[text])
