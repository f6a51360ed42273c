"""Results of a run that were damaged by hand: refused by every command that reads them."""

from pathlib import Path

import pytest
from helpers.damage import DAMAGES, refused_everywhere

REPORT, COMPARE = ["report", "run"], ["compare", "run", "sweep/r2"]
READ_BY = {  # the commands that read a file
    "run/metrics.json": [REPORT, COMPARE],
    "run/environment.json": [REPORT],
    "run/predictions.jsonl": [REPORT, COMPARE],
    "run/explanations.json": [REPORT],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", READ_BY)
def test_a_damaged_file_is_one_message_with_its_name(work: Path, file: str, damage: str) -> None:
    refused_everywhere(work, file, damage, READ_BY[file])
