"""Names of 300 letters, and of 100 letters that take 300 bytes, wherever a name or path is taken."""

import pytest
from helpers.bad_input import refusal

TOO_LONG = r"[Tt]oo long|at most 255 bytes|no such|No such|no finished run|unknown"
LETTERS = {"300 letters": "n" * 300, "300 bytes": "ữ" * 100}
PLACES = {
    "train data": ["train", "--data", "X"],
    "train data file": ["train", "--data", "X.csv"],
    "train model": ["train", "--model", "X"],
    "train model file": ["train", "--model", "X.gguf"],
    "train task": ["train", "--task", "X"],
    "train output": ["train", "--output", "X"],
    "train output below": ["train", "--output", "a/X/b"],
    "train preset": ["train", "--preset", "X"],
    "train quant": ["train", "--quant", "X"],
    "train cache": ["train", "--set", "model.cache_dir=X"],
    "train split": ["train", "--set", "data.train_split=X"],
    "train subset": ["train", "--set", "data.subset=X"],
    "eval run": ["eval", "--run", "X"],
    "eval run below": ["eval", "--run", "a/X"],
    "predict run": ["predict", "--run", "X", "thầy giảng hay"],
    "predict output": ["predict", "--output", "X", "thầy giảng hay"],
    "fewshot run": ["fewshot", "--run", "X"],
    "fewshot selection": ["fewshot", "--selection", "X"],
    "sweep joint": ["sweep", "--joint", "X"],
    "compare": ["compare", "X", "X"],
    "report": ["report", "X"],
    "report output": ["report", "--output", "X"],
    "data": ["data", "X"],
    "task new": ["task", "new", "--data", "X"],
}


@pytest.mark.parametrize("letters", LETTERS)
@pytest.mark.parametrize("place", PLACES)
def test_a_name_that_is_too_long_is_told(place: str, letters: str) -> None:
    refusal(
        [word.replace("X", LETTERS[letters]) for word in PLACES[place]],
        TOO_LONG.replace("unknown", "unknown|not allowed"),
    )
