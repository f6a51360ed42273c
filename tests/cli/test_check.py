"""`loraft check` on the command line: what goes where, and the exit codes that scripts read."""

import json
from pathlib import Path

import pytest
from helpers.bad_input import refusal
from helpers.command_line import Says

from loraft.delivery import check as checking
from loraft.delivery.check import Checked, Finding

QUICK = ("--no-speed", "--set", "data.max_train_rows=60", "--set", "data.max_eval_rows=30",
         "--set", "data.max_test_rows=40")  # fmt: skip


def test_check_prints_all_parts_on_stdout_and_exits_with_0(here: Path, loraft_says: Says) -> None:
    code, out, err = loraft_says("check", *QUICK)
    assert code == 0
    lines = [line.strip() for line in out.splitlines()]
    assert lines[0].split() == ["config", "value", "preset", "quickstart"]
    assert any(line.startswith("data.max_train_rows") for line in lines)
    assert any(line.startswith("test rows that train has") for line in lines)
    assert any(line.startswith("[96 tokens, in every training row") for line in lines)
    assert "learning rate: 0.002, the usual one for 6,229,248 weights" in lines
    assert "note: using 60 of 2,537 train rows (data.max_train_rows)" in lines
    assert "\x1b" not in out
    assert err.splitlines() == ["backbone loraft-vi-tiny, data feedback", "next: loraft train, with the same flags"]
    assert list(here.iterdir()) == []


def test_the_json_holds_the_whole_config_and_what_was_found(here: Path, loraft_says: Says) -> None:
    code, out, _ = loraft_says("check", *QUICK, "--json", "--set", "train.learning_rate=0.5")
    content = json.loads(out)
    assert code == 1
    assert content["config"]["lora"]["r"] == 16
    assert content["differs"]["train.learning_rate"] == [0.5, None]
    assert content["findings"][0]["level"] == "error"
    assert content["rate"] == {"used": 0.5, "usual": 0.002, "weights": 6229248}
    assert content["splits"][0]["name"] == "train"


@pytest.mark.parametrize(
    ("level", "flags", "code"),
    [("error", (), 1), ("warning", (), 0), ("warning", ("--strict",), 1), ("note", ("--strict",), 0)],
)
def test_the_exit_code_is_for_scripts(
    here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch, level: str, flags: tuple[str, ...], code: int
) -> None:
    of = Checked({"preset": "quickstart"}, {}, (), (), None, (), None, None, (), (Finding(level, "lớp trống"),))  # type: ignore[arg-type]
    monkeypatch.setattr(checking, "check", lambda config, *, speed: of)
    assert loraft_says("check", "--json", *flags)[0] == code


def test_mistakes_are_refused_as_by_train(here: Path) -> None:
    refusal(["check", "--rank", "x", "--set", "lora.rank=1"], "lora.r", "lora.rank")
    refusal(["check", "--data", "owner/name"], "asks no hub", "hf download")


def test_a_wrong_backbone_is_told_beside_what_is_wrong_with_the_rows(here: Path, loraft_says: Says) -> None:
    code, out, _ = loraft_says("check", *QUICK, "--model", "không/có/đâu")
    assert code == 1
    assert "error: model.name: no such backbone (got 'không/có/đâu')" in out
    assert "test rows that train has" in out
