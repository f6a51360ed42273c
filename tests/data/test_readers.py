"""Rows from files and streams of every format and encoding, read one at a time."""

import csv
import gzip
import io
import os
import threading
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from helpers.data import ROWS, TEXTS, write_rows
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from loraft.data import columns, formats, readers
from loraft.data.readers import AS_IT_IS, Format, count_rows, input_rows, read_rows, unlabelled
from loraft.data.records import BadRow, Example, FileSettings, Row
from loraft.errors import DataError

SUFFIXES = [".jsonl", ".json", ".csv", ".tsv", ".parquet"]


def file(folder: Path, content: str | bytes, name: str = "in.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read_inputs(
    source: Path | TextIO, format: Format = "auto", settings: FileSettings = AS_IT_IS
) -> Iterator[Example | BadRow]:
    return (unlabelled(item, "sentence") for item in input_rows(source, format, settings=settings))


def texts(items: Iterator[Example | BadRow]) -> list[str]:
    return [item.text for item in items if isinstance(item, Example)]


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".CSV"])
def test_inputs_are_the_same_in_every_format(tmp_path: Path, suffix: str) -> None:
    path = write_rows(tmp_path / f"in{suffix}")
    assert texts(read_inputs(path)) == TEXTS
    assert [list(item.extra) for item in read_inputs(path) if isinstance(item, Example)] == [["sentiment", "topic"]] * 3


def test_a_json_file_is_an_array_or_an_object_a_line(tmp_path: Path) -> None:
    lines = write_rows(tmp_path / "in.jsonl").rename(tmp_path / "in.json")
    expected = [Row(row, columns) for row, columns in enumerate(ROWS, start=1)]
    assert list(read_rows(lines)) == expected
    assert list(read_rows(write_rows(tmp_path / "array.json"))) == expected


def test_columns_keep_their_order_and_text(tmp_path: Path) -> None:
    assert list(read_inputs(file(tmp_path, "mã,sentence,sentiment\n007, hay ,2\n008,dở,0\n"))) == [
        Example("hay", None, 1, {"mã": "007", "sentiment": "2"}),
        Example("dở", None, 2, {"mã": "008", "sentiment": "0"}),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_csv_is_read_as_spreadsheets_write_it(tmp_path: Path, encoding: str, newline: str, delimiter: str) -> None:
    lines = ["sentence,sentiment", '"thầy dạy hay,"" dễ hiểu', 'nhưng nói nhanh",2', "tạm được,neutral", ""]
    content = newline.join(lines).replace(",", delimiter).replace(f"hay{delimiter}", "hay,")
    assert list(read_inputs(file(tmp_path, content.encode(encoding)))) == [
        Example('thầy dạy hay," dễ hiểu\nnhưng nói nhanh', None, 1, {"sentiment": "2"}),
        Example("tạm được", None, 2, {"sentiment": "neutral"}),
    ]


TEXT = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    ['"', '""', "a\nb", "\r\n", ";", "'", ",\t"]
)


