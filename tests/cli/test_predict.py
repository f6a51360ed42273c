"""`loraft predict`: where rows come from, what is printed of each, and what is refused."""

import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
from helpers.command_line import SURE, Double, Says, finished

from loraft.cli.predict import WAIT
from loraft.config.resolve import resolve
from loraft.evaluation.predict import Prediction


def feed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"))


def test_predict_prints_one_label_a_line_and_nothing_else(api: Double, run_dir: Path, loraft_says: Says) -> None:
    code, out, err = loraft_says("predict", "thầy giảng hay", "phòng học nóng")
    assert (code, out) == (0, "positive\npositive\n")
    assert err == f"backbone loraft-vi-tiny, adapter {run_dir}, data 2 sentences\n"
    assert loraft_says("predict", "thầy giảng hay")[2].endswith("data 1 sentence\n")
    assert api.given == {"run": run_dir, "min_confidence": None, "wait": None}
    loraft_says("predict", "--set", "eval.batch_tokens=64", "thầy giảng hay")
    assert api.config == resolve(overrides=["eval.batch_tokens=64"])


def test_predict_leaves_unsure_rows_empty(api: Double, run_dir: Path, loraft_says: Says) -> None:
    _, out, _ = loraft_says("predict", "--min-confidence", "0.8", "phòng học nóng", "thầy giảng hay")
    assert out == "\npositive\n"
    assert loraft_says("predict", "--min-confidence", "1.5", "câu")[0] == 2
    assert loraft_says("predict", "--min-confidence", "nan", "câu")[0] == 2


