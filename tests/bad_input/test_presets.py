"""Presets by flag, file, `--set` and environment that are none."""

from pathlib import Path

import pytest
from helpers.bad_input import refusal

UNKNOWN = r"preset: unknown preset \(got "
ALLOWED = r"allowed: quickstart, tutorial"
SETS = {
    "[a]": rf"{UNKNOWN}\['a'\], from --set\); {ALLOWED}",
    "[quickstart]": rf"{UNKNOWN}\['quickstart'\]",
    "{a: 1}": rf"{UNKNOWN}\{{'a': 1\}}, from --set\)",
    "3": rf"{UNKNOWN}3, from --set\)",
    "true": rf"{UNKNOWN}True",
    "1.5": rf"{UNKNOWN}1\.5",
    "''": rf"{UNKNOWN}''",
    "null": r"preset: not allowed \(got None",
    "tutoriel": rf"{UNKNOWN}'tutoriel', from --set\); did you mean tutorial\? {ALLOWED}",
    "Quickstart": rf"{UNKNOWN}'Quickstart'",
    "quickstart.yaml": rf"{UNKNOWN}'quickstart\.yaml'",
    "../quickstart": rf"{UNKNOWN}'\.\./quickstart'",
    "p" * 300: rf"{UNKNOWN}'p+\.\.\.', from --set\)",
    '"a\\0b"': rf"{UNKNOWN}'a\\x00b'",
    '"\\ud800"': rf"{UNKNOWN}'\\ud800'",
}


@pytest.mark.parametrize("value", SETS, ids=[value[:20] for value in SETS])
def test_a_value_that_is_no_preset_is_refused(value: str, work: Path) -> None:
    refusal(["config", "--set", f"preset={value}"], SETS[value])
    (work / "mine.yaml").write_text(f"preset: {value}\n", encoding="utf-8")
    refusal(["config", "--config", "mine.yaml"], SETS[value].replace("from --set", r"from mine\.yaml"))


@pytest.mark.parametrize("command", [["train"], ["eval", "--zero-shot"], ["fewshot"], ["sweep"], ["data"], ["config"]])
def test_an_unknown_preset_is_refused_by_every_command(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    refusal([*command, "--preset", "nhanh"], rf"{UNKNOWN}'nhanh', from --preset\); {ALLOWED}")
    monkeypatch.setenv("LORAFT_PRESET", "chậm")
    refusal(command, rf"{UNKNOWN}'chậm', from LORAFT_PRESET\); {ALLOWED}")
