"""Cells of a label column against the task's labels."""

import unicodedata
from typing import Any

import numpy as np
import pytest
from helpers.data import LABELS

from loraft.data.labels import allowed_labels, ids_to_names, is_unlabelled, label_reader
from loraft.data.records import BadRow, Row
from loraft.errors import DataError


@pytest.mark.parametrize("value", [2, "2", 2.0, "2.0", " 2 ", "positive", "Positive", "POSITIVE "])
def test_labels_are_ids_or_names_in_any_case(value: Any) -> None:
    assert label_reader(LABELS)(value) == 2


@pytest.mark.parametrize("value", [3, -1, "tốt", "", None, True, 1.5, "negative positive", "2.00", "02"])
def test_everything_else_is_no_label(value: Any) -> None:
    assert label_reader(LABELS)(value) is None


@pytest.mark.parametrize("value", [None, float("nan"), np.float16("nan"), "", " \t"])
def test_no_label_is_not_the_label_none_or_nan(value: Any) -> None:
    labels = ["none", "nan", "None"]
    assert is_unlabelled(value)
    assert label_reader(labels)(value) is None
    assert [label_reader(labels)(word) for word in ("none", "NaN", "None")] == [0, 1, 2]
    assert not any(map(is_unlabelled, ["none", "nan", 0, False, -1, [], "-"]))


def test_names_that_are_whole_numbers_are_names_and_never_ids() -> None:
    read = label_reader(["1", "2", "3"])
    assert [read(value) for value in (1, "3", 2.0, 0)] == [0, 2, 1, None]
    read = label_reader(["1.0", "2.0"])
    assert [read(value) for value in ("1.0", 2.0, "1", 0)] == [0, 1, None, None]


def test_names_that_differ_in_case_only_are_told_apart() -> None:
    read = label_reader(["It", "IT"])
    assert [read("It"), read("IT")] == [0, 1]


def test_vietnamese_names_match_across_case_composition_and_underscores() -> None:
    read = label_reader(["tích cực", "Tiêu Cực"])
    assert read(unicodedata.normalize("NFD", "Tích_cực")) == 0
    assert read("TIÊU  CỰC") == 1


def test_messages_offer_ids_only_where_ids_are_allowed() -> None:
    assert allowed_labels(LABELS) == "negative, neutral, positive, or ids 0 to 2"
    assert allowed_labels(["1", "2"]) == "1, 2"


def test_ids_become_the_names_that_the_source_gives_them() -> None:
    rows = [Row(4, {"a": "x", "nhãn": 0}), Row(5, {"a": "y", "nhãn": 2})]
    named = list(ids_to_names(rows, ["Positive", "neutral", "negative"], "nhãn", "a", LABELS))
    assert named == [Row(4, {"a": "x", "nhãn": "Positive"}), Row(5, {"a": "y", "nhãn": "negative"})]


def test_what_is_no_id_of_the_source_stays_as_it_is() -> None:
    rows = [BadRow(1, "hỏng"), Row(2, {"a": "x"}), *(Row(3, {"nhãn": value}) for value in (-2, 3, None, "neutral"))]
    assert list(ids_to_names(rows, LABELS, "nhãn", "a", LABELS)) == rows


def test_the_id_minus_one_of_a_source_with_names_is_no_label() -> None:
    rows = [Row(1, {"nhãn": -1}), Row(2, {"nhãn": 1})]
    assert list(ids_to_names(rows, LABELS, "nhãn", "a", LABELS)) == [
        Row(1, {"nhãn": None}),
        Row(2, {"nhãn": "neutral"}),
    ]
    assert list(ids_to_names(rows, [], "nhãn", "a", LABELS)) == rows


def test_without_names_all_rows_stay_as_they_are() -> None:
    rows = [Row(1, {"nhãn": 0})]
    assert list(ids_to_names(rows, [], "nhãn", "a", LABELS)) == rows


@pytest.mark.parametrize("names", [["POS", "NEG", "NEU"], ["negative", "neutral", "positive", "mixed"]])
def test_names_that_are_not_the_tasks_are_refused(names: list[str]) -> None:
    # Their ids would otherwise be read as the task's ids, which have another order or number.
    with pytest.raises(DataError) as error:
        ids_to_names([], names, "nhãn", "nguồn", LABELS)
    theirs = ", ".join(names)
    assert str(error.value).startswith("nguồn: the label names of column 'nhãn' are not the task's labels")
    assert f"got {theirs}; the task has negative, neutral, positive" in str(error.value)
    assert f"--set 'prompt.labels=[{theirs}]' with prompt.label_words" in str(error.value)
