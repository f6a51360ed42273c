"""Data from everywhere: what comes in clean, what is counted, and what is refused with file and row."""

import csv
import io
import json
import os
import threading
import unicodedata

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loraft.config.schema import DataConfig
from loraft.data.dataset import load_split
from loraft.data.readers import read_inputs
from loraft.data.records import BadRow, Example
from loraft.data.sources import NoSplitError
from loraft.errors import DataError

LABELS = ["negative", "neutral", "positive"]
ROWS = [
    {"sentence": "thầy dạy rất dễ hiểu .", "sentiment": 2, "topic": 0},
    {"sentence": "phòng học nóng quá .", "sentiment": 0, "topic": 2},
    {"sentence": "bình thường .", "sentiment": 1, "topic": 3},
]


def load(source, split="train", limit=None, labels=LABELS, label_column="sentiment", **section):
    config = DataConfig(source=str(source), **section)
    return load_split(config, split, labels=labels, label_column=label_column, limit=limit)


def write(path, rows=ROWS):
    """The rows in the format of the path's suffix."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def table(tmp_path, content, suffix=".csv"):
    """A train file with this content."""
    path = tmp_path / f"train{suffix}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# What is read, whatever it is stored in


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_a_split_is_the_same_in_every_format(tmp_path, suffix):
    write(tmp_path / f"train{suffix}")
    split = load(tmp_path)
    assert split.texts == [row["sentence"] for row in ROWS]
    assert split.labels.tolist() == [2, 0, 1]
    assert len(split) == 3
    assert split.source == str(tmp_path / f"train{suffix}")
    assert split.notes == {}
    assert list(split.examples[0].extra) == ["topic"]
    write(tmp_path / "validation.jsonl")
    assert split.fingerprint == load(tmp_path, "validation").fingerprint


def test_the_fingerprint_changes_with_a_text_a_label_and_the_order(tmp_path):
    changed = [{**ROWS[0], "sentence": "khác"}, *ROWS[1:]], [{**ROWS[0], "sentiment": 1}, *ROWS[1:]], ROWS[::-1]
    prints = {load(write(tmp_path / f"{i}.jsonl", rows)).fingerprint for i, rows in enumerate([ROWS, *changed])}
    assert len(prints) == 4


@pytest.mark.parametrize("alias", ["validation", "valid", "dev", "val"])
def test_the_validation_split_goes_by_many_names(tmp_path, alias):
    write(tmp_path / f"{alias}.csv")
    assert len(load(tmp_path, "validation")) == 3


def test_splits_can_be_renamed_and_can_be_files(tmp_path):
    write(tmp_path / "gold.csv")
    assert load(tmp_path, "test", test_split="gold").name == "test"
    assert len(load("feedback", tmp_path / "gold.csv")) == 3
    assert len(load("feedback", "test", test_split=str(tmp_path / "gold.csv"))) == 3


def test_one_file_is_the_train_split_and_no_other(tmp_path):
    path = write(tmp_path / "all.csv")
    assert len(load(path)) == 3
    with pytest.raises(DataError, match=r"one file holds one split.*--set data\.test_split=FILE"):
        load(path, "test")


@pytest.mark.parametrize("name", ["reviews.txt", "owner/reviews.xlsx"])
def test_a_file_of_unknown_format_is_no_hub_id(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("hay\n")
    for source, split in ((name, "train"), ("feedback", name)):
        with pytest.raises(DataError, match=r"unknown file format \(got \.(txt|xlsx)\); allowed are \.jsonl"):
            load(source, split)


def test_a_folder_with_a_bundled_name_is_reached_with_a_dot(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "feedback").mkdir()
    write(tmp_path / "feedback" / "train.csv")
    assert len(load("./feedback")) == len(load(tmp_path / "feedback")) == 3
    assert len(load("feedback")) > 3


def test_the_bundled_data_are_reached_by_name():
    split = load("feedback", "validation")
    assert len(split) >= 300
    assert set(split.labels.tolist()) == {0, 1, 2}


def test_the_other_task_reads_its_own_column(tmp_path):
    topics = ["lecturer", "training program", "facility", "others"]
    write(tmp_path / "train.csv")
    assert load(tmp_path, labels=topics, label_column="topic").labels.tolist() == [0, 2, 3]


def test_the_configs_label_column_comes_before_the_tasks(tmp_path):
    write(tmp_path / "train.csv", [{"sentence": "hay", "nhãn": 2, "sentiment": 0}])
    section = DataConfig(source=str(tmp_path), label_column="nhãn")
    assert load_split(section, "train", labels=LABELS, label_column="sentiment").labels.tolist() == [2]


# Encodings, line ends, quotes


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_csv_as_spreadsheets_write_it(tmp_path, encoding, newline, delimiter):
    lines = ["sentence,sentiment", '"thầy dạy hay,"" dễ hiểu', 'nhưng nói nhanh",2', "tạm được,neutral", ""]
    content = newline.join(lines).replace(",", delimiter).replace(f"hay{delimiter}", "hay,")
    examples = load(table(tmp_path, content.encode(encoding))).examples
    assert [example.text for example in examples] == ['thầy dạy hay," dễ hiểu\nnhưng nói nhanh', "tạm được"]
    assert [example.row for example in examples] == [2, 4]


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    ['"', '""', "a\nb", "\r\n", ";", "'", ",\t"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(texts=st.lists(TEXTS, max_size=8), suffix=st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet"]))
def test_any_text_survives_the_trip_through_a_file(tmp_path, texts, suffix):
    path = write(tmp_path / f"train{suffix}", [{"sentence": text, "sentiment": 1} for text in [*texts, "chốt"]])
    read = [example.text for example in load(path).examples]
    line_ends = [text.replace("\r\n", "\n").replace("\r", "\n") for text in [*texts, "chốt"]]
    composed = [unicodedata.normalize("NFC", text).strip() for text in line_ends]
    assert read == [text for text in composed if text]
    assert all(unicodedata.is_normalized("NFC", text) for text in read)


def test_decomposed_and_composed_text_are_the_same_row(tmp_path):
    text = "thầy giảng rất nhiệt tình"
    rows = [{"sentence": unicodedata.normalize(form, text), "sentiment": 2} for form in ("NFC", "NFD")]
    split = load(write(tmp_path / "train.csv", rows), drop_duplicates=True)
    assert split.texts == [text]
    assert split.notes == {"duplicate rows dropped": 1}


# Labels


@pytest.mark.parametrize("value", [2, "2", 2.0, "2.0", " 2 ", "positive", "Positive", "POSITIVE "])
def test_labels_are_ids_or_names_in_any_case(tmp_path, value):
    path = write(tmp_path / "train.jsonl", [{"sentence": "hay", "sentiment": value}])
    assert load(path).labels.tolist() == [2]


@pytest.mark.parametrize("value", [3, -1, "tốt", "", None, True, 1.5, "negative positive"])
def test_unknown_labels_are_refused_with_file_row_and_what_is_allowed(tmp_path, value):
    path = write(tmp_path / "train.jsonl", [ROWS[0], {"sentence": "hay", "sentiment": value}])
    with pytest.raises(DataError) as error:
        load(path)
    assert f"{path} row 2: unknown label in 'sentiment' (got {value!r})" in str(error.value)
    assert "negative, neutral, positive, or ids 0 to 2" in str(error.value)


def test_names_that_are_numbers_are_names_and_never_ids(tmp_path):
    stars = ["1", "2", "3"]
    path = write(tmp_path / "train.jsonl", [{"sentence": "hay", "sentiment": 1}, {"sentence": "dở", "sentiment": "3"}])
    assert load(path, labels=stars).labels.tolist() == [0, 2]
    with pytest.raises(DataError, match="got 0"):
        load(write(path, [{"sentence": "hay", "sentiment": 0}]), labels=stars)


def test_vietnamese_names_match_across_case_composition_and_underscores(tmp_path):
    labels = ["tích cực", "Tiêu Cực"]
    values = [unicodedata.normalize("NFD", "Tích_cực"), "TIÊU  CỰC"]
    path = write(tmp_path / "train.csv", [{"sentence": "a", "sentiment": value} for value in values])
    assert load(path, labels=labels).labels.tolist() == [0, 1]


# What is left out, and counted


def test_blank_rows_are_skipped_and_counted_whatever_their_label(tmp_path):
    path = table(tmp_path, "sentence,sentiment\n  ,2\nhay,2\n\n,\n")
    split = load(path)
    assert split.texts == ["hay"]
    assert split.notes == {"blank rows skipped": 2}


def test_duplicates_are_counted_and_dropped_only_on_request_and_only_from_train(tmp_path):
    rows = [*ROWS, ROWS[0], {**ROWS[0], "sentiment": 0}]
    write(tmp_path / "train.csv", rows)
    write(tmp_path / "test.csv", rows)
    assert load(tmp_path).notes == {"duplicate rows": 1}
    dropped = load(tmp_path, drop_duplicates=True)
    assert [example.row for example in dropped.examples] == [2, 3, 4, 6]
    assert len(load(tmp_path, "test", drop_duplicates=True)) == 5


@pytest.mark.parametrize("limit", [1, 2, 7, 10, 11])
def test_a_limit_keeps_so_many_rows_in_order_and_all_parts_of_a_sorted_file(tmp_path, limit):
    path = write(tmp_path / "train.csv", [{"sentence": f"câu {i}", "sentiment": i // 5} for i in range(10)])
    split = load(path, limit=limit)
    rows = [example.row for example in split.examples]
    assert len(rows) == min(limit, 10)
    assert rows == sorted(set(rows))
    assert limit == 1 or set(split.labels.tolist()) == {0, 1}
    assert split.notes.get("rows left out by the limit", 0) == max(10 - limit, 0)


# What is refused


@pytest.mark.parametrize("content", ["", "sentence,sentiment\n", "sentence,sentiment\n ,1\n"])
def test_an_empty_split_is_refused(tmp_path, content):
    with pytest.raises(DataError, match=r"train\.csv: (no row with text and label|no column)"):
        load(table(tmp_path, content))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_missing_column_is_refused_with_the_nearest_one(tmp_path, suffix):
    path = write(tmp_path / f"train{suffix}", [{"Sentences": "hay", "sentiment": 1}])
    with pytest.raises(DataError, match=r"no column 'sentence'.*did you mean 'Sentences'\?(.|\n)*data\.text_column"):
        load(path)
    path = write(path, [{"sentence": "hay", "sentimen": 1}])
    with pytest.raises(DataError, match=r"no column 'sentiment'.*did you mean 'sentimen'\?(.|\n)*data\.label_column"):
        load(path)


def test_the_first_five_bad_rows_are_named_and_the_rest_counted(tmp_path):
    path = write(tmp_path / "train.csv", [{"sentence": "hay", "sentiment": "?"}] * 8)
    with pytest.raises(DataError) as error:
        load(path)
    lines = str(error.value).splitlines()
    assert [line.split(":")[0] for line in lines[:5]] == [f"{path} row {row}" for row in range(2, 7)]
    assert lines[5] == "... and 3 more such rows"
    assert len(lines) == 7


@pytest.mark.parametrize(
    ("suffix", "content", "reason"),
    [
        (".csv", 'sentence,sentiment\nhay,1\n"dở" quá,0\n', "row 3: malformed"),
        (".csv", 'sentence,sentiment\nhay,1\n"chưa đóng,0\nhay,1\n', "row 3: malformed"),
        (".csv", "sentence,sentiment\nhay,1\nhay, dễ hiểu,1\n", "row 3: 3 fields where the header has 2"),
        (".tsv", "sentence\tsentiment\nhay\t1\nthiếu nhãn\n", "row 3: 1 fields where the header has 2"),
        (".csv", "sentence,sentence,sentiment\nhay,hay,1\n", "column names repeat"),
        (".jsonl", '{"sentence": "hay", "sentiment": 1}\n{"sentence": \n', "row 2: not JSON"),
        (".jsonl", '{"sentence": "hay", "sentiment": 1}\n["hay", 1]\n', "row 2: not a JSON object .got list"),
        (".jsonl", '{"sentence": 5, "sentiment": 1}\n', "row 1: 'sentence' is not text .got 5"),
        (".jsonl", '{"sentence": "\\ud800", "sentiment": 1}\n', "row 1: not valid UTF-8"),
        (".csv", "sentence,sentiment\nhay,1\nd\u1edf,0\n".encode("utf-16-le"), "no column|not valid UTF-8"),
        (".csv", b"sentence,sentiment\nhay,1\nd\xff,0\n", "row 3: not valid UTF-8"),
        (".csv", b"\xff\xfes\x00e", "not valid|no column"),
        (".json", "[{", "not JSON"),
        (".parquet", "sentence,sentiment", "not a readable Parquet file"),
    ],
)
def test_broken_files_are_refused_with_the_place(tmp_path, suffix, content, reason):
    with pytest.raises(DataError, match=rf"train\{suffix}:? ?({reason})"):
        load(table(tmp_path, content, suffix))


def test_sources_that_are_not_there_say_what_could_be(tmp_path):
    with pytest.raises(DataError, match=r"no such folder or file.*feedback"):
        load(tmp_path / "không có")
    with pytest.raises(DataError, match="no such file"):
        load(tmp_path / "không có.csv")
    with pytest.raises(DataError, match="no such file"):
        load("feedback", tmp_path / "không có.parquet")
    write(tmp_path / "train.csv")
    with pytest.raises(DataError, match=r"no file for split test \(got train.csv\)"):
        load(tmp_path, "test")


def test_two_files_for_one_split_are_refused(tmp_path):
    write(tmp_path / "train.csv")
    write(tmp_path / "train.jsonl")
    with pytest.raises(DataError, match=r"several files for split train \(got train.jsonl, train.csv\)"):
        load(tmp_path)


def test_a_folder_with_a_files_name_is_refused(tmp_path):
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        load("feedback", tmp_path / "x.csv")


# The hub, by a stand-in for `datasets.load_dataset`


@pytest.fixture
def hub(monkeypatch):
    """Answers every request with `hub["answer"]` (raised if an exception) and keeps the request."""
    state = {}

    def load_dataset(name, **arguments):
        state["request"] = (name, arguments)
        if isinstance(state["answer"], Exception):
            raise state["answer"]
        return state["answer"]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return state


def test_a_hub_id_is_asked_for_with_revision_split_and_cache(hub, tmp_path):
    hub["answer"] = datasets.Dataset.from_list(ROWS)
    split = load("uitnlp/vietnamese_students_feedback", "test", revision="refs/convert/parquet", cache_dir="./cache")
    assert hub["request"] == (
        "uitnlp/vietnamese_students_feedback",
        {"split": "test", "revision": "refs/convert/parquet", "cache_dir": "./cache"},
    )
    assert split.labels.tolist() == [2, 0, 1]
    assert split.source == "hub uitnlp/vietnamese_students_feedback at refs/convert/parquet, split test"
    write(tmp_path / "train.csv")
    assert split.fingerprint == load(tmp_path).fingerprint


def with_class_names(names):
    features = datasets.Features({"sentence": datasets.Value("string"), "sentiment": datasets.ClassLabel(names=names)})
    rows = [{"sentence": row["sentence"], "sentiment": row["sentiment"]} for row in ROWS]
    return datasets.Dataset.from_list(rows, features=features)


def test_class_names_settle_the_order_of_ids(hub):
    hub["answer"] = with_class_names(["Positive", "neutral", "negative"])
    assert load("owner/name").labels.tolist() == [0, 2, 1]


@pytest.mark.parametrize("names", [["POS", "NEG", "NEU"], ["negative", "neutral", "positive", "mixed"]])
def test_class_names_that_are_not_ours_are_refused_not_taken_for_our_ids(hub, names):
    hub["answer"] = with_class_names(names)
    with pytest.raises(DataError) as error:
        load("owner/name")
    theirs = ", ".join(names)
    assert f"got {theirs}; the task has negative, neutral, positive" in str(error.value)
    assert f"--set 'prompt.labels=[{theirs}]' with prompt.label_words" in str(error.value)
    assert load("owner/name", labels=names).labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("source", "failure", "hint"),
    [
        ("owner/name", ConnectionError("offline"), "HF_HUB_OFFLINE"),
        ("owner/name", RuntimeError("Dataset scripts are no longer supported"), "data.revision=refs/convert/parquet"),
        ("owner/name", ValueError('Unknown split "test"'), "check the name, the revision and the split"),
        ("feedbak", ConnectionError("offline"), "did you mean the bundled 'feedback'?"),
    ],
)
def test_hub_failures_end_with_the_next_step(hub, source, failure, hint):
    hub["answer"] = failure
    with pytest.raises(DataError) as error:
        load(source)
    assert str(failure) in str(error.value)
    assert hint in str(error.value)


def test_a_parquet_file_of_datasets_is_read_by_its_class_names_not_by_our_ids(tmp_path):
    with_class_names(["Positive", "neutral", "negative"]).to_parquet(tmp_path / "train.parquet")
    assert load(tmp_path).labels.tolist() == [0, 2, 1]
    assert load(tmp_path / "train.parquet").texts == [row["sentence"] for row in ROWS]
    assert [item.text for item in read_inputs(tmp_path / "train.parquet")] == [row["sentence"] for row in ROWS]


def test_a_parquet_file_with_other_class_names_is_refused(tmp_path):
    with_class_names(["POS", "NEG", "NEU"]).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(
        DataError, match=r"train\.parquet: the names of 'sentiment' are not the task's labels \(got POS"
    ):
        load(tmp_path)
    assert load(tmp_path, labels=["POS", "NEG", "NEU"]).labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"info": {"features": {"sentiment": {"dtype": "int64"}}}}'])
def test_a_parquet_file_with_other_metadata_is_read_by_ids(tmp_path, content):
    table = pyarrow.Table.from_pylist(ROWS).replace_schema_metadata({b"huggingface": content})
    pyarrow.parquet.write_table(table, tmp_path / "train.parquet")
    assert load(tmp_path).labels.tolist() == [2, 0, 1]


def test_a_split_that_is_not_there_is_told_from_one_that_cannot_be_read(hub, tmp_path):
    hub["answer"] = ValueError("Unknown split \"test\". Should be one of ['train', 'dev'].")
    with pytest.raises(NoSplitError, match="Should be one of"):
        load("owner/name", "test")
    hub["answer"] = ConnectionError("offline")
    with pytest.raises(DataError) as error:
        load("owner/name", "test")
    assert not isinstance(error.value, NoSplitError)
    with pytest.raises(NoSplitError):
        load(write(tmp_path / "train.csv"), "test")
    with pytest.raises(NoSplitError):
        load(tmp_path, "test")


# Unlabelled input for prediction


def test_lines_are_sentences_in_order_with_their_numbers():
    stream = io.StringIO("\ufeffthầy dạy hay \r\n\n{không phải json\ncâu\u2028cuối\n\n\n")
    assert list(read_inputs(stream, "auto")) == [
        Example("thầy dạy hay", None, 1),
        BadRow(2, "no text"),
        Example("{không phải json", None, 3),
        Example("câu\u2028cuối", None, 4),
    ]


def test_a_stream_of_objects_with_the_text_column_is_jsonl():
    stream = io.StringIO('{"id": 7, "sentence": "hay"}\n\n{"id": 8}\n{"sentence": ""}\nx\n')
    items = list(read_inputs(stream))
    assert items[0] == Example("hay", None, 1, {"id": 7})
    assert [(item.row, item.reason.split(" (")[0]) for item in items[1:]] == [
        (3, "no column 'sentence'"),
        (4, "no text"),
        (5, "not JSON"),
    ]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('\n \n{"sentence": "hay"}\n', [3]),
        ("\ufeff\nid,sentence\n1,hay\n", [3]),
        ('id,"sentence"\r\n1,"hay"\r\n', [2]),
        ("id; sentence\n1;hay\n", [2]),
        ("id\tsentence\n1\thay\n", [2]),
        ("sentence\nhay\n", [2]),
        ('[{"sentence": "hay"},\n {"sentence": "hay"}]', [1, 2]),
        ('[\n  {\n    "sentence": "hay"\n  }\n]\n', [1]),
    ],
)
def test_columns_on_a_stream_are_known_by_the_first_line_that_is_not_blank(tmp_path, content, rows):
    items = list(read_inputs(io.StringIO(content, newline="")))
    assert [(item.text, item.row) for item in items] == [("hay", row) for row in rows]
    (tmp_path / "không đuôi").write_bytes(content.encode())
    assert list(read_inputs(tmp_path / "không đuôi")) == items


@pytest.mark.parametrize("line", ["thầy dạy hay, dễ hiểu; vui", "[thầy] hay", '"hay", 5 sao', '"hay"', "5", 'a "b, c'])
def test_a_sentence_with_commas_quotes_or_brackets_is_a_line(line):
    assert [item.text for item in read_inputs(io.StringIO(f"{line}\nhay\n"))] == [line, "hay"]


def test_objects_without_the_text_column_are_refused_and_not_labelled_as_text():
    content = '\n{"id": 7, "Sentences": "hay"}\n'
    expected = (
        r"'sentence' \(got id, Sentences\), did you mean 'Sentences'\?; name it with --text-column NAME, or .*lines"
    )
    with pytest.raises(DataError, match=expected):
        list(read_inputs(io.StringIO(content)))
    assert list(read_inputs(io.StringIO(content), "lines"))[1].text == content.strip()


@pytest.mark.parametrize(("name", "format"), [("in.txt", "auto"), ("in", "lines"), ("in.csv", "auto"), ("in", "csv")])
def test_utf_16_cut_in_the_middle_of_a_character_is_refused(tmp_path, name, format):
    (tmp_path / name).write_bytes("sentence\nhay\n".encode("utf-16") + b"d")
    with pytest.raises(DataError, match=r"not valid text \(.*truncated.*\); save it as UTF-8"):
        list(read_inputs(tmp_path / name, format))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are of POSIX")
def test_a_pipe_is_read_from_its_beginning(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("câu một\ncâu hai\n",), daemon=True)
    writer.start()
    assert [item.text for item in read_inputs(pipe)] == ["câu một", "câu hai"]
    writer.join()


def test_columns_keep_their_order_and_text(tmp_path):
    path = table(tmp_path, "mã,sentence,sentiment\n007, hay ,2\n008,dở,0\n")
    assert list(read_inputs(path)) == [
        Example("hay", None, 2, {"mã": "007", "sentiment": "2"}),
        Example("dở", None, 3, {"mã": "008", "sentiment": "0"}),
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_inputs_are_the_same_in_every_format(tmp_path, suffix):
    path = write(tmp_path / f"in{suffix}")
    assert [item.text for item in read_inputs(path)] == [row["sentence"] for row in ROWS]


def test_a_named_format_comes_before_the_suffix(tmp_path):
    path = table(tmp_path, "sentence\tid\nhay\t1\n", ".txt")
    assert [item.text for item in read_inputs(path, "tsv")] == ["hay"]
    assert [item.text for item in read_inputs(path)] == ["sentence\tid", "hay\t1"]


@pytest.mark.parametrize("format", ["lines", "csv", "jsonl"])
def test_a_bad_row_is_reported_and_the_rest_goes_on(tmp_path, format):
    good, bad = ('{"sentence": "hay"}', b'{"sentence": "d\xff"}') if format == "jsonl" else ("hay", b"d\xff")
    content = b"\n".join([*([b"sentence"] if format == "csv" else []), good.encode(), bad, good.encode(), b""])
    first, second, third = read_inputs(table(tmp_path, content, ".txt"), format)
    assert (first.text, third.text) == ("hay", "hay")
    assert second == BadRow(first.row + 1, "not valid UTF-8; save the file as UTF-8")


def test_bytes_on_stdin_are_utf_8_whatever_the_locale():
    stdin = io.TextIOWrapper(io.BytesIO("\ufeffcâu một\ncâu hai\n".encode() + b"\xff\n"), encoding="ascii")
    items = list(read_inputs(stdin))
    assert [item.text for item in items[:2]] == ["câu một", "câu hai"]
    assert isinstance(items[2], BadRow)


def test_a_missing_text_column_is_refused_before_the_first_row(tmp_path):
    with pytest.raises(DataError, match=r"no column 'sentence' \(got text\); name it with --text-column NAME"):
        list(read_inputs(table(tmp_path, "text\nhay\n")))


def test_inputs_are_read_as_they_come_and_not_ahead():
    served = []

    def endless():
        while True:
            served.append(1)
            yield f"câu {len(served)}\n"

    items = read_inputs(endless())
    assert [next(items).row for _ in range(3)] == [1, 2, 3]
    assert len(served) == 3
