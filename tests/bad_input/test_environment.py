"""Environment variables that are no numbers, and several processes where one must work."""

import pytest
from helpers.bad_input import refusal

NUMBERS = ["hai", " ", "1.5", "２", "9" * 5000, "-1", "1 2", "0x2", "None"]


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "RANK", "LOCAL_RANK"])
@pytest.mark.parametrize("value", NUMBERS, ids=[value[:10] for value in NUMBERS])
def test_a_launchers_variable_that_is_no_number_is_told(
    value: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    refusal(["train"], rf"{variable}: not a whole number from 0 on \(got '.+'\); leave it out")


@pytest.mark.parametrize("command", [["eval", "--zero-shot"], ["fewshot"], ["sweep"], ["data"]])
def test_a_command_for_one_process_refuses_several(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    refusal(command, r"several processes: only loraft train works with a launcher .*start this command without it")


def test_training_by_folds_refuses_several_and_names_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    says = r"--folds 2: trains in one process \(got several, .*\); start it without the launcher, or leave --folds out"
    refusal(["train", "--folds", "2"], says)
