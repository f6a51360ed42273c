"""`loraft data` on the command line: what is parsed, printed where, and refused."""

import json
from pathlib import Path

from helpers.command_line import Says


def test_data_prints_tables_and_says_where_the_figures_are(tmp_path: Path, loraft_says: Says) -> None:
    code, out, err = loraft_says("data", "--output", str(tmp_path), "--no-near")
    assert code == 0
    assert "topic / sentiment (%)" in out
    assert "tokens, prompt and answer" in out
    assert "sentences with several labels: none" in out.splitlines()
    assert err.startswith("backbone loraft-vi-tiny, data feedback\n")
    assert str(tmp_path / "data-feedback-sentiment") in err
    code, out, _ = loraft_says(
        "data", "--output", str(tmp_path), "--no-near", "--no-tokens", "--json", "--task", "topic"
    )
    assert code == 0
    assert json.loads(out)["by"] == "sentiment"


def test_data_says_what_was_left_out_and_what_is_not_there(tmp_path: Path, loraft_says: Says) -> None:
    (tmp_path / "ý.csv").write_text("sentence,sentiment\nthầy tốt,2\n ,1\n", encoding="utf-8")
    code, out, _ = loraft_says("data", "--data", str(tmp_path / "ý.csv"), "--output", str(tmp_path), "--no-tokens")
    assert code == 0
    assert "train: 1 blank rows skipped" in out.splitlines()
    assert any(line.startswith("no validation and no test split") for line in out.splitlines())
    code, out, _ = loraft_says("report", str(tmp_path / "data-ý.csv-sentiment"), "--markdown")
    assert code == 0
    assert "train: 1 blank rows skipped" in out.splitlines()