@examples(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(written=st.lists(TEXT, max_size=8), suffix=st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet"]))
def test_any_text_survives_the_trip_through_a_file(tmp_path: Path, written: list[str], suffix: str) -> None:
    rows = [{"sentence": text, "sentiment": 1} for text in [*written, "chốt"]]
    read = texts(read_inputs(write_rows(tmp_path / f"train{suffix}", rows)))
    line_ends = [text.replace("\r\n", "\n").replace("\r", "\n") for text in [*written, "chốt"]]
    composed = [unicodedata.normalize("NFC", text).strip() for text in line_ends]
    assert read == [text for text in composed if text]


@pytest.mark.parametrize("name", ["in.txt", "in"])
def test_rows_with_columns_come_from_known_suffixes_only(tmp_path: Path, name: str) -> None:
    suffix = Path(name).suffix or "no suffix"
    with pytest.raises(DataError, match=rf"{name}: unknown file format \(got {suffix}\); allowed are \.jsonl"):
        list(read_rows(file(tmp_path, "sentence\nhay\n", name)))


def test_a_named_format_comes_before_the_suffix(tmp_path: Path) -> None:
    path = file(tmp_path, "sentence\tid\nhay\t1\n", "in.txt")
    assert texts(read_inputs(path, "tsv")) == ["hay"]
    assert texts(read_inputs(path)) == ["sentence\tid", "hay\t1"]
    assert texts(read_inputs(path.rename(tmp_path / "in.csv"), "lines")) == ["sentence\tid", "hay\t1"]


@pytest.mark.parametrize("format", ["lines", "csv", "jsonl"])
def test_a_bad_byte_makes_its_own_row_bad_and_no_other(tmp_path: Path, format: str) -> None:
    good, bad = ('{"sentence": "hay"}', b'{"sentence": "d\xff"}') if format == "jsonl" else ("hay", b"d\xff")
    content = b"\n".join([*([b"sentence"] if format == "csv" else []), good.encode(), bad, good.encode(), b""])
    first, second, third = read_inputs(file(tmp_path, content, "in.txt"), format)  # type: ignore[arg-type]
    assert isinstance(first, Example)
    assert isinstance(third, Example)
    assert (first.text, third.text) == ("hay", "hay")
    assert second == BadRow(first.row + 1, "not valid UTF-8; save the file as UTF-8, or set data.encoding")


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl"])
def test_a_line_without_end_makes_its_own_row_bad_and_is_not_kept(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (columns, formats, readers):
        monkeypatch.setattr(module, "LONGEST", 100)
    rows = ["hay", 350 * "dài", "dở"]
    lines = [f'{{"sentence": "{row}"}}' for row in rows] if suffix == ".jsonl" else rows
    path = file(tmp_path, "\n".join([*(["sentence"] if suffix == ".csv" else []), *lines]), f"a{suffix}")
    first, second, third = read_inputs(path)
    assert isinstance(second, BadRow)
    assert second.reason.startswith("malformed" if suffix == ".csv" else "longer than 16,777,216 characters")
    assert texts([first, third]) == ["hay", "dở"]
    assert list(read_inputs(path, "text")) == [BadRow(1, "longer than 16,777,216 characters")]
    csv.field_size_limit(2**17)  # as it was


def test_half_a_pair_in_utf_16_makes_its_own_row_bad_and_no_other(tmp_path: Path) -> None:
    path = file(tmp_path, "sentence\nhay\nd\ud800\ndở\n".encode("utf-16", "surrogatepass"))
    first, second, third = read_inputs(path)
    assert texts([first, third]) == ["hay", "dở"]
    assert isinstance(second, BadRow)


def test_the_first_row_may_be_json_that_cannot_be_read() -> None:
    items = read_inputs(io.StringIO('{"sentence": "hay", "x": ' + "1" * 5000 + '}\n{"sentence": "dở"}\n'))
    assert [type(item) for item in items] == [BadRow, Example]


@pytest.mark.parametrize(("name", "format"), [("in.txt", "auto"), ("in", "lines"), ("in.csv", "auto"), ("in", "csv")])
def test_utf_16_cut_in_the_middle_of_a_character_is_refused(tmp_path: Path, name: str, format: str) -> None:
    path = file(tmp_path, "sentence\nhay\n".encode("utf-16") + b"d", name)
    with pytest.raises(DataError, match=r"not valid text \(.*truncated.*\); save it as UTF-8"):
        list(read_inputs(path, format))  # type: ignore[arg-type]


@pytest.mark.parametrize("content", ["sentence\nhay\n".encode("utf-16-le"), b"\xff\xfes\x00e"])
def test_utf_16_without_a_mark_and_half_of_a_file_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"is no text|not valid text"):
        list(read_inputs(file(tmp_path, content)))


def test_files_that_cannot_be_opened_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"không có\.csv: no such file; check the path"):
        list(read_inputs(tmp_path / "không có.csv"))
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(DataError, match=r"x\.csv: cannot be read \(Is a directory\)"):
        list(read_inputs(tmp_path / "x.csv"))


def test_a_missing_text_column_is_refused_before_the_first_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'sentence' \(got text\); name it with --text-column NAME"):
        next(read_inputs(file(tmp_path, "text\nhay\n")))


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04\x14\x00", b"%PDF-1.7\n", b"\x89PNG\r\n\x1a\n", gzip.compress(b"hay\n", mtime=0)]
)
@pytest.mark.parametrize("format", ["auto", "lines", "csv", "text"])
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes, format: str) -> None:
    with pytest.raises(DataError, match=r"in\.docx: is no text \(got b'.*\); give UTF-8 text, or a file"):
        list(read_inputs(file(tmp_path, content, "in.docx"), format))  # type: ignore[arg-type]


