"""Which rows are worth labelling: the least sure ones, no two alike, in a form that training reads."""

import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.data import ROWS, sentences
from helpers.data import write_rows as write_data

from loraft.config.resolve import resolve
from loraft.data.dataset import ADDED, load_data
from loraft.data.near_duplicates import near_duplicates
from loraft.data.readers import input_rows
from loraft.data.records import BadRow, Example, Row
from loraft.evaluation.predict import Prediction
from loraft.evaluation.suggestion import (
    ALIKE,
    WITHOUT_LABEL,
    margin,
    suggest,
    to_be_labelled,
    worth_asking,
    write_rows,
)

LABELS = ("negative", "neutral", "positive")


def predicted(texts: Sequence[str], probs_NK: Sequence[Sequence[float]]) -> list[Prediction]:
    rows = enumerate(zip(texts, probs_NK, strict=True), start=1)
    return [
        Prediction(row, text, LABELS[int(np.argmax(p))], dict(zip(LABELS, map(float, p), strict=True)), {"mã": row})
        for row, (text, p) in rows
    ]


def test_the_least_sure_rows_come_first(random_rows: Callable[..., tuple[np.ndarray, ...]]) -> None:
    probs_NK, texts = random_rows(300)[2], sentences(300)
    ordered_NK = np.sort(probs_NK, axis=1)
    expected = np.argsort(ordered_NK[:, -1] - ordered_NK[:, -2], kind="stable")
    assert near_duplicates(texts, texts, threshold=ALIKE) == near_duplicates(texts, texts, threshold=0.999)  # itself
    for count in (1, 7, 300):
        chosen, looked_at = suggest(predicted(texts, probs_NK), count)
        assert [one.row - 1 for one in chosen] == expected[:count].tolist()
        assert looked_at == 300
    assert chosen[0].margin == pytest.approx(float(np.diff(ordered_NK[expected[0], -2:])[0]))
    assert (chosen[0].extra, chosen[0].label) == ({"mã": expected[0] + 1}, LABELS[int(probs_NK[expected[0]].argmax())])


def test_of_equal_margins_the_earlier_row_comes_first() -> None:
    chosen, _ = suggest(predicted(sentences(40), [[0.5, 0.3, 0.2]] * 40), 10)
    assert [one.row for one in chosen] == [*range(1, 11)]


def test_rows_that_are_alike_are_not_both_suggested() -> None:
    different = sentences(6)
    planted = [text + " ." for text in different[:3]] + ["!" + text.upper() for text in different[:3]] + different[:3]
    unsure, sure = [[0.4, 0.35, 0.25]] * 9, [[0.9, 0.06, 0.04]] * 6
    chosen, looked_at = suggest(predicted(planted + different, [*unsure, *sure]), 6)
    assert [one.row for one in chosen] == [1, 2, 3, 13, 14, 15]  # of each group one, then the other sentences
    assert looked_at == 12  # of the same sentence the first row counts
    assert len(suggest(predicted(planted, unsure), 6)[0]) == 3  # fewer where nothing else is there


def test_with_several_labels_a_row_is_unsure_where_one_probability_lies_at_its_threshold() -> None:
    probs_NK, thresholds = np.random.default_rng(0).random((50, 3)), (0.3, 0.5, 0.7)
    expected = np.argsort(np.abs(probs_NK - thresholds).min(axis=1), kind="stable")
    chosen, _ = suggest(predicted(sentences(50), probs_NK), 50, thresholds)
    assert [one.row - 1 for one in chosen] == expected.tolist()
    assert margin([0.2, 0.5], [0.5, 0.5]) == 0.0


def test_rows_with_a_label_and_known_sentences_are_not_asked_about() -> None:
    rows = [
        Example("có nhãn", None, 1, {"sentiment": "positive"}),
        Example("chưa có nhãn", None, 2, {"sentiment": "  "}),
        Example("đã học", None, 3),
        BadRow(4, "no text"),
        Example("mới", None, 5, {"sentiment": float("nan")}),
    ]
    notes = Counter[str]()
    assert [row.row for row in worth_asking(rows, "sentiment", ["đã học"], notes)] == [2, 4, 5]
    assert notes == {WITHOUT_LABEL: 3}
    unreadable = Prediction(4, "", None, error="no text")
    assert suggest([unreadable], 3) == ([], 0)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_what_a_person_fills_in_is_read_by_training(suffix: str, tmp_path: Path) -> None:
    texts = ['"phòng" học, nóng', "dòng một\ndòng hai", "=1+1", "mới"]
    lines = to_be_labelled(suggest(predicted(texts, [[0.5, 0.4, 0.1]] * 4), 4)[0], "sentence", "sentiment")
    written, source = tmp_path / f"a{suffix}", tmp_path / "data" / "train.jsonl"
    for _ in range(2):  # as it is suggested, and filled in
        with written.open("w", encoding="utf-8", newline="") as file:
            write_rows(lines, file, json_lines=suffix == ".jsonl")
        rows = [row for row in input_rows(written, "auto", "sentence") if isinstance(row, Row)]
        assert [row.columns["sentence"] for row in rows] == texts
        lines = [{**row.columns, "sentiment": label} for row, label in zip(rows, [*LABELS, ""], strict=True)]
    source.parent.mkdir()
    write_data(source)
    split = load_data(resolve(overrides=[f"data.source={source.parent}", f"data.extra_train=[{written}]"]), "train")
    assert [*split.texts][len(ROWS) :] == texts[:3]
    assert split.labels.tolist()[len(ROWS) :] == [0, 1, 2]
    assert split.notes == {"unlabelled rows skipped": 1, ADDED: 3}
    assert str(split.examples[len(ROWS)].extra["mã"]) == "1"


def test_without_texts_the_number_of_the_row_stands_for_it() -> None:
    chosen, _ = suggest(predicted(["thầy dạy hay"], [[0.5, 0.4, 0.1]]), 1)
    chosen = [replace(chosen[0], extra={"row": "của em", "gốc": "thầy dạy hay"})]
    assert to_be_labelled(chosen, "sentence", "nhãn", texts=False) == [{"nhãn": None, "row": 1}]
    out = io.StringIO()
    write_rows([{"a": 1}, {"a": 2, "b": None}], out, json_lines=False)
    assert out.getvalue() == "a,b\n1,\n2,\n"