def test_predict_gives_probabilities_and_the_other_columns_as_json(
    api: Double, run_dir: Path, here: Path, loraft_says: Says
) -> None:
    (here / "câu.csv").write_text("mã,câu\na1,thầy giảng hay\na2,lớp đông\n", encoding="utf-8")
    code, out, _ = loraft_says("predict", "--input", "câu.csv", "--text-column", "ca\u0302u", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert rows[0] == {
        "row": 1, "text": "thầy giảng hay", "label": "positive", "confidence": SURE,
        "probs": {"negative": 1 - SURE, "positive": SURE}, "extra": {"mã": "a1"},
    }  # fmt: skip
    assert [row["row"] for row in rows] == [1, 2]  # the header is no row
    assert api.given["wait"] is None  # a file's groups do not depend on the clock
    assert "thầy giảng hay" in out  # readable, not escaped
    assert "extra" not in json.loads(loraft_says("predict", "--json", "câu")[1])


def test_predict_prints_label_sets_as_data_files_hold_them(
    run_dir: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [
        Prediction(1, "a", ("giảng viên", "tích cực"), {"giảng viên": 0.9, "tích cực": 0.7}),
        Prediction(2, "b", (), {"giảng viên": 0.1, "tích cực": 0.2}),
    ]

    def predict(rows: Iterable[object], **named: object) -> Iterable[Prediction]:
        return (one for _, one in zip(rows, found, strict=True))

    monkeypatch.setattr("loraft.evaluation.predict.predict", predict)
    assert loraft_says("predict", "a", "b")[1] == "giảng viên|tích cực\n\n"
    rows = [json.loads(line) for line in loraft_says("predict", "--json", "a", "b")[1].splitlines()]
    assert rows[1] == {"row": 2, "text": "b", "label": [], "probs": found[1].probs}


def test_the_sentence_is_in_the_column_of_the_training(api: Double, here: Path, loraft_says: Says) -> None:
    finished(here / "runs" / "one", flags={"data.text_column": "ý kiến"})
    (here / "câu.csv").write_text("ý kiến,sentence\nthầy giảng hay,x\n", encoding="utf-8")
    _, out, _ = loraft_says("predict", "--input", "câu.csv", "--json")
    assert json.loads(out)["text"] == "thầy giảng hay"


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_predict_reads_stdin(
    arguments: list[str], api: Double, run_dir: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(monkeypatch, "thầy giảng hay\r\nphòng học nóng\n")
    code, out, err = loraft_says("predict", *arguments)
    assert (code, out) == (0, "positive\npositive\n")
    assert err.endswith("data stdin\n")
    assert api.given["wait"] == WAIT  # seconds: a pipe may stay open


def test_a_bad_row_is_reported_with_its_number_and_the_rest_goes_on(
    api: Double, run_dir: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(monkeypatch, '{"sentence": "thầy giảng hay"}\n{"sentence": 3}\n{"sentence": "lớp đông"}\n')
    code, out, err = loraft_says("predict", "--format", "jsonl", "-")
    assert (code, out) == (1, "positive\n\npositive\n")
    assert "stdin row 2: " in err
    assert err.splitlines()[-1] == "1 row could not be read"
    code, out, err = loraft_says("predict", "--json", "  ", "", "lớp đông")
    assert code == 1
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["label"] for row in rows] == [None, None, "positive"]
    assert rows[0] == {"row": 1, "label": None, "error": "no text"}
    assert "3 sentences row 1: no text" in err
    assert err.splitlines()[-1] == "2 rows could not be read"


def test_a_sentence_is_composed_once(api: Double, run_dir: Path, loraft_says: Says) -> None:
    _, out, _ = loraft_says("predict", "--json", "tha\u0302\u0300y")  # decomposed, as macOS types it
    assert json.loads(out)["text"] == "thầy"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["câu", "--input", "câu.csv"], "--input and sentences"),
        (["câu", "-"], "-: stdin and sentences"),
        (["--input", "câu.csv", "--format", "xml"], "--format"),
        (["--set", "lora.r=3", "câu"], "--set lora.r=3"),
        (["--task", "topic", "--model", "x", "câu"], "--model, --task"),
        (["--run", "one", "--adapter", "x", "câu"], "--run and --adapter"),
        (["câu", "--output-file", "a.csv", "--json"], "--json and --output-file"),
        (["câu", "--output-file", "a.xls"], "--output-file"),
    ],
)
def test_predict_refuses_conflicting_flags(
    arguments: list[str], named: str, api: Double, run_dir: Path, loraft_says: Says
) -> None:
    code, out, err = loraft_says("predict", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {named}")


def test_a_missing_file_is_told_before_a_backbone_is_named(api: Double, run_dir: Path, loraft_says: Says) -> None:
    code, out, err = loraft_says("predict", "--input", "không-có.csv")
    assert (code, out) == (1, "")
    assert err.startswith("error: không-có.csv")
    assert api.given == {}


@pytest.mark.parametrize("stdin", [SimpleNamespace(isatty=lambda: True), None])
def test_predict_without_anything_to_read_explains_itself(
    stdin: object, api: Double, run_dir: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin)
    code, _, err = loraft_says("predict")
    assert code == 2
    assert "nothing to label" in err


def test_a_file_gets_the_inputs_columns_and_stdout_nothing(
    api: Double, run_dir: Path, here: Path, loraft_says: Says
) -> None:
    (here / "câu.tsv").write_text("mã\tsentence\tý\n007\t hay quá \tx\n008\t\ty\n", encoding="utf-8")
    code, out, err = loraft_says("predict", "--input", "câu.tsv", "--output-file", "ra/đây.csv")
    assert (code, out) == (1, "")
    assert err.splitlines()[1:] == [
        "câu.tsv row 2: no text", "2 rows in ra/đây.csv", "1 row could not be read"
    ]  # fmt: skip
    assert (here / "ra" / "đây.csv").read_text(encoding="utf-8").splitlines() == [
        "mã,sentence,ý,label,confidence,prob_negative,prob_neutral,prob_positive",
        f"007, hay quá ,x,positive,{SURE},{1 - SURE},,{SURE}",  # the double knows two labels only
        "008,,y,,,,,",
    ]
    assert loraft_says("predict", "hay", "--output-file", "ra/a.jsonl")[0] == 0
    found = json.loads((here / "ra" / "a.jsonl").read_text(encoding="utf-8"))
    assert (found["sentence"], found["label"]) == ("hay", "positive")


@pytest.mark.parametrize("suffix", [".csv", ".xlsx", ".parquet"])
def test_a_file_without_rows_keeps_its_columns(
    suffix: str, api: Double, run_dir: Path, here: Path, loraft_says: Says
) -> None:
    names = ["mã", "sentence"]
    if suffix == ".csv":
        Path("câu.csv").write_text(",".join(names), encoding="utf-8")
    elif suffix == ".xlsx":
        book = openpyxl.Workbook()
        book.active.append(names)
        book.save("câu.xlsx")
    else:
        pyarrow.parquet.write_table(pyarrow.table(dict.fromkeys(names, pyarrow.array([], "string"))), "câu.parquet")
    assert loraft_says("predict", "--input", f"câu{suffix}", "--output-file", "ra.csv")[0] == 0
    header = "mã,sentence,label,confidence,prob_negative,prob_neutral,prob_positive\n"
    assert (here / "ra.csv").read_text(encoding="utf-8") == header


def test_the_inputs_encoding_is_told_by_set_and_not_taken_from_the_training(
    api: Double, here: Path, loraft_says: Says
) -> None:
    finished(here / "runs" / "one", flags={"data.encoding": "cp1258", "data.delimiter": "#"})
    (here / "a.csv").write_text("mã,sentence\n1,dạy hay\n", encoding="utf-8")
    assert json.loads(loraft_says("predict", "--input", "a.csv", "--json")[1])["text"] == "dạy hay"
    (here / "b.csv").write_bytes("mã#sentence\n1#dạy hay\n".encode("utf-16-le"))
    sets = ("--set", "data.encoding=utf-16-le", "--set", "data.delimiter=#")
    assert json.loads(loraft_says("predict", "--input", "b.csv", "--json", *sets)[1])["text"] == "dạy hay"


def test_each_file_of_a_folder_is_one_text(api: Double, run_dir: Path, here: Path, loraft_says: Says) -> None:
    (here / "câu").mkdir()
    for name in "ba":
        (here / "câu" / f"{name}.txt").write_text("một\nhay\n", encoding="utf-8")
    rows = loraft_says("predict", "--input", "câu", "--format", "text", "--json")[1].splitlines()
    assert [(json.loads(row)["row"], json.loads(row)["extra"]) for row in rows] == [
        (1, {"file": "a.txt"}), (2, {"file": "b.txt"})
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["a.xlsx", "a.docx", "a.html", "a"])
def test_a_file_that_is_not_known_is_refused_and_not_labelled(
    name: str, api: Double, run_dir: Path, here: Path, loraft_says: Says
) -> None:
    (here / name).write_bytes(b"<html>hay</html>\n" if name == "a.html" else b"PK\x03\x04\nhay\n")
    code, out, err = loraft_says("predict", "--input", name)
    assert (code, out, api.given) == (1, "", {})
    assert err.startswith(f"error: {name}: ")


def test_an_output_file_has_row_numbers_in_place_of_sentences(
    api: Double, run_dir: Path, here: Path, loraft_says: Says
) -> None:
    sentences = ["chuyện riêng thứ nhất", "chuyện riêng thứ hai"]
    (here / "vào.csv").write_text(f"mã,sentence\na1,{sentences[0]}\na2,{sentences[1]}\n", encoding="utf-8")
    arguments = ["predict", "--input", "vào.csv", "--set", "output.texts=false", "--output-file"]
    for name in ("ra.csv", "ra.jsonl", "ra.parquet"):
        assert loraft_says(*arguments, name)[0] == 0
        for text in sentences:
            assert text.encode() not in (here / name).read_bytes()
    first = (here / "ra.csv").read_text(encoding="utf-8").splitlines()[:2]
    assert first[0].startswith("row,mã,label,confidence")
    assert first[1].startswith("1,a1,positive,")
