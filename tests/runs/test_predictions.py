"""`predictions.jsonl`: what is written is read again, and rows of two runs are compared."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loraft.errors import RunError
from loraft.runs.predictions import (
    PredictedRow,
    RunPredictions,
    command_with_a_row,
    difference_of_rows,
    read_predictions,
    read_rows,
    write_rows,
)
from loraft.runs.run import Run

LABELS = ("xấu", "vừa", "tốt")
ROWS = [
    PredictedRow(7, "hay\u2028quá\u0085", "tốt", "tốt", probs={"xấu": 0.1 + 0.2, "vừa": 0.1, "tốt": 0.6}),
    PredictedRow(9, "nóng", "xấu", None, answer="Nhãn: không"),
    PredictedRow(12, "ổn", "vừa", "xấu"),
]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A finished run with these predictions."""
    made = Run.create(tmp_path, "r16")
    write_rows(made, ROWS)
    made.finish({"labels": LABELS})
    return made


def test_what_is_written_is_read_again(run: Run) -> None:
    assert read_rows(run) == ROWS


def test_a_row_is_one_line_of_json_without_what_its_decoding_does_not_have(run: Run) -> None:
    lines = run.predictions_path.read_text(encoding="utf-8").split("\n")
    assert lines[1] == '{"row": 9, "text": "nóng", "label": "xấu", "predicted": null, "answer": "Nhãn: không"}'
    assert list(json.loads(lines[0])) == ["row", "text", "label", "predicted", "probs"]
    assert list(json.loads(lines[2])) == ["row", "text", "label", "predicted"]
    assert lines[3:] == [""]


def test_predictions_are_label_ids_in_the_order_of_the_rows(run: Run) -> None:
    found = read_predictions(run)
    assert (found.run, found.labels, found.rows) == (run.path, LABELS, (7, 9, 12))
    assert found.texts == ("hay\u2028quá\u0085", "nóng", "ổn")
    assert found.references_N.tolist() == [2, 0, 1]
    assert found.predictions_N.tolist() == [2, -1, 0]
    assert found.correct.tolist() == [True, False, False]


def test_a_prediction_that_is_no_label_of_the_run_is_none(run: Run) -> None:
    write_rows(run, [replace(ROWS[0], predicted="khác")])
    assert read_predictions(run).predictions_N.tolist() == [-1]


def test_a_reference_that_is_no_label_of_the_run_is_an_error(run: Run) -> None:
    write_rows(run, [*ROWS, replace(ROWS[0], row=20, label="khác")])
    with pytest.raises(RunError, match=r"row 20 has a label that is not the run's \(got 'khác', .* xấu, vừa, tốt\)"):
        read_predictions(run)


@pytest.mark.parametrize(
    "content",
    [
        '{"row": 1',
        "[1]",
        "5",
        '{"row": 1, "text": "a", "label": "xấu"}',
        '{"row": 1, "text": "a", "label": 3, "predicted": null}',
        '{"row": 1, "text": "a", "label": "xấu", "predicted": null, "probs": [0.5]}',
        "\udcff",
    ],
)
def test_damaged_predictions_are_one_clear_error(run: Run, content: str) -> None:
    run.predictions_path.write_bytes(content.encode("utf-8", "surrogateescape") + b"\n")
    with pytest.raises(RunError, match=r"predictions\.jsonl: .*; train the run again with --force"):
        read_predictions(run)


def test_missing_predictions_and_unfinished_runs_are_errors(run: Run) -> None:
    run.predictions_path.unlink()
    with pytest.raises(RunError, match=r"predictions\.jsonl: cannot be read \(No such file or directory\)"):
        read_predictions(run)
    run.results_path.unlink()
    with pytest.raises(RunError, match="not finished"):
        read_predictions(run)


def predictions(*, labels: tuple[str, ...] = LABELS, texts: tuple[str, ...] = ("a", "b"), gold: tuple[int, ...] = (0, 1)
                ) -> RunPredictions:  # fmt: skip
    return RunPredictions(Path("x"), labels, (3, 5), texts, np.array(gold), np.array([0, 0]))


def test_the_first_difference_of_the_rows_is_told() -> None:
    own = predictions()
    assert difference_of_rows(own, replace(predictions(), predictions_N=np.array([1, 1]), run=Path("y"))) is None
    assert difference_of_rows(own, predictions(labels=("a", "b"))) == "labels xấu, vừa, tốt and a, b"
    assert difference_of_rows(own, predictions(texts=("a", "b", "c"))) == "2 and 3 test rows"
    assert difference_of_rows(own, predictions(texts=("a", "c"))) == "row 5: 'b' and 'c'"
    assert difference_of_rows(own, predictions(gold=(0, 2))) == "row 5 is vừa in one and tốt in the other"


def test_long_texts_are_shown_by_their_beginning() -> None:
    found = difference_of_rows(predictions(texts=("a" * 41, "b")), predictions(texts=("a" * 40, "b")))
    assert found == f"row 3: '{'a' * 37}...' and '{'a' * 40}'"


def test_label_sets_are_kept_as_lists_and_are_not_compared(run: Run) -> None:
    rows = [replace(ROWS[0], label=("xấu", "tốt"), predicted=())]
    write_rows(run, rows)
    assert '"label": ["xấu", "tốt"], "predicted": []' in run.predictions_path.read_text(encoding="utf-8")
    assert read_rows(run) == rows
    with pytest.raises(RunError, match=r"loraft compare counts one label a row .*prompt\.kind=multilabel"):
        read_predictions(run)


@pytest.mark.parametrize(("line", "got"), [("[]", "list"), ("null", "NoneType"), ('"tốt"', "str")])
def test_a_line_that_is_no_object_is_named(run: Run, line: str, got: str) -> None:
    with run.predictions_path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(RunError, match=rf"predictions\.jsonl: line 4 does not hold a JSON object \(got {got}\); train"):
        read_rows(run)


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        (["lớp ồn quá", "thầy giảng hay"], "'thầy giảng hay'"),  # the first one is predicted wrong
        (["lớp ồn quá", "-1 sao", "hai\ndòng", "x" * 61], "'lớp ồn quá'"),
        (["it's hay"] * 2, "'it'\"'\"'s hay'"),
        (["dài " * 20, "dài " * 21], "'" + "dài " * 20 + "'"),
        (["", ""], "--input FILE"),  # output.texts=false
        (["\x1b[31m"] * 2, "--input FILE"),
    ],
)
def test_the_next_command_has_one_of_the_runs_own_rows(texts: list[str], shown: str, tmp_path: Path) -> None:
    run = Run(tmp_path / "của em")
    rows = [PredictedRow(n, text, "tốt", "xấu" if n == 1 else "tốt") for n, text in enumerate(texts, start=1)]
    write_rows(run, rows)
    assert command_with_a_row(run) == f"loraft predict --run '{run.path}' {shown}"
    run.predictions_path.write_text("{", encoding="utf-8")
    assert command_with_a_row(run) == f"loraft predict --run '{run.path}' --input FILE"
