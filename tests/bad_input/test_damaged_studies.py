"""Files of sweeps, few-shot studies and statistics, damaged by hand: refused by every command that reads them."""

from pathlib import Path

import pytest
from helpers.damage import DAMAGES, refused_everywhere

SENTENCE = "thầy giảng bài rất dễ hiểu"
READ_BY = {  # the commands that read a file
    "sweep/sweep.json": [["report", "sweep"], ["predict", "--run", "sweep", SENTENCE]],
    "sweep/sweep.yaml": [["report", "sweep"]],
    "fewshot/fewshot.json": [["report", "fewshot"]],
    "data/data.json": [["report", "data"], ["data", "--set", "name=data", "--output", "runs"]],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", READ_BY)
def test_a_damaged_file_is_one_message_with_its_name(work: Path, file: str, damage: str) -> None:
    refused_everywhere(work, file, damage, READ_BY[file])
