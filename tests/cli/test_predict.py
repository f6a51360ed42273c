"""`loraft predict`: where rows come from, what is printed of each, and what is refused."""

import io
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
from helpers.command_line import SURE, Double, Says, finished

from loraft.cli.predict import WAIT
from loraft.config.resolve import resolve
from loraft.data.records import BadRow, Example
from loraft.errors import DataError, Note
from loraft.evaluation.predict import Prediction
from loraft.evaluation.shift import Progress
from loraft.progress import installed
from loraft.runs.validation_scores import ValidationScores, write


def promises(run_dir: Path) -> None:
    """Gives the run scores of validation rows: those of a confidence below 0.75 are wrong."""
    sure = np.concatenate([np.linspace(0.5, 0.7, 100), np.linspace(0.8, 0.95, 300)])
    log_probs = np.log(np.stack([1 - sure, np.full(400, 1e-9), sure], axis=1))
    scores = ValidationScores(
        ("negative", "neutral", "positive"), tuple(range(400)), (0,) * 100 + (2,) * 300,
        tuple(map(tuple, log_probs.tolist())), (True, False) * 200,
    )  # fmt: skip
    (run_dir / "adapter").mkdir(exist_ok=True)
    write(run_dir / "adapter", scores)


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


def test_max_error_says_before_and_after_how_many_rows_get_a_label(
    api: Double, run_dir: Path, loraft_says: Says
) -> None:
    promises(run_dir)
    with pytest.warns(
        Note, match=r"max_error 0\.05: rows with a confidence of at least 0\.6899 are answered, about 76"
    ):
        code, out, err = loraft_says("predict", "--max-error", "0.05", "phòng học nóng", "thầy giảng hay", "--json")
    assert code == 0
    assert [json.loads(line)["label"] for line in out.splitlines()] == [None, "positive"]
    assert err.splitlines()[-1] == "1 of 2 rows have a label (50.0%), the others are undecided (--max-error)"
    assert api.given["min_confidence"] == pytest.approx(0.6899, abs=1e-4)
    for given, message in (
        (["0.001"], r"error: max_error: is not shown with 95% confidence .*; about 0\.02"),
        (["0"], r"error: max_error: is no number from 1e-06 to 0\.999999 \(got 0\.0\); give"),
        (["0.05", "--min-confidence", "0.8"], "error: max_error and min_confidence: both"),
    ):
        code, out, err = loraft_says("predict", "--max-error", *given, "câu")
        assert (code, out) == (2, "")
        assert re.search(message, err), err
    (run_dir / "adapter" / "validation_scores.json").unlink()
    code, _, err = loraft_says("predict", "--max-error", "0.05", "câu")
    assert (code, "no validation_scores.json, as of cut adapters, merged weights and" in err) == (1, True)


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


def test_predict_prints_sets_beside_labels_and_hands_priors_on(
    api: Double, run_dir: Path, here: Path, loraft_says: Says
) -> None:
    assert loraft_says("predict", "--sets", "0.9", "thầy giảng hay")[1] == "positive\tnegative|positive\n"
    assert (api.given["sets"], api.given["sets_by_label"]) == (0.9, False)
    row = json.loads(loraft_says("predict", "--sets", "0.8", "--sets-by", "label", "--json", "lớp đông")[1])
    assert row["set"] == ["negative", "positive"]
    assert (api.given["sets"], api.given["sets_by_label"]) == (0.8, True)
    loraft_says("predict", "--prior", "negative=0.5, neutral=0.2, positive=0.3", "lớp đông")
    assert api.given["prior"] == {"negative": 0.5, "neutral": 0.2, "positive": 0.3}
    loraft_says("predict", "--prior", "estimate", "lớp đông", "thầy giảng hay")
    assert [one.text for one in api.given["prior"]] == ["lớp đông", "thầy giảng hay"]
    (here / "a.txt").write_text("lớp đông\n\nthầy giảng hay\n", encoding="utf-8")
    code, out, _ = loraft_says("predict", "--prior", "estimate", "--input", "a.txt")
    assert (code, out.count("\n")) == (1, 3)
    assert [one.row for one in api.given["prior"] if isinstance(one, Example)] == [1, 3]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--sets-by", "row", "--sets", "0.9"], r"--sets-by: all or label, of --sets \(got 'row', --sets 0.9\)"),
        (
            ["--sets-by", "label"],
            r"--sets-by: all or label, of --sets \(got 'label', --sets None\); such as --sets 0.9",
        ),
        (["--prior", "negative"], r"prior: a share is a label, = and a number \(got 'negative'\); or give: estimate"),
        (["--prior", "negative=1"], "prior: give each label a share, .*neutral is missing, positive is missing"),
        (["--prior", "estimate", "-"], r"--prior estimate: reads the rows twice \(got stdin or a pipe\); give --input"),
    ],
)
def test_decisions_that_make_no_sense_are_refused_before_anything_loads(
    api: Double, run_dir: Path, loraft_says: Says, flags: list[str], says: str
) -> None:
    code, out, err = loraft_says("predict", *flags, *([] if "-" in flags else ["câu"]))
    assert (code, out) == (2, "")
    assert re.search(says, err), err


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