def with_tone_marks(text: str) -> str:
    """The text as cp1258 has it: vowels keep circumflex, breve and horn; tones follow as characters."""
    written = ""
    for character in text:
        parts = unicodedata.normalize("NFD", character)
        tone = "".join(mark for mark in parts if mark in "\u0300\u0301\u0303\u0309\u0323")
        written += unicodedata.normalize("NFC", "".join(one for one in parts if one not in tone)) + tone
    return written


@pytest.mark.parametrize("encoding", ["latin-1", "cp1258", "tcvn3"])
def test_an_encoding_of_the_config_is_used_for_header_and_rows(tmp_path: Path, encoding: str) -> None:
    text = "très bien é" if encoding == "latin-1" else "thầy rất nhiệt tình"
    content = f"sentence,é\n{text},{text}\n"
    path = file(tmp_path, (with_tone_marks(content) if encoding == "cp1258" else content).encode(encoding))
    settings = FileSettings(encoding=encoding)
    assert list(read_inputs(path, settings=settings)) == [Example(text, None, 1, {"é": text})]


@pytest.mark.parametrize("delimiter", ["|", "\t", ";", "#"])
def test_delimiters_are_found_told_by_the_file_or_named(tmp_path: Path, delimiter: str) -> None:
    content = f"mã, số{delimiter}sentence\n1{delimiter}hay, dễ; vui\n".replace("; vui" * (delimiter == ";"), "")
    settings = FileSettings(delimiter=delimiter if delimiter == "#" else None)
    expected = [Example(content.split("\n")[1][2:], None, 1, {"mã, số": "1"})]
    assert list(read_inputs(file(tmp_path, content), settings=settings)) == expected
    assert list(read_inputs(file(tmp_path, f"sep={delimiter}\r\n{content}"))) == expected
    assert list(read_inputs(file(tmp_path, f'"sep={delimiter}"\r\n{content}'))) == expected  # as some programs save it


def test_a_delimiter_inside_a_quoted_column_name_is_none(tmp_path: Path) -> None:
    path = file(tmp_path, '"sentence"|"nhãn, khác"\nhay|1\n')
    assert list(read_rows(path)) == [Row(1, {"sentence": "hay", "nhãn, khác": "1"})]


def test_a_text_file_or_each_file_of_a_folder_is_one_text(tmp_path: Path) -> None:
    path = file(tmp_path, "\ufeffmột\nhai\n", "b.txt")
    file(tmp_path, "ba", "a.txt")
    assert list(read_inputs(path, "text")) == [Example("một\nhai", None, 1)]
    assert list(read_inputs(tmp_path, "text")) == [
        Example("ba", None, 1, {"file": "a.txt"}), Example("một\nhai", None, 2, {"file": "b.txt"})
    ]  # fmt: skip


def test_a_compressed_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b"sentence\n" + b"hay\n" * 9)
    assert len(texts(read_inputs(file(tmp_path, whole, "in.csv.gz")))) == 9
    with pytest.raises(DataError, match=r"in\.csv\.gz: cannot be read"):
        list(read_inputs(file(tmp_path, whole[:-9], "in.csv.gz")))


# --- streams ----------------------------------------------------------------------------------------------------------


def test_lines_are_sentences_in_order_with_their_numbers() -> None:
    stream = io.StringIO("\ufeffthầy dạy hay \r\n\n{không phải json\ncâu\u2028cuối\n\n\n")
    assert list(read_inputs(stream, "auto")) == [
        Example("thầy dạy hay", None, 1),
        BadRow(2, "no text"),
        Example("{không phải json", None, 3),
        Example("câu\u2028cuối", None, 4),
    ]


