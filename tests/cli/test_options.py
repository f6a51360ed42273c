"""Short flags and their config keys, and what the shell completes."""

from pathlib import Path

import pytest
from helpers.command_line import Says, finished

from loraft.bundled import bundled_backbones
from loraft.cli.options import SHORT, dotted
from loraft.config.diagnostics import known_keys


def test_short_flags_stand_for_config_keys() -> None:
    assert set(SHORT.values()) <= set(known_keys())
    assert dotted(rank="8", seed="1", data=None) == {"lora.r": "8", "seed": "1", "data.source": None}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("loraft train --quant ", ["none", "nf4"]),
        ("loraft train --preset ", ["quickstart", "tutorial"]),
        ("loraft eval --task ", ["app-reviews", "sentiment", "topic"]),
        ("loraft train --model ", list(bundled_backbones())),
        ("loraft train --set quant.", [f"{key}=" for key in known_keys() if key.startswith("quant.")]),
        ("loraft predict --run ", ["xong"]),
    ],
)
def test_the_shell_completes_values(
    words: str, expected: list[str], here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(here / "runs" / "xong")
    (finished(here / "runs" / "dở") / "metrics.json").unlink()
    for variable, value in (("_LORAFT_COMPLETE", "complete_bash"), ("COMP_WORDS", words), ("COMP_CWORD", "3")):
        monkeypatch.setenv(variable, value)
    assert loraft_says()[1].split() == expected
