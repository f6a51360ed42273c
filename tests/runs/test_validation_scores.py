"""The file of validation scores: what it keeps, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest

from loraft.errors import RunError
from loraft.runs.validation_scores import VALIDATION_FILE, ValidationScores, read, write

SCORES = ValidationScores(("xấu", "tốt"), (3, 9, 4), (0, 1, 1), ((-0.1, -2.5), (-3.0, -0.05), (-1.0, -1.1)),
                          (False, True, True))  # fmt: skip


def test_scores_come_back_in_parts(tmp_path: Path) -> None:
    write(tmp_path, SCORES)
    found = read(tmp_path)
    assert found == SCORES
    assert found is not None
    log_probs_NK, references_N = found.arrays(set_aside=True)
    np.testing.assert_array_equal(log_probs_NK, [[-3.0, -0.05], [-1.0, -1.1]])
    assert references_N.tolist() == [1, 1]
    assert [len(found.arrays(set_aside=which)[1]) for which in (None, False)] == [3, 1]


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    assert read(tmp_path) is None


@pytest.mark.parametrize(
    ("old", "new"), [('"references": [', '"references": [0,'), ("-2.5", '"nhiều"'), ("-2.5", "-2.5, -3"), ("9,", "")]
)
def test_a_damaged_file_is_refused(tmp_path: Path, old: str, new: str) -> None:
    write(tmp_path, SCORES)
    path = tmp_path / VALIDATION_FILE
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(RunError, match=r"validation_scores\.json: .*train again"):
        read(tmp_path)
