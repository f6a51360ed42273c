"""What a run predicts and goes on with, damaged by hand: refused by every reader before a backbone loads."""

from pathlib import Path

import pytest
from helpers.damage import DAMAGES, refused_everywhere

SENTENCE = "thầy giảng bài rất dễ hiểu"
PREDICT, EVAL, SHOTS = ["predict", "--run", "run", SENTENCE], ["eval", "--run", "run"], ["fewshot", "--run", "run"]
REPORT, COMPARE = ["report", "run"], ["compare", "run", "sweep/r2"]
READ_BY = {  # the commands that read a file
    "run/config.yaml": [PREDICT, EVAL, REPORT, COMPARE, SHOTS],
    "run/adapter/loraft.json": [PREDICT, EVAL, SHOTS],
    "run/adapter/adapter_config.json": [PREDICT, EVAL],
    "run/before.json": [["train", "--resume", "--config", "runs/run/config.yaml", "--output", "runs"]],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", READ_BY)
def test_a_damaged_file_is_one_message_with_its_name(work: Path, file: str, damage: str) -> None:
    refused_everywhere(work, file, damage, READ_BY[file])
