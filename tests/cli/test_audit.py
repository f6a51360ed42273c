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
from loraft.studies.audit.audit import audit_folder, fingerprint
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
    folder.rows_path.write_text(f"{fingerprint(split)}  train\n", encoding="utf-8")
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
            split="train", source="câu.csv", rows=30, fingerprint=fingerprint(split), folds=5, seconds=1.0,
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
    assert "cleaned copy: sạch.csv (29 rows)\nleft out: 1 rows, 0 of them not suspect; other copies: 0\n" in err
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


def refused(says: str, *arguments: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["audit", *arguments])
    assert stop.value.code in (1, 2)
    assert says in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*blank rows")
def test_rows_that_moved_are_no_longer_those_of_the_audit(finished: Path, capsys: Any) -> None:
    """A blank row is skipped: texts and labels stay the same, the numbers of the rows behind it do not."""
    lines = Path("câu.csv").read_text(encoding="utf-8").splitlines()
    Path("câu.csv").write_text("\n".join([*lines[:2], ",,", *lines[2:]]) + "\n", encoding="utf-8")
    refused("changed since this audit was begun", "câu.csv", "--drop-worst", "1", capsys=capsys)


def test_a_copy_says_how_many_rows_were_not_suspect(finished: Path, capsys: Any) -> None:
    run("câu.csv", "--drop-worst", "3", "--to", "sạch.csv")
    assert "left out: 3 rows, 2 of them not suspect" in capsys.readouterr().err


def test_more_rows_than_there_are_are_refused_before_a_training(finished: Path, capsys: Any) -> None:
    refused("--drop-worst: would leave no row (got 30 of 30 rows)", "câu.csv", "--drop-worst", "30", "--force",
            capsys=capsys)  # fmt: skip
    assert (finished / "audit.json").exists()


def test_sentences_of_an_earlier_audit_are_not_shown_as_a_private_one(finished: Path, capsys: Any) -> None:
    refused("holds sentences, which this audit shall not (got output.texts=false); loraft runs remove", "câu.csv",
            "--set", "output.texts=false", capsys=capsys)  # fmt: skip


def test_an_audit_with_its_copy_is_removed_whole_and_by_nobody_else(finished: Path, capsys: Any) -> None:
    run("câu.csv", "--drop-worst", "1")
    assert (finished / "câu.cleaned.csv").exists()
    (finished / "ghi chú.md").touch()
    for remove in (1, 0):
        with pytest.raises(SystemExit) as stop:
            main(["runs", "remove", str(finished), "--yes"])
        assert stop.value.code == remove
        if remove:
            assert "holds what is not of an audit (got ghi chú.md)" in capsys.readouterr().err
            (finished / "ghi chú.md").unlink()
    assert not finished.exists()


def test_no_run_is_taken_for_an_audit(finished: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["predict", "thầy tốt", "--run", finished.name])
    assert stop.value.code == 1
    assert "is an audit, not a run; loraft report " in capsys.readouterr().err
