"""Plain text, fastText files and folders of texts that hold no labelled sentences."""

from pathlib import Path

import pytest
from helpers.bad_input import refusal

FILES: dict[str, tuple[dict[str, str], str, str]] = {
    "empty text": ({"a.txt": ""}, "a.txt", r"a\.txt: (unknown file format|no row)"),
    "plain lines": ({"a.txt": "thầy dạy hay\n"}, "a.txt", r"a\.txt: unknown file format \(got \.txt\); allowed are"),
    "no suffix": ({"góp ý": "thầy dạy hay\n"}, "góp ý", r"góp ý: unknown file format \(got no suffix\)"),
    "a document": ({"a.docx": "PK"}, "a.docx", r"a\.docx: unknown file format \(got \.docx\)"),
    "a PDF": ({"a.pdf": "%PDF-1.7\n"}, "a.pdf", r"a\.pdf: is no text \(got b'%PDF-1\.7'\); give UTF-8 text"),
    "YAML": ({"a.yaml": "- sentence: hay\n"}, "a.yaml", r"a\.yaml: unknown file format \(got \.yaml\)"),
    "HTML": ({"a.html": "<table>"}, "a.html", r"a\.html: unknown file format \(got \.html\)"),
    "two dots": ({"a..": "hay"}, "a..", r"a\.\.: unknown file format"),
    "fastText without labels": ({"a.txt": "__label__ hay\n"}, "a.txt", r"row 1: no label in 'sentiment'"),
    "fastText with two labels": (
        {"a.txt": "__label__positive __label__negative hay\n"}, "a.txt", r"row 1: unknown label .*\['positive', 'negati"
    ),
    "fastText of labels only": ({"a.txt": "__label__positive\n__label__negative\n"}, "a.txt", r"\(got 2 blank rows\)"),
    "fastText with other labels": ({"a.ft": "__label__khen hay\n"}, "a.ft", r"row 1: unknown label .*\(got 'khen'\)"),
    "fastText line without label": ({"a.ft": "__label__positive hay\ndở\n"}, "a.ft", r"row 2: no label in 'sentiment'"),
    "an empty folder": ({"d/.keep": ""}, "d", r"d: no file for split train \(got no data files\); expected train"),
    "hidden files only": ({"d/.train.csv": "sentence,sentiment\n"}, "d", r"no file for split train \(got no data"),
    "files of no split": ({"d/a.csv": "", "d/b.csv": ""}, "d", r"no file for split train \(got a\.csv, b\.csv\)"),
    "thirty files of no split": ({f"d/{i:02}.csv": "" for i in range(30)}, "d", r"\(got 00\.csv, .* and 20 more\)"),
    "documents": ({"d/train.docx": "PK", "d/test.pdf": "%PDF"}, "d", r"no file for split train \(got no data files\)"),
    "two train files": ({"d/train.csv": "", "d/train.jsonl": ""}, "d", r"several files for split train \(got train"),
    "two cases of a name": ({"d/train.csv": "", "d/TRAIN.csv": ""}, "d", r"several files for split train \(got "),
    "a part is missing": ({"d/train-00000-of-00002.csv": ""}, "d", r"parts of split train are missing \(got 1 of 2\)"),
    "a part too many": (
        {f"d/train-0000{i}-of-00002.csv": "" for i in range(3)}, "d", r"parts of split train are missing \(got 3 of 2\)"
    ),
    "an empty train folder": ({"d/train/.keep": ""}, "d", r"no file for split train \(got train\)"),
    "text files with unknown labels": ({"d/khen.txt": "hay\n"}, "d", r"row 1: unknown label .*\(got 'khen'\)"),
    "folders with unknown labels": ({"d/khen/1.txt": "hay\n"}, "d", r"row 1: unknown label .*\(got 'khen'\)"),
    "empty texts": ({"d/positive/1.txt": "", "d/negative/1.txt": " \n"}, "d", r"\(got 2 blank rows\)"),
    "a binary text": ({"d/positive/1.txt": "\x00\x01"}, "d", r"1\.txt: is no text \(got b'\\x00\\x01'\)"),
    "a folder with the name of a file": ({"a.csv/b": ""}, "a.csv", r"a\.csv: no file for split train"),
    "a folder with the name of a split": ({"d/train.csv/b": ""}, "d", r"d: no file for split train"),
}  # fmt: skip


@pytest.mark.parametrize(("files", "source", "says"), FILES.values(), ids=FILES)
def test_texts_without_labels_are_refused(files: dict[str, str], source: str, says: str) -> None:
    for name, content in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content, encoding="utf-8")
    refusal(["train", "--data", f"./{source}"], says)
