"""`loraft audit` on the command line: the table, JSON, a cleaned copy; a finished audit is not trained again."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.data import sentences, write_rows

from loraft.cli.app import main
from loraft.config.resolve import resolve
from loraft.config.yaml_io import dump_config
from loraft.data.dataset import load_data
from loraft.runs.predictions import PredictedRow
from loraft.runs.predictions import write_rows as write_predictions
from loraft.runs.run import Run
from loraft.studies.audit.audit import audit_folder
from loraft.studies.audit.records import AuditResult, SuspectRow

LABELS = ("negative", "neutral", "positive")


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished audit of `câu.csv`, whose fourth row is suspect, as it would lie in `runs`; returns its folder."""
    monkeypatch.chdir(tmp_path)
    rows = [{"sentence": text, "sentiment": LABELS[i % 3], "mã": f"a{i}"} for i, text in enumerate(sentences(30))]
    write_rows(Path("câu.csv"), rows)
    config = resolve(flags={"data.source": "câu.csv"})
    folder, split = audit_folder(config), load_data(config, "train")
    folder.path.mkdir(parents=True)
    folder.config_path.write_text(dump_config(config), encoding="utf-8")
    folder.rows_path.write_text(split.fingerprint, encoding="utf-8")
    probs = [{label: 0.1 if i == 3 else 0.8 if label == LABELS[i % 3] else 0.1 for label in LABELS} for i in range(30)]
    write_predictions(
        Run(folder.path),
        [PredictedRow(i + 1, row["sentence"], row["sentiment"], None, probs[i]) for i, row in enumerate(rows)],
        texts=True,
    )
    one = SuspectRow(4, rows[3]["sentence"], "negative", "positive", 0.1, 0.1, 0.8, {})
    folder.finish(
        AuditResult(
            path=str(folder.path), backbone="loraft-vi-tiny", data="câu.csv", task="sentiment", labels=LABELS,
            split="train", source="câu.csv", rows=30, fingerprint=split.fingerprint, folds=5, seconds=1.0,
            agreement=0.9, suspects=(one,), conflicts=(), duplicates=0,
        )
    )  # fmt: skip
    return folder.path


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["audit", *arguments])
    assert stop.value.code == 0


def test_a_finished_audit_is_shown_and_a_copy_written(finished: Path, capsys: Any) -> None:
    run("câu.csv", "--drop-worst", "1", "--to", "sạch.csv")
    out, err = capsys.readouterr()
    assert "1 of 30 labels are probably wrong (3.3%)" in out
    assert "cleaned copy: sạch.csv (29 rows)" in err
    assert f"next: loraft report {finished}" in err.replace("'", "")
    lines = Path("câu.csv").read_text(encoding="utf-8").splitlines()
    assert Path("sạch.csv").read_text(encoding="utf-8").splitlines() == [*lines[:4], *lines[5:]]
    run("--config", str(finished / "audit.yaml"), "--drop-worst", "2", "--to", "sạch.csv", "--force")
    assert len(Path("sạch.csv").read_text(encoding="utf-8").splitlines()) == 29


def test_json_holds_the_suspects(finished: Path, capsys: Any) -> None:
    run("câu.csv", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "audit"
    assert [one["row"] for one in found["suspects"]] == [4]
    assert found["suspects"][0]["suggestion"] == "positive"
