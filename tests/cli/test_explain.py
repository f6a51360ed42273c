"""`loraft explain`: what is printed of each sentence, in which width and colour, and what is refused."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.command_line import Says, finished
from rich.cells import cell_len

from loraft.config.resolve import resolve
from loraft.data.records import Example
from loraft.errors import DataError
from loraft.evaluation import classifier
from loraft.evaluation.explanation import Explanation, explanation, parts

EFFECTS = {"hay": 2.0, "không": -1.5}


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Instead of a run a double is loaded, in which "hay" speaks for each label; keeps how it was called."""
    kept: dict[str, object] = {}

    def explain(row: Example, label: str | None = None) -> list[Explanation]:
        if row.text == "dài":
            raise DataError(f"row {row.row}: too long to explain")  # as `explanation.variants` does
        kept["label"] = label
        left = [2.5 - EFFECTS.get(row.text[start:end], 0.0) for start, end in parts(row.text)]
        return [explanation(row, label or "positive", 0.924, [2.5, *left], () if row.text == "lạ" else ("positive",))]

    def load(run: Path, *, config: object) -> SimpleNamespace:
        kept.update(run=run, config=config)
        return SimpleNamespace(explain=explain)

    monkeypatch.setattr(classifier, "load", load)
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return kept


def test_words_and_effects_stand_under_each_other(run_dir: Path, loraft_says: Says, asked: dict[str, object]) -> None:
    code, out, err = loraft_says("explain", "lớp không hay", "hay", "--set", "eval.batch_tokens=64")
    assert code == 0
    assert out == "positive 0.924\nlớp   không  hay\n0.00  -1.50  +2.00\n\npositive 0.924\nhay\n+2.00\n"
    assert err.splitlines()[0] == f"backbone loraft-vi-tiny, adapter {run_dir}, data 2 sentences"
    assert "log-odds" in err.splitlines()[1]
    assert asked == {"run": run_dir, "config": resolve(overrides=["eval.batch_tokens=64"]), "label": None}


@pytest.mark.parametrize("width", [60, 80])
def test_lines_are_no_wider_than_the_terminal(
    width: int, run_dir: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    if width != 80:  # which is taken where there is no terminal
        monkeypatch.setenv("COLUMNS", str(width))
    out = loraft_says("explain", "thầy giảng bài rất dễ hiểu , lớp học không hay " * 4)[1]
    widest = max(map(cell_len, out.splitlines()))
    assert width - 8 < widest <= width


def test_colour_repeats_what_the_signs_say(run_dir: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = loraft_says("explain", "lớp không hay")[1]
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    coloured = loraft_says("explain", "lớp không hay")[1]
    assert "\x1b[1;32m+2.00\x1b[0m" in coloured
    assert "\x1b[1;31m-1.50\x1b[0m" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    bare = loraft_says("explain", "lớp không hay")[1]
    assert "32m" not in bare
    assert bare.replace("\x1b[1m", "").replace("\x1b[0m", "") == plain


def test_json_has_a_line_a_label_with_each_words_place(run_dir: Path, loraft_says: Says) -> None:
    code, out, err = loraft_says("explain", "--json", "--label", "negative", "không hay", " ", "hay")
    assert code == 1
    first, second, third = map(json.loads, out.splitlines())
    assert first == {
        "row": 1, "text": "không hay", "label": "negative", "probability": 0.924, "log_odds": 2.5,
        "words": [
            {"text": "không", "start": 0, "end": 5, "effect": -1.5},
            {"text": "hay", "start": 6, "end": 9, "effect": 2.0},
        ],
        "predicted": ["positive"],
    }  # fmt: skip
    assert second == {"row": 2, "label": None, "error": "no text"}
    assert (third["row"], third["label"]) == (3, "negative")
    assert "không" in out  # readable, not escaped
    assert err.splitlines()[1:] == ["3 sentences row 2: no text", "1 row could not be read"]


def test_rows_come_from_a_file_or_stdin_as_in_predict(
    run_dir: Path, here: Path, loraft_says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "câu.csv").write_text("mã,câu\na1,không hay\na2,dài\na3,hay\n", encoding="utf-8")
    code, out, err = loraft_says("explain", "--json", "--input", "câu.csv", "--text-column", "câu")
    assert code == 1
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["label"] for line in lines] == ["positive", None, "positive"]
    assert lines[1]["error"] == "too long to explain"
    assert "câu.csv row 2: too long to explain" in err.splitlines()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("hay\nlớp\n".encode()), encoding="utf-8"))
    assert loraft_says("explain")[1].count("positive 0.924") == 2


def test_escapes_in_a_sentence_do_not_reach_the_terminal(run_dir: Path, loraft_says: Says) -> None:
    out = loraft_says("explain", "hay\x1b[31m \u202edở [bold]x[/bold]")[1]
    assert "hay\\x1b[31m" in out
    assert "\\u202edở" in out
    assert "[bold]x[/bold]" in out
    assert "\x1b" not in out


def test_a_label_that_is_not_predicted_is_told_from_one_that_is(run_dir: Path, loraft_says: Says) -> None:
    heads = [
        loraft_says("explain", text, *options)[1].splitlines()[0]
        for text in ("hay", "lạ")
        for options in ((), ("--label", "Negative"))  # in any case, as in data
    ]
    assert heads == [
        "positive 0.924",
        "negative 0.924; predicted: positive",
        "no label is predicted; the likeliest: positive 0.924",
        "no label is predicted; negative 0.924",
    ]


def test_a_label_is_composed_and_must_be_one_of_the_runs(
    here: Path, loraft_says: Says, asked: dict[str, object]
) -> None:
    finished(
        here / "runs" / "one",
        overrides=["prompt.labels=[tiêu cực, tích cực]", "prompt.label_words=[negative, positive]"],
    )
    assert loraft_says("explain", "hay", "--label", "ti\u0301ch cư\u0323c")[0] == 0
    assert asked["label"] == "tích cực"
    code, out, err = loraft_says("explain", "hay", "--label", "tốt\x1b")
    assert (code, out) == (2, "")
    assert err == "error: --label: none of the run's (got 'tốt\\x1b'); allowed: tiêu cực, tích cực, or ids 0 to 1\n"
