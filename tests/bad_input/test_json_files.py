"""JSON and JSONL files that hold no labelled sentences."""

from pathlib import Path

import pytest
from helpers.bad_input import refusal

DEEP = "[" * 100_000
DIGITS = "9" * 5000
SENTENCE = '{"sentence": "thầy dạy hay", "sentiment": '
LINES = {
    "empty file": ("", r"no row with text and label \(got an empty source\)"),
    "blank lines": ("\n \n\n", r"got an empty source"),
    "a word": ("hay\n", r"row 1: not JSON \("),
    "half an object": ('{"sentence": "hay"\n', r"row 1: not JSON \("),
    "an object over two lines": ('{"sentence": "hay",\n"sentiment": 1}\n', r"row 1: not JSON(?s:.)*row 2: not JSON"),
    "a number": ("5\n", r"row 1: not a JSON object \(got int\)"),
    "a string": ('"hay"\n', r"row 1: not a JSON object \(got str\)"),
    "null": ("null\n", r"row 1: not a JSON object \(got NoneType|null\)"),
    "a list after an object": (SENTENCE + '"neutral"}\n[1]\n', r"row 2: not a JSON object \(got list\)"),
    "an empty object": ("{}\n", r"row 1: no column 'sentence' \(got none\)"),
    "no text": ('{"sentiment": "neutral"}\n', r"row 1: no column 'sentence' \(got sentiment\)"),
    "no label": ('{"sentence": "hay"}\n', r"row 1: no label: no column 'sentiment' \(got sentence\)"),
    "text is a number": ('{"sentence": 5, "sentiment": 1}\n', r"row 1: 'sentence' is not text \(got 5\)"),
    "text is a list": ('{"sentence": ["hay"], "sentiment": 1}\n', r"row 1: 'sentence' is not text \(got \['hay'\]\)"),
    "text is an object": ('{"sentence": {"vi": "hay"}, "sentiment": 1}\n', r"row 1: 'sentence' is not text"),
    "text is null": ('{"sentence": null, "sentiment": 1}\n', r"\(got 1 blank rows\)"),
    "label is true": (SENTENCE + "true}\n", r"row 1: unknown label in 'sentiment' \(got True\)"),
    "label is null": (SENTENCE + "null}\n", r"row 1: no label in 'sentiment' \(got None|null\)"),
    "label is NaN": (SENTENCE + "NaN}\n", r"row 1: no label in 'sentiment' \(got nan\)"),
    "label is infinite": (SENTENCE + "Infinity}\n", r"row 1: unknown label in 'sentiment' \(got inf\)"),
    "label is a list": (SENTENCE + "[1, 2]}\n", r"row 1: unknown label in 'sentiment' \(got \[1, 2\]\)"),
    "label is an object": (SENTENCE + '{"id": 1}}\n', r"row 1: unknown label in 'sentiment' \(got \{'id': 1\}\)"),
    "label is half": (SENTENCE + "0.5}\n", r"row 1: unknown label in 'sentiment' \(got 0\.5\)"),
    "label of 5,000 digits": (SENTENCE + DIGITS + "}\n", r"row 1: (not JSON|unknown label).*(999|digits)"),
    "other column of 5,000 digits": (SENTENCE + '"không", "n": ' + DIGITS + "}\n", r"row 1: (not JSON|unknown label)"),
    "100,000 open brackets": (DEEP + "\n", r"not JSON \("),
    "100,000 open objects": ('{"a":' * 100_000 + "\n", r"row 1: not JSON \("),
    "deep column": (SENTENCE + '"không", "n": ' + DEEP + "]" * 100_000 + "}\n", r"row 1: not JSON \("),
    "a lone surrogate": ('{"sentence": "hay \\ud800", "sentiment": 1}\n', r"row 1: holds half of a surrogate pair \(U\+D800\)"),
    "a lone surrogate as label": (SENTENCE + '"\\ud800"}\n', r"row 1: holds half of a surrogate|unknown label"),
    "NUL in the text": ('{"sentence": "hay\\u0000", "sentiment": "không"}\n', r"row 1: "),
    "single quotes": ("{'sentence': 'hay', 'sentiment': 1}\n", r"row 1: not JSON \("),
    "a comma too many": (SENTENCE + "1,}\n", r"row 1: not JSON \("),
    "a comment": ("// góp ý\n" + SENTENCE + '"không"}\n', r"row 1: not JSON"),
    "a label in another language": (SENTENCE + '"tích cực"}\n', r"unknown label in 'sentiment' \(got 'tích cực'\)"),
    "CSV": ("sentence,sentiment\nhay,positive\n", r"row 1: not JSON"),
}  # fmt: skip
ARRAYS = {
    "empty array": ("[]", r"no row with text and label \(got an empty source\)"),
    "open array": ("[", r"dữ liệu\.json: not JSON \(.*\); give an array of objects, or one object a line"),
    "half an array": ("[" + SENTENCE + "1},", r"dữ liệu\.json: not JSON"),
    "two arrays": ("[]\n[]\n", r"dữ liệu\.json: not JSON \(Extra data"),
    "array of words": ('["hay", "dở"]', r"row 1: not a JSON object \(got str\)"),
    "array of numbers": ("[1, 2, 3]", r"row 3: not a JSON object \(got int\)"),
    "array of arrays": ('[["hay", 1]]', r"row 1: not a JSON object \(got list\)"),
    "array of nulls": ("[null]", r"row 1: not a JSON object"),
    "deep array": (DEEP, r"dữ liệu\.json: not JSON"),
    "closed deep array": (DEEP + "]" * 100_000, r"dữ liệu\.json row 1: not JSON \(nested deeper"),
    "number of 5,000 digits": ("[" + SENTENCE + DIGITS + "}]", r"dữ liệu\.json( row 1)?: (not JSON|unknown label).*"),
    "object over several lines": ('{\n "sentence": "hay",\n "sentiment": 1\n}', r"row 1: not JSON"),
    "columns of lists": ('{"sentence": ["hay"], "sentiment": [1]}', r"row 1: 'sentence' is not text"),
    "splits in one object": ('{"train": [], "test": []}', r"row 1: no column 'sentence' \(got train, test\)"),
    "many keys": (
        "{" + ", ".join(f'"k{i}": 1' for i in range(50)) + "}", r"no column 'sentence' \(got k0, .* and 4\d more\)"
    ),
    "binary": ("\x00\x01\x02", r"dữ liệu\.json: is no text \(got b"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "says"), LINES.values(), ids=LINES)
def test_lines_of_json_without_labelled_sentences_are_refused(content: str, says: str) -> None:
    Path("dữ liệu.jsonl").write_text(content, encoding="utf-8")
    refusal(["train", "--data", "dữ liệu.jsonl"], rf"^error:\s+dữ liệu\.jsonl(?s:.)*{says}")


@pytest.mark.parametrize(("content", "says"), ARRAYS.values(), ids=ARRAYS)
def test_json_that_is_no_list_of_labelled_sentences_is_refused(content: str, says: str) -> None:
    Path("dữ liệu.json").write_text(content, encoding="utf-8")
    refusal(["eval", "--zero-shot", "--split", "dữ liệu.json"], says)