def test_a_stream_of_objects_with_the_text_column_is_jsonl() -> None:
    stream = io.StringIO('{"id": 7, "sentence": "hay"}\n\n{"id": 8}\n{"sentence": ""}\nx\n')
    good, *bad = read_inputs(stream)
    assert good == Example("hay", None, 1, {"id": 7})
    assert [(item.row, item.reason.split(" (")[0]) for item in bad if isinstance(item, BadRow)] == [
        (2, "no column 'sentence'"),
        (3, "no text"),
        (4, "not JSON"),
    ]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('\n \n{"sentence": "hay"}\n', [1]),
        ("\ufeff\nid,sentence\n1,hay\n", [1]),
        ('id,"sentence"\r\n1,"hay"\r\n', [1]),
        ("id; sentence\n1;hay\n", [1]),
        ("id\tsentence\n1\thay\n", [1]),
        ("sentence\nhay\n", [1]),
        ('[{"sentence": "hay"},\n {"sentence": "hay"}]', [1, 2]),
        ('[\n  {\n    "sentence": "hay"\n  }\n]\n', [1]),
    ],
)
def test_the_format_of_a_stream_follows_from_its_first_line_that_is_not_blank(
    tmp_path: Path, content: str, rows: list[int]
) -> None:
    items = list(read_inputs(io.StringIO(content, newline="")))
    assert [(item.text, item.row) for item in items if isinstance(item, Example)] == [("hay", row) for row in rows]
    assert list(read_inputs(file(tmp_path, content, "không đuôi"))) == items


@pytest.mark.parametrize("line", ["thầy dạy hay, dễ hiểu; vui", "[thầy] hay", '"hay", 5 sao', '"hay"', "5", 'a "b, c'])
def test_a_sentence_with_commas_quotes_or_brackets_is_a_line(line: str) -> None:
    assert texts(read_inputs(io.StringIO(f"{line}\nhay\n"))) == [line, "hay"]


def test_objects_without_the_text_column_are_refused_and_not_labelled_as_text() -> None:
    content = '\n{"id": 7, "Sentences": "hay"}\n'
    expected = (
        r"'sentence' \(got id, Sentences\), did you mean 'Sentences'\?; name it with --text-column NAME, or .*lines"
    )
    with pytest.raises(DataError, match=expected):
        list(read_inputs(io.StringIO(content)))
    assert texts(read_inputs(io.StringIO(content), "lines")) == [content.strip()]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="only POSIX has named pipes")
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_pipe_is_read_from_its_beginning(tmp_path: Path, encoding: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=("câu một\ncâu hai\n".encode(encoding),), daemon=True)
    writer.start()
    assert texts(read_inputs(pipe)) == ["câu một", "câu hai"]
    writer.join()


def test_bytes_on_stdin_are_utf_8_whatever_the_locale() -> None:
    stdin = io.TextIOWrapper(io.BytesIO("\ufeffcâu một\ncâu hai\n".encode() + b"\xff\n"), encoding="ascii")
    one, two, bad = read_inputs(stdin)
    assert [one, two] == [Example("câu một", None, 1), Example("câu hai", None, 2)]
    assert isinstance(bad, BadRow)


def test_inputs_are_read_as_they_come_and_not_ahead() -> None:
    served = []

    class Endless(io.StringIO):
        def readline(self, size: int | None = -1, /) -> str:
            served.append(1)
            return f"câu {len(served)}\n"

    items = read_inputs(Endless())
    assert [next(items).row for _ in range(3)] == [1, 2, 3]
    assert len(served) == 3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "một\r\n\r\nhai\r\n\r\n"),
        ("a.txt", "một\rhai"),
        ("a.jsonl", '{"sentence": "một"}\n\n{"sentence": "hai"}\n'),
        ("a.csv", '\nsentence,x\n"một\n\nhai",1\n\nba,2\n'),
        ("a.tsv", "sentence\tx\r"),
        ("a.csv", ""),
    ],
)
def test_rows_are_counted_as_they_are_read(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode())
    rows = len(list(input_rows(path))) if text else 0
    assert count_rows(path, "auto", AS_IT_IS) == rows
    packed = path.with_name(f"{name}.gz")
    packed.write_bytes(gzip.compress(text.encode()))
    assert count_rows(packed, "auto", AS_IT_IS) == rows


def test_rows_are_not_counted_where_that_needs_a_parser(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"sentence": "một"}]', encoding="utf-8")
    assert count_rows(tmp_path / "a.json", "auto", AS_IT_IS) is None