@pytest.mark.parametrize(
    ("format", "told"), [("lines", "one sentence a line, Ctrl-D ends"), ("text", "Ctrl-D ends the text")]
)
def test_who_types_has_the_terminal_alone_and_is_told_how_to_end(
    format: str, told: str, api: Double, run_dir: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Typed(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

        def readline(self, *given: Any) -> str:
            shown.append(installed.get())
            return super().readline(*given)

        def read(self, *given: Any) -> str:
            shown.append(installed.get())
            return super().read(*given)

    shown: list[object] = []
    monkeypatch.setattr(sys, "stdin", Typed(io.BytesIO("thầy giảng hay".encode()), encoding="utf-8"))
    code, out, err = loraft_says("predict", "--format", format, "-")
    assert (code, out) == (0, "positive\n")
    assert err.splitlines()[-1] == told
    assert set(shown) == {None}


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


# --- a file that is interrupted and goes on ---------------------------------------------------------------------------

SENTENCES = [f"câu {row}{' hay' * (row % 3)}" for row in range(20)]


class Grouped:
    """Predicts like `loraft.predict`, in groups: a row's probability depends on its group and on the groups before it.

    Raises `error` instead of yielding row `last`.
    """

    def __init__(self, last: int | None = None, error: BaseException | None = None) -> None:
        self.last, self.error, self.scored = last, error, 0

    def __call__(
        self, inputs: Iterable[Example | BadRow], *, progress: Progress, **named: object
    ) -> Iterator[Prediction]:
        rows, size = iter(inputs), 3 if progress.rows == 0 else 4
        progress.predicted = Counter(progress.predicted)  # as the real one does
        while group := list(islice(rows, size)):
            if not progress.prefix:
                progress.prefix = [len(item.text) for item in group if isinstance(item, Example)]
            progress.rows, size = progress.rows + len(group), 4
            share = (sum(item.row for item in group) / 300 + sum(progress.prefix) / 1000) / 3
            for item in group:
                if item.row == self.last:
                    assert self.error is not None
                    raise self.error
                self.scored += 1
                if isinstance(item, BadRow):
                    yield Prediction(item.row, "", None, error=item.reason)
                    continue
                progress.predicted["positive"] += 1
                yield Prediction(item.row, item.text, "positive", {"negative": share, "positive": 1 - share})


@pytest.fixture
def table(run_dir: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """20 rows in a Parquet file, the seventh without text; the run has an adapter."""
    (run_dir / "adapter").mkdir()
    (run_dir / "adapter" / "weights").write_text("a")
    columns = {
        "sentence": [text if row != 6 else None for row, text in enumerate(SENTENCES)],
        "lúc": pyarrow.array(range(20), pyarrow.timestamp("us")),
        "cặp": pyarrow.array([[("a", 1)]] * 20, pyarrow.map_(pyarrow.string(), pyarrow.int8())),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), "vào.parquet")
    return here / "vào.parquet"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_resumed_file_is_byte_for_byte_that_of_an_uninterrupted_prediction(
    suffix: str, table: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    def says(double: Grouped, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("loraft.evaluation.predict.predict", double)
        return loraft_says("predict", "--input", table.name, "--output-file", f"ra{suffix}", *arguments)

    output, partial = Path(f"ra{suffix}"), Path(f"ra{suffix}.partial")
    assert says(Grouped())[0] == 1  # a row without text
    whole = output.read_bytes()
    output.unlink()
    for row in (3, 4, 12, 20):
        kept = max(0, (row - 4) // 4 * 4 + 3) if row > 3 else 0  # rows of whole groups before it: 3, 7, 11, ...
        code, out, err = says(Grouped(row, DataError("a: broken")))
        assert (code, out, output.exists(), partial.exists()) == (1, "", False, kept > 0)
        note = f"{kept} rows are kept in {partial}; the same command with --resume goes on"
        assert (err.splitlines()[-1] == note) == (kept > 0)
        if kept:
            with partial.open("ab") as file:  # what a kill in the middle of a row leaves
                file.write(b'["posi')
        again = Grouped()
        assert says(again, "--resume")[0] == 1
        assert (output.read_bytes(), partial.exists(), again.scored) == (whole, False, 20 - kept)
        output.unlink()


def test_an_interrupted_prediction_lies_where_a_symlink_leads_to(
    table: Path, here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("đích").mkdir()
    Path("ra.csv").symlink_to(here / "đích" / "kết quả.csv")
    for double, more in ((Grouped(9, KeyboardInterrupt()), ()), (again := Grouped(), ("--resume",))):
        monkeypatch.setattr("loraft.evaluation.predict.predict", double)
        loraft_says("predict", "--input", table.name, "--output-file", "ra.csv", *more)
        there = sorted(path.name for path in Path("đích").iterdir())
        assert there == (["kết quả.csv"] if more else ["kết quả.csv.partial"])
    assert again.scored == 20 - 7
    assert Path("ra.csv").is_symlink()


def test_a_promise_goes_on_with_its_own_threshold_only_and_counts_all_rows(
    table: Path, run_dir: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    promises(run_dir)

    def says(double: Grouped, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("loraft.evaluation.predict.predict", double)
        return loraft_says("predict", "--input", table.name, "--output-file", "ra.csv", *arguments)

    says(Grouped(9, KeyboardInterrupt()), "--max-error", "0.05")
    _, _, err = says(Grouped(), "--resume", "--max-error", "0.4")
    assert re.search(
        r"ra\.csv\.partial: was begun with something else:\n +min_confidence: 0\.6.* then, 0\.\d+ now", err
    )
    again = Grouped()
    _, _, err = says(again, "--resume", "--max-error", "0.05")
    assert again.scored == 20 - 7
    assert "19 of 19 rows have a label (100.0%)" in err  # one row has no text


def test_an_interrupted_file_is_neither_overwritten_nor_continued_with_something_else(
    table: Path, here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    def says(*arguments: str, double: Grouped | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr("loraft.evaluation.predict.predict", double or Grouped())
        return loraft_says("predict", "--input", table.name, "--output-file", "ra.csv", *arguments)

    assert says(double=Grouped(9, KeyboardInterrupt()))[2].splitlines()[-1] == (
        "interrupted; 7 rows are kept in ra.csv.partial; the same command with --resume goes on"
    )
    before = Path("ra.csv.partial").read_bytes()
    assert re.search("error: ra.csv.partial: an interrupted prediction left 7 rows .*--resume", says()[2])
    for changed, what in (
        (["--min-confidence", "0.5"], "min_confidence: None then, 0.5 now"),
        (["--sets", "0.9"], "--sets: None then, 0.9 now"),
        (["--prior", "negative=0.5,neutral=0.2,positive=0.3"], "--prior: None then, {'negative': 0.5, 'neutral'"),
        (["--prior", "estimate"], "--prior: None then, estimate now"),
        (["--set", "eval.batch_tokens=64"], "eval.batch_tokens: None then, 64 now"),
        (["--set", "data.encoding=cp1258"], "encoding: None then, cp1258 now"),
    ):
        code, _, err = says("--resume", *changed)
        assert (code, what in err) == (1, True), err
    (here / "runs" / "one" / "adapter" / "weights").write_text("b")
    assert "adapter's SHA-256: " in says("--resume")[2]
    (here / "runs" / "one" / "adapter" / "weights").write_text("a")
    pyarrow.parquet.write_table(pyarrow.table({"sentence": ["khác"]}), table)
    assert "input's SHA-256: " in says("--resume")[2]
    assert Path("ra.csv.partial").read_bytes() == before
    Path("ra.csv.partial").write_bytes(before + b'{"rows"\n')
    assert "ra.csv.partial: a damaged interrupted prediction (" in says("--resume")[2]
    for foreign in ('["thầy"]', '{"thầy": 1}\n', "câu,nhãn\n"):
        Path("ra.csv.partial").write_text(foreign, encoding="utf-8")
        for resume in ((), ("--resume",)):
            assert "ra.csv.partial: is no interrupted prediction; move it away, or name" in says(*resume)[2]
        assert Path("ra.csv.partial").read_text(encoding="utf-8") == foreign
    Path("ra.csv.partial").unlink()
    assert says("--resume")[0] == 0  # nothing to go on with: from the beginning
    assert says("--resume") == (
        0,
        "",
        "ra.csv is finished already (not compared with the input); delete it to predict again\n",
    )


def test_a_pipe_cannot_be_continued_and_leaves_nothing(
    run_dir: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(f'{{"sentence": "{one}", "số": {row}, "x": "\\ud800"}}\n' for row, one in enumerate(SENTENCES))
    for error in (KeyboardInterrupt(), None):
        feed(monkeypatch, text)
        monkeypatch.setattr("loraft.evaluation.predict.predict", Grouped(9 if error else None, error))
        code = loraft_says("predict", "-", "--output-file", "ra.csv")[0]
        assert [path.name for path in Path().glob("ra*")] == ([] if error else ["ra.csv"])
    lines = Path("ra.csv").read_text(encoding="utf-8").splitlines()
    assert (code, lines[2].split(",")[:3], len(lines)) == (1, ["câu 1 hay", "1", "?"], 21)
    assert loraft_says("predict", "-", "--output-file", "ra.csv", "--resume")[0] == 2
    assert loraft_says("predict", "--input", "a.csv", "--resume")[0] == 2


CHILD = """
import sys, time, types
from dataclasses import dataclass, field

@dataclass
class Prediction:
    row: int
    text: str
    label: str
    probs: dict
    error: str = None
    set: tuple = None

@dataclass
class Progress:
    rows: int = 0
    prefix: list = field(default_factory=list)
    predicted: dict = field(default_factory=dict)
    confidences: list = field(default_factory=list)

def predict(inputs, progress, **named):
    for item in inputs:
        progress.rows += 1
        yield Prediction(item.row, item.text, "positive", {"positive": 1 / item.row})
        if item.row == int(sys.argv[1]):
            time.sleep(60)

double = types.ModuleType("loraft.evaluation.predict")  # the real one imports torch
double.Prediction, double.Progress, double.predict = Prediction, Progress, predict
sys.modules["loraft.evaluation.predict"] = double
import loraft.evaluation
loraft.evaluation.predict = double
from loraft.cli.app import main
main(["predict", "--input", "a.txt", "--output-file", "ra.csv", *sys.argv[2:]])
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_prediction_leaves_whole_rows_and_goes_on(run_dir: Path) -> None:
    Path("a.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    command = [sys.executable, "-c", CHILD]
    with subprocess.Popen([*command, "7"], stderr=subprocess.PIPE) as child:
        deadline = time.monotonic() + 60
        partial = Path("ra.csv.partial")
        while not (partial.exists() and partial.read_bytes().count(b'["positive"') == 7):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child.kill()
    assert not Path("ra.csv").exists()
    done = subprocess.run([*command, "0", "--resume"], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "20 rows in ra.csv"
    lines = Path("ra.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[-1] for line in lines[1:]] == [str(1 / row) for row in range(1, 21)]


def test_make_demo_labels_three_sentences_where_nothing_was_trained(here: Path, loraft_says: Says) -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    ((words, sentences),) = re.findall(r"\$\(BIN\)/loraft (predict --run demo) (.*)", makefile)
    code, out, _ = loraft_says(*words.split(), *re.findall('"(.*?)"', sentences))
    assert (code, out) == (0, "positive\nnegative\nneutral\n")
    assert list(here.iterdir()) == []
