"""Words where a number belongs: other scripts, units, not-a-number, thousands of digits."""

import pytest
from helpers.bad_input import refusal

DIGITS = "9" * 5000
FINITE = "should be a finite number"
INTEGER = "should be a valid integer"
CASES = {
    "word": (["train", "--rank", "mười"], rf"lora\.r: not allowed \(got 'mười', from --rank\); {INTEGER}"),
    "full width": (["train", "--rank", "１６"], rf"lora\.r: .*'１６'.*{INTEGER}"),
    "Arabic": (["train", "--rank", "١٦"], rf"lora\.r: .*'١٦'.*{INTEGER}"),
    "superscript": (["config", "--set", "lora.r=²"], rf"lora\.r: .*'²'.*{INTEGER}"),
    "Roman": (["config", "--set", "lora.r=Ⅷ"], rf"lora\.r: .*'Ⅷ'.*{INTEGER}"),
    "fraction": (["config", "--set", "lora.r=½"], rf"lora\.r: .*'½'.*{INTEGER}"),
    "typographic minus": (["config", "--set", "train.max_steps=−1"], rf"max_steps: .*'−1'.*{INTEGER}"),
    "decimal comma": (["config", "--set", "train.learning_rate=0,001"], r"learning_rate: .*'0,001'.*valid number"),
    "thousands": (["config", "--set", "data.max_train_rows=10,000"], rf"max_train_rows: .*'10,000'.*{INTEGER}"),
    "thousands by points": (["config", "--set", "data.max_train_rows=1.000.000"], rf"'1\.000\.000'.*{INTEGER}"),
    "space inside": (["config", "--set", "data.max_train_rows=10 000"], rf"'10 000'.*{INTEGER}"),
    "unit": (["config", "--set", "data.max_train_rows=10k"], rf"'10k'.*{INTEGER}"),
    "per cent": (["config", "--set", "eval.confidence=95%"], r"eval\.confidence: .*'95%'.*valid number"),
    "half a step": (["train", "--set", "train.max_steps=1.5"], rf"max_steps: .*got 1\.5.*{INTEGER}.*fractional"),
    "half a rank": (["train", "--rank", "1.5"], rf"lora\.r: .*'1\.5'.*{INTEGER}"),
    "hexadecimal flag": (["train", "--rank", "0x10"], rf"lora\.r: .*'0x10'.*{INTEGER}"),
    "binary": (["config", "--set", "lora.r=0b11"], rf"lora\.r: .*'0b11'.*{INTEGER}"),
    "hours": (["config", "--set", "train.max_steps=1:30"], rf"max_steps: .*'1:30'.*{INTEGER}"),
    "date": (["config", "--set", "seed=2024-07-26"], rf"seed: .*'2024-07-26'.*{INTEGER}"),
    "sum": (["config", "--set", "lora.r=8+8"], rf"lora\.r: .*'8\+8'.*{INTEGER}"),
    "inf": (["config", "--set", "train.learning_rate=inf"], rf"learning_rate: .*'inf'.*{FINITE}"),
    ".inf": (["config", "--set", "train.learning_rate=.inf"], rf"learning_rate: .*got \.inf.*{FINITE}"),
    "-.inf": (["config", "--set", "lora.lora_alpha=-.inf"], rf"lora_alpha: .*got -\.inf.*{FINITE}"),
    "1e400": (["config", "--set", "lora.lora_alpha=1e400"], rf"lora_alpha: .*got 1e400.*{FINITE}"),
    "nan": (["config", "--set", "train.weight_decay=nan"], rf"weight_decay: .*'nan'.*{FINITE}"),
    ".nan": (["config", "--set", "eval.confidence=.nan"], rf"eval\.confidence: .*got \.nan.*{FINITE}"),
    "infinite integer": (["config", "--set", "lora.r=.inf"], r"lora\.r: .*got \.inf.*finite number"),
    "no integer": (["config", "--set", "lora.r=.nan"], r"lora\.r: .*got \.nan.*finite number"),
    "digits of an integer": (["config", "--set", f"lora.r={DIGITS}"], r"lora\.r: .*got '9{50,60}\.\.\..*fewer digits"),
    "digits of a number": (["config", "--set", f"train.weight_decay={DIGITS}"], r"weight_decay: .*9\.\.\..*finite"),
    "digits of a share": (["config", "--set", f"data.split=[{DIGITS}, 0, 0]"], r"data\.split: must be three shares"),
    "digits of a fold": (["config", "--set", f"data.fold=1/{DIGITS}"], r"data\.fold: is no fold.*2/5"),
    "digits of a seed flag": (["config", "--seed", DIGITS], r"seed: .*fewer digits"),
    "digits of a rank flag": (["train", "--rank", DIGITS], r"lora\.r: .*fewer digits"),
    "digits of repeats": (["fewshot", "--repeats", DIGITS], r"fewshot\.repeats: .*fewer digits"),
    "digits of ranks": (["sweep", "--ranks", f"1,{DIGITS}"], r"--ranks: not a whole number .*at most 15 digits"),
    "digits of seeds": (["sweep", "--seeds", DIGITS], r"--seeds: not a whole number .*at most 15 digits"),
    "digits of shots": (["fewshot", "--shots", DIGITS], r"--shots: not a whole number .*at most 15 digits"),
    "digits of a grid": (["sweep", "--grid", f"lora.r={DIGITS}"], r"--grid lora\.r|lora\.r: .*fewer digits"),
    "digits of folds": (["train", "--folds", DIGITS], r"--folds.*exceeded maximum size \(got '9+\.\.\.'\)"),
    "digits of an exponent": (["config", "--set", f"train.learning_rate=1e{DIGITS}"], rf"learning_rate: .*{FINITE}"),
}


@pytest.mark.parametrize(("arguments", "says"), CASES.values(), ids=CASES)
def test_a_word_that_is_no_number_is_refused(arguments: list[str], says: str) -> None:
    refusal(arguments, says)
