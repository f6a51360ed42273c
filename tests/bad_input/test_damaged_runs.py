"""Files of runs and studies that were damaged by hand: one message in every command that reads them."""

import json
from pathlib import Path

import pytest
from helpers.bad_input import refusal
from helpers.damage import DAMAGES, copied, damaged

SENTENCE = "thầy giảng bài rất dễ hiểu"
PREDICT, EVAL, REPORT = ["predict", "--run", "run", SENTENCE], ["eval", "--run", "run"], ["report", "run"]
COMPARE, SHOTS = ["compare", "run", "sweep/r2"], ["fewshot", "--run", "run"]
RESUME = ["train", "--resume", "--config", "runs/run/config.yaml", "--output", "runs"]
# The commands that read a file; all of them refuse a damaged one before they load a backbone.
READ_BY = {
    "run/config.yaml": [PREDICT, EVAL, REPORT, COMPARE, SHOTS],
    "run/metrics.json": [REPORT, COMPARE],
    "run/environment.json": [REPORT],
    "run/predictions.jsonl": [REPORT, COMPARE],
    "run/before.json": [RESUME],
    "run/adapter/loraft.json": [PREDICT, EVAL, SHOTS],
    "run/adapter/adapter_config.json": [PREDICT, EVAL],
    "sweep/sweep.json": [["report", "sweep"], ["predict", "--run", "sweep", SENTENCE]],
    "sweep/sweep.yaml": [["report", "sweep"]],
    "fewshot/fewshot.json": [["report", "fewshot"]],
    "fewshot/fewshot.yaml": [["report", "fewshot"]],
    "data/data.json": [["report", "data"], ["data", "--set", "name=data", "--output", "runs"]],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", READ_BY)
def test_a_damaged_file_is_one_message_with_its_name(work: Path, file: str, damage: str) -> None:
    runs = copied(work)
    if file == "run/before.json":  # read where a training goes on
        (runs / "run" / "metrics.json").unlink()
    with damaged(runs / file, damage):
        for command in READ_BY[file]:
            refusal(command, Path(file).name)
