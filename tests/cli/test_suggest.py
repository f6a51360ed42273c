"""`loraft suggest`: what it prints and writes, which rows it leaves out, and what it refuses."""

import json
from pathlib import Path

import pytest
from helpers.bad_input import refusal
from helpers.command_line import SURE, UNSURE, Double, Says, finished

from loraft.config.resolve import resolve
from loraft.data.dataset import load_data
from loraft.runs.atomic_files import to_json, write_text


@pytest.fixture
def rows(here: Path) -> Path:
    """A finished run, and a file of five rows: two the model is unsure of, one it is sure of, two that are answered."""
    finished(here / "runs" / "one", overrides=["data.source=./data"])
    (here / "data").mkdir()
    for name in ("train", "validation", "test"):
        (here / "data" / f"{name}.csv").write_text(f"sentence,sentiment\ncâu {name},positive\n", encoding="utf-8")
    lines = ["mã,sentence,sentiment", "a1,phòng học nóng,", "a2,thầy giảng hay,", "a3,câu train,"]
    lines += ["a4,đã có nhãn,neutral", 'a5,"lớp đông, ồn",']
    (here / "câu.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return here / "câu.csv"


def test_the_rows_come_as_a_table_to_fill_in(api: Double, rows: Path, loraft_says: Says) -> None:
    code, out, err = loraft_says("suggest", "câu.csv", "--n", "2")
    assert (code, out) == (0, 'sentence,sentiment,mã\nphòng học nóng,,a1\n"lớp đông, ồn",,a5\n')
    assert "2 of 4 rows without label; 1 known or repeated left out\n" in err
    assert err.endswith("next: fill in 'sentiment', then loraft train --from runs/one --add FILE\n")
    code, out, err = loraft_says("suggest", "câu.csv", "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert (code, [one["row"] for one in found]) == (0, [1, 5, 2])
    assert found[0] == {
        "row": 1, "text": "phòng học nóng", "label": "positive", "margin": 0.0,
        "probs": {"negative": 1 - UNSURE, "positive": UNSURE}, "extra": {"mã": "a1", "sentiment": ""},
    }  # fmt: skip
    assert found[2]["margin"] == pytest.approx(2 * SURE - 1)
    assert err.endswith("next: the same command without --json, whose rows are as training reads them\n")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_the_file_closes_the_loop_and_is_never_overwritten(
    suffix: str, api: Double, rows: Path, here: Path, loraft_says: Says
) -> None:
    command = ("suggest", "câu.csv", "--n", "2", "--output-file", f"gán nhãn{suffix}")
    code, out, err = loraft_says(*command)
    assert (code, out) == (0, "")
    assert err.endswith(f"loraft train --from runs/one --add 'gán nhãn{suffix}'\n")
    path = here / f"gán nhãn{suffix}"
    path.write_text(
        path.read_text(encoding="utf-8").replace("null", '"positive"').replace(",,", ",positive,"), encoding="utf-8"
    )
    filled = path.read_bytes()
    assert filled.startswith(b"\xef\xbb\xbf") == (suffix == ".csv")  # by which Excel knows UTF-8
    code, _, err = loraft_says(*command)  # a person's work
    assert (code, path.read_bytes()) == (2, filled)
    assert f"--output-file: exists (got gán nhãn{suffix}); --force replaces it" in err
    loraft_says("train", "--from", "one", "--add", path.name)
    assert api.config is not None
    assert [*load_data(api.config, "train").texts] == ["câu train", "phòng học nóng", "lớp đông, ồn"]
    assert loraft_says(*command, "--force")[0] == 0


def test_the_sentence_gets_the_column_of_the_training(api: Double, rows: Path, here: Path, loraft_says: Says) -> None:
    (here / "câu.csv").write_text("nội dung,sentence\nphòng học nóng,x\n", encoding="utf-8")
    assert loraft_says("suggest", "câu.csv", "--text-column", "nội dung")[1] == "sentence,sentiment\nphòng học nóng,\n"


def test_rows_that_cannot_be_read_are_told_and_the_rest_is_suggested(
    api: Double, rows: Path, here: Path, loraft_says: Says
) -> None:
    (here / "câu.jsonl").write_text('{"sentence": 3}\n{"sentence": "lớp đông"}\n', encoding="utf-8")
    code, out, err = loraft_says("suggest", "câu.jsonl")
    assert (code, out) == (1, "sentence,sentiment\nlớp đông,\n")
    assert "câu.jsonl row 1: 'sentence' is not text" in err
    assert err.endswith("1 row could not be read\n")


def test_where_the_runs_rows_are_gone_suggestions_may_repeat_them(
    api: Double, rows: Path, here: Path, loraft_says: Says
) -> None:
    (here / "data").rename(here / "nơi khác")
    code, out, err = loraft_says("suggest", "câu.csv")
    assert (code, "câu train" in out) == (0, True)
    assert "note: the run's own rows cannot be read, so that suggestions may repeat them (data: no such folder" in err


def test_no_sentence_is_written_where_the_run_says_so(api: Double, rows: Path, here: Path, loraft_says: Says) -> None:
    code, _, err = loraft_says("suggest", "câu.csv", "--output-file", "a.csv", "--set", "output.texts=false")
    assert code == 0
    assert (here / "a.csv").read_text(encoding="utf-8-sig").startswith("sentiment,row\n,1\n")
    assert "note: output.texts=false leaves the sentences out" in err
    assert "next: fill in 'sentiment', put the sentences into 'sentence', then loraft train --from runs/one" in err


def test_with_several_labels_a_row_that_waits_is_null(
    api: Double, here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(here / "runs" / "one", overrides=["prompt.kind=multilabel"])
    (here / "câu.txt").write_text("lớp đông\n", encoding="utf-8")
    monkeypatch.setattr("loraft.models.manifest.thresholds", lambda *given: (0.5, 0.5))
    line = '{"sentence": "lớp đông", "sentiment": null}\n'
    assert loraft_says("suggest", "câu.txt")[1] == line
    with (here / "ra").open("wb") as stream:  # as /dev/stdout, which has no suffix
        loraft_says("suggest", "câu.txt", "--output-file", f"/dev/fd/{stream.fileno()}")
    assert (here / "ra").read_text(encoding="utf-8") == line
    message = refusal(["suggest", "câu.txt", "--output-file", "a.csv"], r"name a \.jsonl file")
    assert "prompt.kind=multilabel" in message


def test_where_no_row_needs_a_label_nothing_is_written(api: Double, rows: Path, here: Path, loraft_says: Says) -> None:
    (here / "câu.csv").write_text("sentence,sentiment\ncâu train,\ncâu test,\nhay,neutral\n", encoding="utf-8")
    code, out, err = loraft_says("suggest", "câu.csv", "--output-file", "a.csv")
    assert (code, out, (here / "a.csv").exists()) == (0, "", False)
    assert err.endswith("0 of 2 rows without label; 2 known or repeated left out\n")


def test_how_the_input_is_read_does_not_change_how_the_runs_rows_are(
    api: Double, rows: Path, here: Path, loraft_says: Says
) -> None:
    (here / "data" / "train.csv").write_text("sentence,sentiment\ncâu train,positive\n", encoding="utf-8")
    (here / "câu.csv").write_text("sentence;mã\ncâu train;1\nphòng học nóng;2\n", encoding="utf-8")
    code, out, err = loraft_says("suggest", "câu.csv", "--set", "data.delimiter=';'")
    assert (code, out) == (0, "sentence,sentiment,mã\nphòng học nóng,,2\n")
    assert "cannot be read" not in err


def test_no_data_that_a_bundle_names_is_opened(
    api: Double, rows: Path, here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {"config": resolve(overrides=["data.source=an/stranger"]).model_dump(mode="json")}
    (here / "của ai").mkdir()
    write_text(here / "của ai" / "loraft.json", to_json({"schema_version": 1, **content}))
    monkeypatch.setattr("loraft.models.manifest.calibration", lambda *given: None)
    monkeypatch.setattr("loraft.data.dataset.load_data", lambda *given: pytest.fail("data was opened"))
    code, out, err = loraft_says("suggest", "câu.csv", "--run", "của ai")
    assert (code, "câu train" in out) == (0, True)
    assert "suggestions may repeat them (của ai: the data that a bundle names is not opened)" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["không-có.csv"], r"không-có\.csv: no such file"),
        (["câu.csv", "--n", "0"], "--n"),
        (["câu.csv", "--text-column", "x"], r"câu\.csv: no column 'x'"),
        (["câu.csv", "--output-file", "a.parquet"], r"unknown format \(got \.parquet\); allowed are \.csv \.jsonl"),
        (["câu.csv", "--output-file", "câu.csv"], "is the input, too"),
        (["câu.csv", "--output-file", "a.csv", "--json"], "two forms of the result"),
        (["câu.csv", "--output-file", "runs/one/metrics.json"], "unknown format"),
        (["câu.csv", "--run", "hai"], "no such run"),
        (["câu.csv", "--set", "lora.r=3"], r"--set lora\.r=3: fixed by the run"),
    ],
)
def test_bad_inputs_are_refused(arguments: list[str], says: str, api: Double, rows: Path) -> None:
    refusal(["suggest", *arguments], says)
