"""Output folders that cannot be one."""

from pathlib import Path

import pytest
from helpers.bad_input import refusal

CASES: list[tuple[list[str], str]] = [
    (["eval", "--output", "tệp"], r"tệp: no finished run"),
    (["predict", "--output", "tệp", "câu"], r"tệp: no finished run"),
    (["predict", "--output", "tệp/dưới", "câu"], r"tệp/dưới: no finished run"),
    (["report", "--output", "tệp"], r"tệp: nothing to report|tệp"),
    (["compare", "--output", "tệp", "a", "b"], r"tệp: no such run"),
    (["compare", "--output", "tệp/dưới", "a", "b"], r"tệp/dưới: no such run"),
    (["train", "--resume", "--output", "tệp"], r"tệp"),
    (["train", "--resume", "--output", "tệp/dưới"], r"tệp/dưới"),
    (["train", "--output", ""], r"output\.folder: is blank"),
    (["train", "--set", "output=[a]"], r"output\.folder: "),
    (["train", "--set", "output=true"], r"output\.folder: "),
    (["train", "--set", "output=null"], r"output\.folder: not allowed \(got None"),
]


@pytest.mark.parametrize(("arguments", "says"), CASES, ids=[" ".join(arguments)[:40] for arguments, _ in CASES])
def test_an_output_that_is_no_folder_is_told(arguments: list[str], says: str, work: Path) -> None:
    (work / "tệp").write_text("x", encoding="utf-8")
    refusal(arguments, says)
