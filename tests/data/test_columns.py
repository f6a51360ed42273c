"""Which text of a row is a sentence, and what is said of a column that is missing."""

import unicodedata
from typing import Any

import pytest

from loraft.data.columns import missing_column, require_columns, sentence
from loraft.errors import DataError


def test_a_sentence_is_composed_and_stripped_and_its_line_ends_are_newlines() -> None:
    text = "\u00a0 thầy giảng\r\nrất\rnhiệt tình\n "
    decomposed = unicodedata.normalize("NFD", text)
    assert decomposed != text
    assert sentence({"câu": decomposed}, "câu") == ("thầy giảng\nrất\nnhiệt tình", None)


@pytest.mark.parametrize("value", ["", " \n\t", None])
def test_a_blank_sentence_is_empty_without_a_reason(value: str | None) -> None:
    assert sentence({"câu": value}, "câu") == ("", None)


@pytest.mark.parametrize("value", [5, 2.5, True, ["hay"], {"text": "hay"}])
def test_a_value_that_is_not_text_is_refused_with_its_column(value: Any) -> None:
    assert sentence({"câu": value}, "câu") == ("", f"'câu' is not text (got {value!r})")


def test_what_cannot_be_written_again_and_long_values_give_a_short_reason() -> None:
    for value in (10**5000, deep := []):  # type: ignore[var-annotated]
        for _ in range(2000):
            deep = [deep]
        columns = {"câu": "hay", "x": deep if isinstance(value, list) else value}
        assert "a column cannot be written (" in str(sentence(columns, "câu")[1])
    assert len(str(sentence({"câu": 1000 * [1]}, "câu")[1])) < 120


@pytest.mark.parametrize("columns", [{"câu": "d\udcff"}, {"câu": "hay", "mã": "d\udcff"}, {"câu": "hay", "d\udcff": 1}])
def test_a_lone_surrogate_anywhere_in_the_row_is_refused(columns: dict[str, Any]) -> None:
    # A predicted row is written with all its columns, and no encoding can write a lone surrogate.
    assert sentence(columns, "câu") == ("", "not valid UTF-8; save the file as UTF-8, or set data.encoding")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["Sentences", "label"], "no column 'sentence' (got Sentences, label), did you mean 'Sentences'?"),
        (["SENTENCE"], "no column 'sentence' (got SENTENCE), did you mean 'SENTENCE'?"),
        (["mã", "x"], "no column 'sentence' (got mã, x)"),
        ([], "no column 'sentence' (got none)"),
    ],
)
def test_a_missing_column_is_named_with_the_ones_that_exist_and_the_most_similar(
    columns: list[str], expected: str
) -> None:
    assert missing_column("sentence", columns) == expected
    assert sentence(dict.fromkeys(columns, "hay"), "sentence") == ("", expected)


@pytest.mark.parametrize(
    ("required", "option"),
    [
        (["sentence", "sentiment"], "no column 'sentence' .*--set data.text_column=NAME"),
        (["text", "sentiment"], "no column 'sentiment' .*--set data.label_column=NAME"),
        (["sentence"], "no column 'sentence' .*--text-column NAME"),
    ],
)
def test_a_file_without_a_required_column_is_refused_with_the_option_for_it(required: list[str], option: str) -> None:
    with pytest.raises(DataError, match=f"^a.csv: {option}(; loraft data a.csv shows what is in it)?$"):
        require_columns(["text", "label"], required, "a.csv")


def test_a_file_with_all_required_columns_is_accepted() -> None:
    require_columns(["mã", "sentiment", "sentence"], ["sentence", "sentiment"], "a.csv")
