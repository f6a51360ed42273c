"""Environment variables that are no numbers, and several processes where one must work."""

import pytest
from helpers.bad_input import refusal

NUMBERS = ["hai", "", " ", "1.5", "２", "9" * 5000, "-1", "1 2", "0x2", "None"]


@pytest.mark.parametrize("value", NUMBERS, ids=[value[:10] for value in NUMBERS])
def test_a_launchers_variable_that_is_no_number_is_told(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", value)
    refusal(["train", "--rank", "0"], r"lora\.r|WORLD_SIZE: not a whole number from 0 on \(got ")
    refusal(["sweep", "--output", "nơi"], r"WORLD_SIZE: not a whole number from 0 on \(got .*; leave it out")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", value)
    refusal(["train", "--folds", "5"], r"RANK: not a whole number from 0 on \(got |several processes")


@pytest.mark.parametrize(
    "command", [["eval", "--zero-shot"], ["fewshot"], ["sweep"], ["data"], ["train", "--folds", "5"]]
)
def test_a_command_for_one_process_refuses_several(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    refusal(command, r"several processes: only loraft train works with a launcher .*start this command without it")
